# SPDX-License-Identifier: Apache-2.0
"""exp and GELU on every lane of a stream."""

import random
from collections.abc import Callable
from typing import Any

import cocotb

from cardsim import numerics as nx

from .run import parameters, unit
from .stimulus import numbers, to_int
from .streams import CASES, compare, exchange, reset

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp": nx.exp, "gelu": lambda x: nx.gelu(x, 0), "gelu_erf": lambda x: nx.gelu(x, 1)}


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize((("stall", "hold"), CASES))
async def every_element_equals_the_reference(dut: Any, stall: float, hold: float) -> None:
    lanes, seed = parameters()["lanes"], f"{unit()} {stall} {hold}"
    rng = random.Random(seed)
    words = [numbers(rng, lanes, wild=rng.random() < 0.5) for _ in range(300)]
    lasts = [int(rng.random() < 0.2) for _ in words]
    await reset(dut)
    given = [(to_int(w), k) for w, k in zip(words, lasts, strict=True)]
    got = await exchange(dut, {"s_axis_i": given}, {"m_axis_o": len(words)}, stall, seed,
                         hold=hold)
    expected = [(to_int(FUNCTIONS[unit()](w)), k) for w, k in zip(words, lasts, strict=True)]
    compare(got["m_axis_o"], expected)
