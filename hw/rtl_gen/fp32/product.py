# SPDX-License-Identifier: Apache-2.0
"""Products of two multipliers."""

from amaranth.hdl import Cat, Module, Signal, Value

from ..common.dsp48e2 import multiply_add
from .pipe import Pipe

#: Bits of the second operand that one multiplier takes.
_LOW = 17


def product(m: Module, pipe: Pipe, platform: object, a: Value, b: Value, name: str) -> Value:
    """``a * b`` three cycles later: registers before the multipliers, and two behind.

    Synthesis may move them into DSP blocks.  By name (``dsp48``) the second multiplier adds what
    the first one has above its lowest bits.

    Parameters
    ----------
    a : unsigned, at most 26 bits
    b : unsigned, 18 to 34 bits
    """
    a_1, b_1 = pipe(a, f"{name}_a"), pipe(b, f"{name}_b")
    if not getattr(platform, "dsp48", False):
        return pipe.delay(a_1 * b_1, 2, name)
    low = pipe(a_1 * b_1[:_LOW], f"{name}_low")
    high = Signal(len(low) - _LOW, name=f"{name}_carried")
    m.d.comb += high.eq(low[_LOW:])
    p, _ = multiply_add(m, f"{name}_high", a=a, b=b[_LOW:], c=high, en=pipe.enable)
    return Cat(pipe(low[:_LOW], f"{name}_lowest"), p[:len(a) + len(b) - _LOW])
