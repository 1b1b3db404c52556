# SPDX-License-Identifier: Apache-2.0
"""The streaming softmax."""

import random
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt

from cardsim import numerics as nx

from .run import parameters
from .stimulus import numbers, to_int
from .streams import CASES, compare, exchange, pack, reset, watch


def scores(rng: random.Random, count: int, kind: str) -> npt.NDArray[np.float32]:
    """Scores of one row."""
    if kind == "apart":     # finite, but not their differences
        return np.array([rng.choice([-3e38, 3e38]) for _ in range(count)], np.float32)
    return numbers(rng, count, wild=kind == "wild" and rng.random() < 0.5)


class Rows:
    """Groups of rows, and what they are to give."""

    def __init__(self, rng: random.Random, groups: int, kind: str) -> None:
        self.lanes, self.words, self.tokens = (
            parameters()[name] for name in ("lanes", "words", "tokens"))
        self.headers: list[tuple[int, int]] = []
        self.scores: list[tuple[int, int]] = []
        self.numerators: list[tuple[int, int]] = []
        self.totals: list[tuple[int, int]] = []
        self.nonfinite = False
        for _ in range(groups):
            self._add(rng, kind)

    def _add(self, rng: random.Random, kind: str) -> None:
        """A header, its rows' words in turn, and the results row by row."""
        lanes, tokens = self.lanes, self.tokens
        row_bits = max(1, (tokens - 1).bit_length())
        count = rng.choice([1, 2, self.words, rng.randrange(1, self.words + 1)])
        # The last row has rows - 1 scores more than the first.
        rows, tag = rng.randrange(1, min(tokens, lanes * count) + 1), rng.randrange(2)
        length = rng.randrange(1, lanes * count - rows + 2)
        self.headers.append((pack([
            (length, (lanes * self.words).bit_length()), (count, self.words.bit_length()),
            (rows, tokens.bit_length()), (tag, 1)]), 0))
        values = np.empty((rows, count * lanes), np.float32)
        for row in range(rows):
            # Beyond the length there may be anything.
            values[row] = numbers(rng, count * lanes, wild=True)
            valid = values[row, :length + row]
            valid[:] = scores(rng, len(valid), kind)
            self.nonfinite |= nx.nonfinite(valid, nx.sub(valid, nx.greatest(valid)))
        words = values.reshape(rows, count, lanes)
        self.scores += [(to_int(words[row, k]), 0) for k in range(count) for row in range(rows)]
        for row in range(rows):
            p, _, r = nx.softmax(words[row], length + row)
            for k in range(count):
                mask = sum(1 << j for j in range(lanes) if k * lanes + j >= length + row)
                self.numerators.append((pack([
                    (to_int(p[k]), 32 * lanes), (mask, lanes), (row, row_bits), (tag, 1)]),
                    int(k == count - 1)))
            self.totals.append((pack([(int(nx.bits(r)), 32), (row, row_bits), (tag, 1)]), 0))


@cocotb.test(timeout_time=4, timeout_unit="ms")
@cocotb.parametrize((("stall", "hold"), CASES))
async def rows_equal_the_reference(dut: Any, stall: float, hold: float) -> None:
    await reset(dut)
    seen = watch(dut, "nonfinite")
    for kind in ("random", "apart", "wild"):
        seed = f"softmax {kind} {stall} {hold}"
        rows = Rows(random.Random(seed), 30, kind)
        got = await exchange(
            dut, {"s_axis_header": rows.headers, "s_axis_i": rows.scores},
            {"m_axis_o": len(rows.numerators), "m_axis_total": len(rows.totals)}, stall, seed,
            hold=hold)
        compare(got["m_axis_o"], rows.numerators, lambda pair: f"{pair[0]:#x} last={pair[1]}")
        compare(got["m_axis_total"], rows.totals, lambda pair: f"{pair[0]:#x}")
        assert bool(seen) == rows.nonfinite == (kind != "random"), kind
        seen.clear()
