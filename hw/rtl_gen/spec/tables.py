# SPDX-License-Identifier: Apache-2.0
"""Constants of the function units: shared contents, never arithmetic (see docs/numerics.md)."""

import math
from collections.abc import Callable

#: log2(e) with 32 fraction bits.
EXP_LOG2E = round(math.log2(math.e) * 2**32)


def _exp_row(index: int) -> tuple[int, int, int]:
    value, step = 2.0 ** (index / 128), math.log(2) / 128
    return (round(value * 2**28), round(value * step * 2**28), round(value * step**2 / 2 * 2**28))


#: 2**f over 128 intervals: value, slope and half curvature per interval at its left end, 28
#: fraction bits.
EXP = tuple(_exp_row(index) for index in range(128))


def _tanh_gate(z: float) -> tuple[float, float, float]:
    """0.5 (1 + tanh(k (z + a z^3))) with its first two derivatives."""
    k, a = math.sqrt(2 / math.pi), 0.044715
    inner, first, second = k * (z + a * z**3), k * (1 + 3 * a * z**2), k * 6 * a * z
    t = math.tanh(inner)
    sech2 = 1 - t * t
    return 0.5 * (1 + t), 0.5 * sech2 * first, 0.5 * (sech2 * second - 2 * t * sech2 * first**2)


def _erf_gate(z: float) -> tuple[float, float, float]:
    """The normal distribution function with its first two derivatives."""
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + math.erf(z / math.sqrt(2))), density, -z * density


def _gelu_row(gate: Callable[[float], tuple[float, float, float]],
              index: int) -> tuple[int, int, int]:
    value, first, second = gate((index + 0.5) / 64)
    return (round(value * 2**28), round(first / 64 * 2**28), round(second / 2 / 64**2 * 2**28))


#: GELU's gate over 512 intervals of 1/64, at their middles, 28 fraction bits; form 0 is tanh, 1 is
#: erf.
GELU = tuple(tuple(_gelu_row(gate, index) for index in range(512))
             for gate in (_tanh_gate, _erf_gate))


def _rsqrt_row(index: int) -> tuple[int, int, int]:
    octave, place = divmod(index, 128)
    step = 2.0**octave / 128
    x = 2.0**octave + (place + 0.5) * step
    value = x**-0.5
    return (round(value * 2**28), round(-value / (2 * x) * step * 2**28),
            round(value * 3 / (8 * x * x) * step**2 * 2**28))


#: 1/sqrt over 128 intervals of 1..2 and of 2..4: value, slope and half curvature per interval at
#: its middle, 28 fraction bits.
RSQRT = tuple(_rsqrt_row(index) for index in range(256))
