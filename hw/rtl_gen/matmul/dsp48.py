# SPDX-License-Identifier: Apache-2.0
"""Two products in one DSP48E2: the two columns of a half share their weights.

``weight · (upper · 2^18 + lower)`` holds both products; a chain of eight keeps the lower sum within
18 bits as long as weights keep within ±127, as all weights, K and V do.  A chain starts from 2^17,
so the lower sum never borrows from the upper one.  Each link of a chain adds to the one before it,
so its operands come a cycle later.

The pre-adder chooses between the near and the far digits of a slot (``select``).  So both come as
sums already, ``upper · 2^18 + lower``: :func:`borrow` is what they need for that.
"""

from amaranth import Cat, Instance, Module, Signal, Value, signed

from ..common import tree_sum
from ..common.dsp48e2 import multiply_add
from .products import DOT_BITS, Products, chain
from .select import half_columns

#: Bits of the lower sum, and where the upper one starts.
LOWER = 18


def borrow(digits):
    """The digits of two columns as :class:`Dsp48Products` takes them.

    The upper one, the first column's, is less by one where the lower one is negative.  It keeps
    eight bits because quantised values keep within ±127, their high digits too.
    """
    first, second = digits[:8], digits[8:]
    return Cat((first - second[7])[:8], second) if len(second) else first


def _operand(digits):
    """``upper · 2^18 + lower``."""
    if len(digits) == 8:
        return digits.as_signed()
    lower = digits[8:]
    return Cat(lower, lower[7].replicate(LOWER - 8), digits[:8]).as_signed()


def muxf7(m: Module, select, low, high) -> Value:
    """One of two values, each of whose bits is made by a LUT6, by the multiplexers behind LUTs."""
    out = Signal(len(low))
    for bit, (zero, one) in enumerate(zip(low, high, strict=True)):
        m.submodules += Instance("MUXF7", i_I0=zero, i_I1=one, i_S=select, o_O=out[bit])
    return out


class Dsp48Products(Products):
    """:class:`Products` whose operands of link p of the chains come p cycles after the first."""

    def elaborate(self, platform):
        m = Module()
        slots, columns = self.config.beat_bytes, half_columns(self.config)
        chains = slots // chain(self.config)
        lower, upper = [], []
        for first in range(chains):
            before = None
            for slot in range(first, slots, chains):
                near, far = (digits.word_select(slot, 8 * columns)
                             for digits in (self.near, self.far))
                p, before = multiply_add(
                    m, f"dsp_{slot}", a=_operand(near), take_a=self.take_near[slot],
                    d=_operand(far), take_d=self.take_far[slot],
                    b=self.weights.word_select(slot, 8).as_signed(), c=1 << LOWER - 1,
                    before=before)
            lower.append(Cat(p[:LOWER - 1], ~p[LOWER - 1]).as_signed())
            upper.append(p[LOWER:2 * LOWER].as_signed())
        for column, sums in enumerate((upper, lower)[2 - columns:]):
            halves = []
            for k in range(2):
                half = Signal(signed(DOT_BITS), name=f"half_{column}_{k}", reset_less=True)
                m.d.sync += half.eq(tree_sum(sums[k::2]))
                halves.append(half)
            dot = Signal(signed(DOT_BITS), name=f"dot_{column}", reset_less=True)
            m.d.sync += dot.eq(halves[0] + halves[1])
            m.d.comb += self.dots.word_select(column, DOT_BITS).eq(dot)
        return m
