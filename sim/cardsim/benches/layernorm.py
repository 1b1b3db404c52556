# SPDX-License-Identifier: Apache-2.0
"""LayerNorm of a stream of vectors."""

import random
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt

from cardsim import numerics as nx

from .run import parameters
from .stimulus import numbers, to_int
from .streams import CASES, compare, drive, exchange, pack, reset, watch

EPS = np.float32(1e-5)


def vector(rng: random.Random, lanes: int, words: int, kind: str) -> npt.NDArray[np.float32]:
    """One vector [W, lanes] of any length up to ``words``."""
    count = min(words, rng.choice([1, 2, words, rng.randrange(1, words + 1)]))
    values = numbers(rng, count * lanes, wild=kind == "wild" and rng.random() < 0.5)
    match kind:
        case "alike":       # no deviation but what rounding makes
            values[:] = values[0]
        case "large":       # the variance overflows, and nothing else
            values *= np.float32(2.0**90)
    return values.reshape(count, lanes)


@cocotb.test(timeout_time=4, timeout_unit="ms")
@cocotb.parametrize((("stall", "hold"), CASES))
async def vectors_equal_the_reference(dut: Any, stall: float, hold: float) -> None:
    lanes, words = parameters()["lanes"], parameters()["words"]
    await reset(dut)
    seen = watch(dut, "nonfinite")
    # Every lot has weights of its own, and divides by another length.
    for kinds, length in ((("random", "random", "alike"), words), (("large",), 1),
                          (("heavy",), 4 * words), (("wild",), 2)):
        seed = f"layernorm {kinds} {stall} {hold}"
        rng, inv, nonfinite = random.Random(seed), np.float32(1 / (length * lanes)), False
        gamma, beta = (numbers(rng, lanes * words).reshape(words, lanes) for _ in range(2))
        if "heavy" in kinds:        # only results overflow
            gamma = np.copysign(np.float32(3e38), gamma)
        weights = [(pack([(to_int(g), 32 * lanes), (to_int(b), 32 * lanes)]), int(k == words - 1))
                   for k, (g, b) in enumerate(zip(gamma, beta, strict=True))]
        dut.inv.value, dut.eps.value = int(nx.bits(inv)), int(nx.bits(EPS))
        await drive(dut, "s_axis_weights", weights, stall, f"{seed} weights")
        sends, expected = [], []
        for kind in kinds * (21 // len(kinds)):
            x = vector(rng, lanes, words, kind)
            found = nx.layer_norm(x, inv, EPS, gamma[:len(x)], beta[:len(x)])
            nonfinite |= nx.nonfinite(*found)
            for k in range(len(x)):
                last = int(k == len(x) - 1)
                sends.append((to_int(x[k]), last))
                expected.append((to_int(found.y[k]), last))
        got = await exchange(dut, {"s_axis_i": sends}, {"m_axis_o": len(expected)}, stall, seed,
                             hold=hold)
        compare(got["m_axis_o"], expected, lambda pair: f"{pair[0]:#x} last={pair[1]}")
        assert bool(seen) == nonfinite == ("random" not in kinds), kinds
        seen.clear()
