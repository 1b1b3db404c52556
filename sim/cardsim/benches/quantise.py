# SPDX-License-Identifier: Apache-2.0
"""The slice quantiser."""

import random

import cocotb
import numpy as np

from cardsim import numerics as nx

from .run import parameters, unit
from .stimulus import numbers, to_int
from .streams import STALLS, compare, exchange, pack, reset, watch


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def slices_equal_the_reference(dut, stall):
    lanes, depth = parameters()["lanes"], parameters()["depth"]
    seed = f"{unit()} {stall}"
    rng = random.Random(seed)
    sends, expected, out_of_range = [], [], False
    for _ in range(40):
        words = rng.randrange(1, depth + 1)
        digits, base, tag = rng.randrange(2), rng.randrange(-60, 30), rng.randrange(2)
        values = numbers(rng, words * lanes, wild=rng.random() < 0.3).reshape(words, lanes)
        if rng.random() < 0.1:
            values[:] = 0
        mask = np.array([[rng.random() < 0.1 for _ in range(lanes)] for _ in range(words)])
        kept = np.where(mask, np.float32(0), values)
        result = nx.quantise(kept, digits + 1, base)
        out_of_range |= bool(result.out_of_range)
        high, low = np.zeros_like(result.q), result.q
        if digits:
            low, high = nx.split_digits(result.q)
        for k in range(words):
            last = int(k == words - 1)
            sends.append((pack([(to_int(values[k]), 32 * lanes),
                                (sum(int(bit) << j for j, bit in enumerate(mask[k])), lanes),
                                (digits, 1), (base, 8), (tag, 1)]), last))
            expected.append((pack([*((int(v), 8) for v in low[k]), *((int(v), 8) for v in high[k]),
                                   (int(result.exponent), 8), (tag, 1)]), last))
    await reset(dut)
    seen = watch(dut, "range")
    got = await exchange(dut, {"s_axis_i": sends}, {"m_axis_o": len(expected)}, stall, seed)
    compare(got["m_axis_o"], expected, lambda pair: f"{pair[0]:#x} last={pair[1]}")
    assert bool(seen) == out_of_range
