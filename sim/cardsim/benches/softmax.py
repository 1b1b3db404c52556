# SPDX-License-Identifier: Apache-2.0
"""The streaming softmax."""

import random

import cocotb
import numpy as np

from cardsim import numerics as nx

from .run import parameters
from .stimulus import numbers, to_int
from .streams import STALLS, compare, exchange, pack, reset


@cocotb.test(timeout_time=4, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def rows_equal_the_reference(dut, stall):
    lanes, words, tokens = (parameters()[name] for name in ("lanes", "words", "tokens"))
    seed = f"softmax {stall}"
    rng = random.Random(seed)
    row_bits = max(1, (tokens - 1).bit_length())
    headers, scores, numerators, totals = [], [], [], []
    for _ in range(40):
        rows, tag = rng.randrange(1, tokens + 1), rng.randrange(2)
        count = rng.choice([1, 2, words, rng.randrange(1, words + 1)])
        length = rng.randrange(1, lanes * count - rows + 2)
        headers.append((pack([(length, (lanes * words).bit_length()), (count, words.bit_length()),
                              (rows, tokens.bit_length()), (tag, 1)]), 0))
        values = np.stack([
            numbers(rng, count * lanes, wild=rng.random() < 0.2).reshape(count, lanes)
                           for _ in range(rows)])
        scores += [(to_int(values[row, k]), 0) for k in range(count) for row in range(rows)]
        for row in range(rows):
            p, _, r = nx.softmax(values[row], length + row)
            for k in range(count):
                mask = sum(1 << j for j in range(lanes) if k * lanes + j >= length + row)
                numerators.append((pack([(to_int(p[k]), 32 * lanes), (mask, lanes), (row, row_bits),
                                         (tag, 1)]), int(k == count - 1)))
            totals.append((pack([(int(nx.bits(r)), 32), (row, row_bits), (tag, 1)]), 0))
    await reset(dut)
    got = await exchange(dut, {"s_axis_header": headers, "s_axis_i": scores},
                         {"m_axis_o": len(numerators), "m_axis_total": len(totals)}, stall, seed)
    compare(got["m_axis_o"], numerators, lambda pair: f"{pair[0]:#x} last={pair[1]}")
    compare(got["m_axis_total"], totals)
