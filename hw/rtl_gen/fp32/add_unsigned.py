# SPDX-License-Identifier: Apache-2.0
"""FP32 sum of numbers without sign."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .bits import nonfinite, pack, shift_sticky, unpack
from .pipe import Pipe


class AddUnsigned(wiring.Component):
    """``add(a, b)`` of numbers that are +0 or above (or NaN), every cycle.

    Nothing cancels, so the result needs no search for its highest bit: two cycles less than
    :class:`~rtl_gen.fp32.add.Add`, and fewer LUTs.  Sums of exponentials are such sums.

    Members
    -------
    en : ``In(1)``
        All registers hold while it is 0.
    a, b : ``In(32)``
        Their sign bits are not looked at.
    o : ``Out(32)``
        The sum of what came :data:`LATENCY` cycles before.
    nonfinite : ``Out(1)``
        With ``o``: an operand or the result is an infinity or NaN.
    """

    LATENCY = 3
    leaf_name = "fp_add_unsigned"

    def __init__(self) -> None:
        super().__init__({
            "en": In(1), "a": In(32), "b": In(32), "o": Out(32), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m, self.en)

        # 1: the larger one goes first.
        swap = Signal()
        m.d.comb += swap.eq(self.b[:31] > self.a[:31])
        exp_a, exp_b = self.a[23:31], self.b[23:31]
        big_1 = pipe(Mux(swap, self.b, self.a)[:31], "big_1")
        small_1 = pipe(Mux(swap, self.a, self.b)[:31], "small_1")
        distance = pipe(Mux(swap, exp_b - exp_a, exp_a - exp_b)[:8], "distance")

        # 2: the smaller one, shifted to the larger one's exponent; guard, round, sticky bit.
        big, small = unpack(Cat(big_1, Const(0, 1))), unpack(Cat(small_1, Const(0, 1)))
        near = shift_sticky(m, Cat(Const(0, 3), small.mantissa), distance[:5])
        aligned = pipe(
            Mux(distance[5:].any(), Cat(~small.zero, Const(0, 26)), near), "aligned")
        mantissa = pipe(big.mantissa, "mantissa")
        exponent_2 = pipe(big.exponent, "exponent_2")
        infinite_2, nan_2 = pipe(big.infinite, "infinite_2"), pipe(big.nan, "nan_2")
        zero_2 = pipe(big.zero, "zero_2")

        # 3: add and round.
        total = Signal(unsigned(28))
        m.d.comb += total.eq(Cat(Const(0, 3), mantissa) + aligned)
        carry = total[27]
        exponent = Signal(signed(10))
        m.d.comb += exponent.eq(exponent_2 + carry)
        m.d.comb += [
            self.o.eq(pipe(pack(
                sign=Const(0, 1), exponent=exponent,
                mantissa=Mux(carry, total[4:28], total[3:27]),
                guard=Mux(carry, total[3], total[2]),
                sticky=total[:2].any() | (carry & total[2]),
                zero=zero_2, infinite=infinite_2, nan=nan_2), "result")),
            self.nonfinite.eq(nonfinite(self.o)),
        ]

        return m
