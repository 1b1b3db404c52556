# SPDX-License-Identifier: Apache-2.0
"""LayerNorm of a stream of vectors."""

import random
from typing import Any

import cocotb
import numpy as np

from cardsim import numerics as nx

from .run import parameters
from .stimulus import numbers, to_int
from .streams import STALLS, compare, drive, exchange, pack, reset, watch

EPS = np.float32(1e-5)


def vectors(rng: random.Random, lanes: int, words: int, *, wild: bool) -> list[np.ndarray]:
    """Vectors [W, lanes] of every kind of length, one of equal numbers."""
    found = []
    for _ in range(24):
        count = rng.choice([1, 2, words, rng.randrange(1, words + 1)])
        found.append(numbers(rng, count * lanes, wild=wild and rng.random() < 0.3).reshape(count, lanes))
    found.append(np.full((words, lanes), np.float32(0.1)))
    return found


@cocotb.test(timeout_time=4, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def vectors_equal_the_reference(dut: Any, stall: float) -> None:
    lanes, words = parameters()["lanes"], parameters()["words"]
    seed = f"layernorm {stall}"
    rng = random.Random(seed)
    await reset(dut)
    seen = watch(dut, "nonfinite")
    # Other weights, and another length to divide by, for the second lot.
    for wild, inv in ((False, np.float32(1 / (lanes * words))), (True, np.float32(1 / lanes))):
        nonfinite = False
        gamma, beta = (numbers(rng, lanes * words).reshape(words, lanes) for _ in range(2))
        weights = [(pack([(to_int(g), 32 * lanes), (to_int(b), 32 * lanes)]), int(k == words - 1))
                   for k, (g, b) in enumerate(zip(gamma, beta, strict=True))]
        dut.inv.value, dut.eps.value = int(nx.bits(inv)), int(nx.bits(EPS))
        await drive(dut, "s_axis_weights", weights, stall, f"{seed} weights {wild}")
        sends, expected = [], []
        for x in vectors(rng, lanes, words, wild=wild):
            found = nx.layer_norm(x, inv, EPS, gamma[:len(x)], beta[:len(x)])
            nonfinite |= nx.nonfinite(*found)
            for k in range(len(x)):
                last = int(k == len(x) - 1)
                sends.append((to_int(x[k]), last))
                expected.append((to_int(found.y[k]), last))
        got = await exchange(dut, {"s_axis_i": sends}, {"m_axis_o": len(expected)}, stall,
                             f"{seed} {wild}")
        compare(got["m_axis_o"], expected, lambda pair: f"{pair[0]:#x} last={pair[1]}")
        assert bool(seen) == nonfinite == wild
