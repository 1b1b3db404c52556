# SPDX-License-Identifier: Apache-2.0
"""FP32 sum."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .bits import leading_zeros, nonfinite, pack, shift_sticky, unpack
from .pipe import Pipe


class Add(wiring.Component):
    """``add(a, b)``, every cycle.

    Members
    -------
    en : ``In(1)``
        All registers hold while it is 0.
    a, b : ``In(32)``
    o : ``Out(32)``
        The sum of what came :data:`LATENCY` cycles before.
    nonfinite : ``Out(1)``
        With ``o``: an operand or the result is an infinity or NaN.
    """

    LATENCY = 5
    leaf_name = "fp_add"

    def __init__(self) -> None:
        super().__init__({
            "en": In(1), "a": In(32), "b": In(32), "o": Out(32), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m, self.en)

        # 1: the larger magnitude goes first.  Subnormals are in order among zeros, which is enough.
        swap = Signal()
        m.d.comb += swap.eq(self.b[:31] > self.a[:31])
        exp_a, exp_b = self.a[23:31], self.b[23:31]
        big_1 = pipe(Mux(swap, self.b, self.a), "big_1")
        small_1 = pipe(Mux(swap, self.a, self.b), "small_1")
        distance = pipe(Mux(swap, exp_b - exp_a, exp_a - exp_b)[:8], "distance")

        # 2: the smaller one, shifted to the larger one's exponent; guard, round, sticky bit.
        big, small = unpack(big_1), unpack(small_1)
        subtract = Signal()
        m.d.comb += subtract.eq(big.sign ^ small.sign)
        far = distance[5:].any()
        near = shift_sticky(m, Cat(Const(0, 3), small.mantissa), distance[:5])
        aligned = pipe(Mux(far, Cat(~small.zero, Const(0, 26)), near), "aligned")
        mantissa = pipe(big.mantissa, "mantissa")
        subtract_2 = pipe(subtract, "subtract_2")
        exponent_2 = pipe(big.exponent, "exponent_2")
        sign_2 = pipe(big.sign, "sign_2")
        # No magnitude is above that of a NaN, so the smaller one is a NaN only if both are.
        nan_2 = pipe(big.nan | (big.infinite & small.infinite & subtract), "nan_2")
        infinite_2 = pipe(big.infinite, "infinite_2")

        # 3: one carry chain for sum and difference; never negative.
        total = Signal(unsigned(28))
        m.d.comb += total.eq(
            Cat(Const(0, 3), mantissa) + (aligned ^ subtract_2.replicate(27)) + subtract_2)
        sum_3 = pipe(Cat(total[:27], total[27] & ~subtract_2), "sum_3")
        subtract_3 = pipe(subtract_2, "subtract_3")

        # 4: normalise.
        zeros = leading_zeros(m, sum_3)
        normal = pipe((sum_3 << zeros)[:28], "normal")
        exponent_3 = pipe(exponent_2, "exponent_3")
        exponent = Signal(signed(10))
        m.d.comb += exponent.eq(exponent_3 + 1 - zeros)
        exponent_4 = pipe(exponent, "exponent_4")
        zero_4 = pipe(~sum_3.any(), "zero_4")
        # x + (-x) is +0, and so is the sum of zeros of both signs.
        sign_3 = pipe(sign_2, "sign_3")
        sign_4 = pipe(sign_3 & (sum_3.any() | ~subtract_3), "sign_4")
        nan_4 = pipe.delay(nan_2, 2, "nan_4")
        infinite_4 = pipe.delay(infinite_2, 2, "infinite_4")

        # 5: round.  A sum below 2^-126 is exact, so "before rounding" needs no care.
        m.d.comb += self.o.eq(pipe(pack(
            sign=sign_4, exponent=exponent_4, mantissa=normal[4:], guard=normal[3],
            sticky=normal[:3].any(), zero=zero_4 & ~infinite_4, infinite=infinite_4, nan=nan_4),
            "result"))
        m.d.comb += self.nonfinite.eq(nonfinite(self.o))

        return m
