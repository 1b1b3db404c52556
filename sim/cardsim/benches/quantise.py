# SPDX-License-Identifier: Apache-2.0
"""The slice quantiser."""

import random
from typing import Any

import cocotb
import numpy as np

from cardsim import numerics as nx

from .run import parameters
from .stimulus import numbers, to_int
from .streams import CASES, compare, exchange, pack, reset, watch


class Slices:
    """Slices of one kind, and what they are to give."""

    def __init__(self, rng: random.Random, count: int, kind: str) -> None:
        self.words: list[tuple[int, int]] = []
        self.quantised: list[tuple[int, int]] = []
        self.nonfinite = self.out_of_range = False
        for _ in range(count):
            self._add(rng, kind)

    def _add(self, rng: random.Random, kind: str) -> None:
        lanes, words = parameters()["lanes"], rng.randrange(1, parameters()["depth"] + 1)
        digits, tag = rng.randrange(2), rng.randrange(2)
        # Numbers are below 2^9: the small bases are too far below them.
        base = rng.randrange(-60, -50) if kind == "small" else rng.randrange(-22, 30)
        values = numbers(rng, words * lanes, wild=kind == "wild").reshape(words, lanes)
        mask = np.array([[rng.random() < 0.1 for _ in range(lanes)] for _ in range(words)])
        if rng.random() < 0.1:
            values[:] = 0
        # What is masked may be anything.
        values = np.where(mask, numbers(rng, mask.size, wild=True).reshape(mask.shape), values)
        kept = np.where(mask, np.float32(0), values)
        result = nx.quantise(kept, digits + 1, base)
        self.nonfinite |= nx.nonfinite(kept)
        self.out_of_range |= result.out_of_range
        high, low = np.zeros_like(result.q), result.q
        if digits:
            low, high = nx.split_digits(result.q)
        for k in range(words):
            last = int(k == words - 1)
            masked = sum(int(bit) << j for j, bit in enumerate(mask[k]))
            self.words.append((pack([(to_int(values[k]), 32 * lanes), (masked, lanes),
                                     (digits, 1), (base, 8), (tag, 1)]), last))
            self.quantised.append((pack([
                *((int(v), 8) for v in low[k]), *((int(v), 8) for v in high[k]),
                (int(result.exponent), 8), (tag, 1)]), last))


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize((("stall", "hold"), CASES))
async def slices_equal_the_reference(dut: Any, stall: float, hold: float) -> None:
    await reset(dut)
    nonfinite, out_of_range = watch(dut, "nonfinite"), watch(dut, "range")
    for kind in ("ordinary", "small", "wild"):
        seed = f"quantise {kind} {stall} {hold}"
        slices = Slices(random.Random(seed), 20, kind)
        got = await exchange(dut, {"s_axis_i": slices.words},
                             {"m_axis_o": len(slices.quantised)}, stall, seed, hold=hold)
        compare(got["m_axis_o"], slices.quantised, lambda pair: f"{pair[0]:#x} last={pair[1]}")
        assert bool(nonfinite) == slices.nonfinite == (kind == "wild"), kind
        assert bool(out_of_range) == slices.out_of_range == (kind != "ordinary"), kind
        nonfinite.clear()
        out_of_range.clear()
