# SPDX-License-Identifier: Apache-2.0
"""SAMPLE: the best tokens of rows of logits that come in blocks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cardsim import numerics as nx
from rtl_gen.spec.isa import Register
from rtl_gen.spec.registers import NO_TARGET, RESULT

from .arithmetic import F32, HIGH, RAW, tame
from .state import State
from .vector import Fields, Registers

#: A pair for which there are no logits.
NO_PAIR = (0xFFFFFFFF, 0)


class Row:
    """The row of one column: collects the blocks; candidates are ranked when it ends."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.logits: list[npt.NDArray[np.float32]] = []
        self.tokens: list[npt.NDArray[np.int64]] = []
        #: Maximum and sum over the blocks so far.
        self.run = nx.LogSumExp()

    def take(self, words: npt.NDArray[np.float32], count: int, token: int) -> None:
        """Take ``count`` logits of ``words``; the first is that of ``token``."""
        flat = words.ravel()[:count].copy()
        self.logits.append(flat)
        self.tokens.append(np.arange(token, token + count))
        if self.state.wild or not tame(flat) or not self._quick(flat, words.shape[1]):
            self.run.update(words, count)
            self.state.stick(nonfinite=self.run.nonfinite)

    def _quick(self, flat: npt.NDArray[np.float32], lanes: int) -> bool:
        """As ``LogSumExp.update``, all words together; False, without any effect, if unsure."""
        run = self.run
        words = np.full((-(-len(flat) // lanes), lanes), -np.inf, F32)
        words.ravel()[:len(flat)] = flat
        tops = np.maximum.accumulate(words.max(1) if run.m is None else
                                     np.maximum(words.max(1), run.m))
        differences = words - tops[:, None]
        t = RAW.exp(differences)
        while t.shape[1] > 1:
            t = t[:, ::2] + t[:, 1::2]
        t = t[:, 0]
        # Where the maximum does not change the sum loses nothing: exp(0) is exactly 1.
        before = np.concatenate([tops[:1] if run.m is None else F32(run.m).reshape(1), tops[:-1]])
        changes = np.flatnonzero(before != tops)
        # A zero of the other sign is no change here, but might be one in the record.
        if not tops.all() or run.m == 0 or not abs(run.s) <= HIGH:
            return False
        s: Any = run.s      # before the first word: 0
        start = 0
        for stop in [*changes.tolist(), len(t)]:
            if stop > start:
                s = np.add.accumulate(np.concatenate([[s], t[start:stop]], dtype=F32))[-1]
            if stop < len(t):
                factor = RAW.exp(before[stop:stop + 1] - tops[stop:stop + 1])[0]
                s = s * factor + t[stop]
            start = stop + 1
        run.m, run.s = F32(tops[-1]), F32(s)
        return True

    def finish(self, k: int, **values: Any) -> npt.NDArray[np.uint32]:
        """The result record of the row; ``values`` are those words that the row does not know."""
        logits, tokens = np.concatenate(self.logits), np.concatenate(self.tokens)
        keys = nx.key(logits)
        if 0 < k < len(keys):
            # The k largest keys and all that equal the least of them.
            least = np.partition(keys, len(keys) - k)[len(keys) - k]
            candidates = np.flatnonzero(keys >= least)
        else:
            candidates = np.flatnonzero(keys == keys.max()) if not k else np.arange(len(keys))
        ranked = candidates[nx.order(logits[candidates], tokens[candidates])]
        best = ranked[0]
        values |= {
            "token": tokens[best], "logit": nx.bits(logits[best]), "max": nx.bits(F32(self.run.m)),
            "sum": nx.bits(self.run.s)}
        pairs = [(int(tokens[n]), int(nx.bits(logits[n]))) for n in ranked[:k]]
        pairs += [NO_PAIR] * (k - len(pairs))
        return np.array([*(int(values[name]) for name in RESULT),
                         *(word for pair in pairs for word in pair)], np.uint32)


class Sampler:
    """The rows of all columns.

    Attributes
    ----------
    token : int
        The sampled token, that of the first column.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.token = 0
        self.clear()

    def clear(self) -> None:
        """Start a row of logits in every column."""
        self.rows = [Row(self.state) for _ in range(self.state.config.tokens)]
        self.target, self.target_logit = NO_TARGET, F32(0)

    def take(self, blocks: Sequence[npt.NDArray[np.float32]], count: int, token: int,
             target: int | None) -> None:
        """Take ``count`` logits of a block of words per column; the first is that of ``token``."""
        if target is not None and len(blocks) == 1:
            self.target = target
            if token <= target < token + count:
                self.target_logit = blocks[0].ravel()[target - token]
        for row, words in zip(self.rows, blocks, strict=False):
            row.take(words, count, token)

    def finish(self, columns: int, k: int, step: int,
               position: int) -> list[npt.NDArray[np.uint32]]:
        """The result records of the columns' rows; sets the sampled token."""
        records = [row.finish(k, target=self.target, target_logit=nx.bits(self.target_logit),
                              step=step, position=position) for row in self.rows[:columns]]
        self.token = int(records[0][RESULT.index("token")])
        return records


class Sample:
    """One SAMPLE word."""

    def __init__(self, state: State, sampler: Sampler, f: Fields) -> None:
        self.sampler, self.f = sampler, f
        starts = [f["a"] + column * f["stride"] for column in range(f["columns"])]
        self.blocks = [state.scratch[start:start + f["words"]] for start in starts]

    def __call__(self, registers: Registers,
                 target: int | None) -> list[npt.NDArray[np.uint32]]:
        """Take the block; returns the columns' result records if it was the last."""
        f, sampler = self.f, self.sampler
        if f["first"]:
            sampler.clear()
        sampler.take(self.blocks, f["count"], f["token"], target)
        if not f["last"]:
            return []
        return sampler.finish(f["columns"], f["k"], registers[Register.STEP],
                              registers[Register.POS])
