# SPDX-License-Identifier: Apache-2.0
"""FP32 reciprocal, every cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .bits import BIAS, nonfinite, pack, unpack
from .pipe import Pipe

#: Bits of the quotient: mantissa and guard bit.
BITS = 25


class Rcp(wiring.Component):
    """``rcp(a)``, every cycle: a restoring division with a stage for each bit.

    Where a result every 28 cycles is enough, :class:`~rtl_gen.fp32.divide.Divide` is smaller.

    Members
    -------
    en : ``In(1)``
        All registers hold while it is 0.
    a : ``In(32)``
    o : ``Out(32)``
        The reciprocal of what came :data:`LATENCY` cycles before.
    nonfinite : ``Out(1)``
        With ``o``: the operand or the result is an infinity or NaN.
    """

    LATENCY = BITS + 2
    leaf_name = "fp_rcp"

    def __init__(self) -> None:
        super().__init__({"en": In(1), "a": In(32), "o": Out(32), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m, self.en)

        # 2^48 / mantissa is below 2^25, but for a power of two, which needs no division.
        a = unpack(pipe(self.a, "operand"))
        power = ~a.mantissa[:23].any()
        exponent = Signal(signed(10))
        m.d.comb += exponent.eq(2 * BIAS - 1 + power - a.exponent)
        divisor, rest, quotient = a.mantissa, Const(1 << 23, 24), None
        for k in range(BITS):
            less = Signal(signed(26), name=f"less_{k}")
            m.d.comb += less.eq(Cat(Const(0, 1), rest) - divisor)
            fits = less >= 0
            # What is left is less than the divisor, which has 24 bits.
            rest = pipe(Mux(fits, less[:24], Cat(Const(0, 1), rest[:23])), f"rest_{k}")
            quotient = pipe(fits if quotient is None else Cat(fits, quotient), f"quotient_{k}")
            divisor = pipe(divisor, f"divisor_{k}")
        late = [pipe.delay(value, BITS, name) for value, name in (
            (a.sign, "sign"), (exponent, "exponent"), (power, "power"), (a.infinite, "infinite"),
            (a.zero, "zero"), (a.nan, "nan"))]
        sign, exponent, power, infinite, zero, nan = late

        result = Signal(unsigned(32))
        m.d.comb += result.eq(pack(
            sign=sign, exponent=exponent, mantissa=Mux(power, 1 << 23, quotient[1:]),
            guard=quotient[0] & ~power, sticky=rest.any(), zero=infinite, infinite=zero, nan=nan))
        m.d.comb += [
            self.o.eq(pipe(result, "result")),
            self.nonfinite.eq(nonfinite(self.o) | pipe(infinite, "seen")),
        ]

        return m
