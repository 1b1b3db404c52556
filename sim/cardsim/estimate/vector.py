# SPDX-License-Identifier: Apache-2.0
"""The vector unit: passes over words, one after another, and what comes of them."""

import dataclasses
import heapq
import math
from collections.abc import Callable

import numpy as np

from rtl_gen.spec.isa import VectorFn
from rtl_gen.spec.rules import Values

from .latencies import Latencies

#: Instructions under way; slices that wait for their second pass.
ENTRIES, SLICES = 16, 16


@dataclasses.dataclass
class Entry:
    """An instruction, and the cycle of its report; None while second passes decide about it."""

    ready: int | None = None
    done: int | None = None


class Vector:
    """The vector unit.

    Parameters
    ----------
    latencies : Latencies
    """

    def __init__(self, latencies: Latencies) -> None:
        self._of = latencies
        self._leaves = [-1, -1]
        #: When the pass that is next may be chosen, and the last word of the one before.
        self._room, self._last = 0, 0
        self._out = 0
        self._entries: list[Entry] = []
        self._reported = 0
        #: Second passes: (ready, number, words, what follows).
        self._heads: list[tuple[int, int, int, Callable[[int], None]]] = []
        self._slices: list[tuple[int, int, int, Callable[[int], None]]] = []
        self._number = 0
        self._slots = [0] * latencies.slots
        self._slot = 0
        #: By token: when the sums of all its slices are kept; its last norm.
        self._complete: dict[int, int] = {}
        self._normed: dict[int, int] = {}

    # ---- Passes ----

    def _pass(self, chosen: int, words: int) -> int:
        """A pass chosen at that cycle, or later; returns the cycle of its first word."""
        chosen = max(chosen, self._room)
        move = max(chosen + 1, self._last)
        self._room, self._last = move, move + words
        return move + 1

    def _choose(self, ready: int) -> int:
        """When a first pass that is ready is chosen: second ones may go before it."""
        while True:
            when = max(ready, self._room)
            if self._heads and self._heads[0][0] <= when:
                at, _, words, follows = heapq.heappop(self._heads)
                follows(self._pass(at, words))
            elif self._slices and max(self._slices[0][0], self._room) < when:
                at, _, words, follows = heapq.heappop(self._slices)
                follows(self._pass(at, words))
            else:
                return when

    def _second(self) -> None:
        """The second pass that comes next, if nothing else does."""
        ahead = self._heads and (not self._slices or self._heads[0][0] <= max(
            self._slices[0][0], self._room))
        at, _, words, follows = heapq.heappop(self._heads if ahead else self._slices)
        follows(self._pass(at, words))

    def settle(self) -> None:
        """All second passes, as if nothing else came."""
        while self._heads or self._slices:
            self._second()
        self._report()

    def _report(self) -> None:
        """Instructions end in order."""
        while self._reported < len(self._entries):
            entry = self._entries[self._reported]
            if entry.ready is None:
                return
            before = self._entries[self._reported - 1].done if self._reported else 0
            entry.done = max(entry.ready, (before or 0) + 1)
            self._reported += 1

    # ---- Instructions ----

    def taken(self, offered: int) -> int:
        """When the next instruction is taken: one is at hand, one waits."""
        return max(offered, self._leaves[-2] + 1)

    def run(self, name: str, v: Values, taken: int) -> Entry:
        """An instruction that is taken then."""
        entry = Entry()
        held = max(taken, self._leaves[-1]) + 1
        if name in ("VECTOR", "SCALAR", "SAMPLE"):
            self.settle()
            before = self._entries[-1].done if self._entries else 0
            start = max(held, (before or 0) + 1, *self._complete.values(), 0)
            entry.ready = leave = start + self._alone(name, v)
            self._last = self._room = leave
        else:
            if len(self._entries) >= ENTRIES:
                oldest = self._entries[-ENTRIES]
                if oldest.done is None:
                    self.settle()
                held = max(held, (oldest.done or 0) + 1)
            leave = {"QUANT": self._quantise, "CACHE": self._cache, "NORM": self._norm}[name](
                v, held, entry)
        self._entries.append(entry)
        self._leaves = [self._leaves[-1], leave]
        self._report()
        return entry

    def _alone(self, name: str, v: Values) -> int:
        of = self._of
        lanes, log = of.config.vector_lanes, of.config.vector_lanes.bit_length() - 1
        if name == "SCALAR":
            return of.scalar
        if name == "VECTOR":
            if v["fn"] == VectorFn.SUM:
                return of.slots * v["words"] + 5 * log + 31
            return v["words"] + (6 * lanes + 15 if v["fn"] == VectorFn.MAXIMUM else of.vector)
        total, seen = 0.0, v["token"]
        for word in range(v["words"]):
            valid = min(lanes, v["count"] - word * lanes)
            total += self._looked_through(seen, valid, v["columns"])
            seen += valid
        # The last word's list is part of the way to the end; the sum is, for who ends the row.
        left = of.sample + of.records(v["k"], v["columns"]) if v["last"] else of.sample_next
        return round(total) - of.sample_interval + left

    def _looked_through(self, seen: int, valid: int, columns: int) -> float:
        """Cycles of a word of logits, on average, if logits come in no order."""
        of = self._of
        chance = min(1.0, of.config.top_k / (seen + (valid + 1) / 2))
        # Of one column: by cycles, how likely they are.
        one = np.zeros(max(of.sample_turns, of.sample_list + of.sample_enter * valid) + 1)
        for enter in range(valid + 1):
            taken = max(of.sample_turns, of.sample_list + of.sample_enter * enter)
            one[taken] += math.comb(valid, enter) * chance ** enter * (1 - chance) ** (
                valid - enter)
        # One column after another.
        row = one
        for _ in range(columns - 1):
            row = np.convolve(row, one)
        return float(row @ np.maximum(np.arange(row.size), of.sample_interval))

    def _later(self, into: list[tuple[int, int, int, Callable[[int], None]]], ready: int,
               words: int, follows: Callable[[int], None]) -> None:
        self._number += 1
        heapq.heappush(into, (ready, self._number, words, follows))

    def _result(self, first: int, words: int) -> int:
        """The last of some words that leave the quantiser from ``first`` on."""
        self._out = max(first, self._out + 1) + words - 1
        return self._out

    def _chain(self, first: int, words: int) -> int:
        """A sum whose first word is asked for at ``first``."""
        of = self._of
        at = max(first, self._slots[self._slot])
        self._slots[self._slot] = at + of.slots * words
        self._slot = (self._slot + 1) % of.slots
        return at + of.slots * words + of.statistic

    def _quantise(self, v: Values, held: int, entry: Entry) -> int:
        of, words, token = self._of, v["words"], v["token"]
        if v["stats"]:
            held = max(held, self._place(words))
        chosen = self._choose(held)
        first = self._pass(chosen, words)
        entry.ready = self._result(
            first + words - 1 + of.product + of.quantiser, words) + of.reported
        if v["stats"]:
            def square(again: int) -> None:
                self._complete[token] = again + words + of.kept_sum
            self._later(self._slices, chosen + 1, words, square)
        return chosen

    def _place(self, words: int) -> int:
        """When a slice, and its words, have a place until their second pass."""
        free = 0
        while (len(self._slices) >= SLICES
               or words + sum(part[2] for part in self._slices) > self._of.kept):
            self._second()
            free = self._last
        return free

    def _cache(self, v: Values, held: int, entry: Entry) -> int:
        of, words = self._of, self._of.config.head_words
        chosen = self._choose(held)
        first = self._pass(chosen, words)

        def round_head(again: int) -> None:
            entry.ready = self._result(
                again + of.product + of.quantiser, words) + of.reported
        self._later(self._heads, first + words - 1 + of.again, words, round_head)
        return chosen

    def _norm(self, v: Values, held: int, entry: Entry) -> int:
        of, token = self._of, v["token"]
        self.settle()
        leave = max(held, self._complete.get(token, 0) + 1, self._normed.get(token, 0) + 1)
        rows = -(-v["words"] // of.config.vector_lanes)
        self._chain(self._pass(leave, rows), rows)
        power = self._pass(leave, rows)
        entry.ready = self._chain(power, rows) + of.norm
        self._normed[token] = entry.ready
        return power - 1
