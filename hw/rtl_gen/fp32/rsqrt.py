# SPDX-License-Identifier: Apache-2.0
"""FP32 reciprocal square root, nearly rounded."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..spec import tables
from .bits import INFINITY, NAN, nonfinite, unpack
from .pipe import Pipe


def _column(number: int) -> Array:
    """One column of the table, as narrow as it can be: of its curvature, the magnitude."""
    values = [abs(row[number]) for row in tables.RSQRT]
    return Array(Const(value, max(values).bit_length()) for value in values)


class Rsqrt(wiring.Component):
    """``rsqrt_near(a)``, every cycle: a table over two octaves and a polynomial of degree two.

    Members
    -------
    en : ``In(1)``
        All registers hold while it is 0.
    a : ``In(32)``
    o : ``Out(32)``
        The result of what came :data:`LATENCY` cycles before.
    nonfinite : ``Out(1)``
        With ``o``: the operand or the result is an infinity or NaN.
    """

    LATENCY = 7
    leaf_name = "fp_rsqrt"

    def __init__(self) -> None:
        super().__init__({"en": In(1), "a": In(32), "o": Out(32), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m, self.en)

        # 1: the operand is x · 4^k with x in 1..4; u is its distance from the interval's middle.
        a = unpack(self.a)
        fraction = self.a[:23]
        interval_1 = pipe(Cat(fraction[16:], ~self.a[23]), "interval")
        u_3 = pipe.delay(Cat(fraction[:15], ~fraction[15]).as_signed(), 3, "u")
        half = Signal(signed(9))
        m.d.comb += half.eq((self.a[23:31] - 127).as_signed() >> 1)
        exponent_6 = pipe.delay((126 - half)[:8], 6, "exponent")
        zero = a.exponent == 0
        nan_6 = pipe.delay(a.nan | (a.sign & ~zero), 6, "nan")
        infinite_6 = pipe.delay(a.infinite, 6, "infinite")
        # Subnormal operands are zeros of their sign.
        zero_6, sign_6 = pipe.delay(zero, 6, "zero"), pipe.delay(a.sign, 6, "sign")
        seen_7 = pipe.delay(a.infinite | a.nan, 7, "seen")

        # 2, 3: the table's row; slopes are negative.
        c0_3, fall_3, c2_3 = (
            pipe.delay(_column(k)[interval_1], 2, f"c{k}") for k in range(3))

        # 4: slope.
        curve_4 = pipe(c2_3 * u_3, "curve")
        slope = Signal(signed(23))
        m.d.comb += slope.eq((curve_4 >> 16) - pipe(fall_3, "fall_4"))

        # 5, 6: rise, and p with 28 fraction bits.
        rise = pipe(slope * pipe(u_3, "u_4"), "rise")
        p = Signal(unsigned(30))
        m.d.comb += p.eq(pipe.delay(c0_3, 2, "c0_5") + (rise >> 16))
        p_6 = pipe(p, "p")

        # 7: round to 24 bits, the first of which is left out; a carry goes into the exponent.
        rounded = Signal(unsigned(26))
        m.d.comb += rounded.eq((p_6 + 8) >> 4)
        exponent = (exponent_6 + rounded[24])[:8]
        result = Mux(
            nan_6, NAN, Mux(zero_6, Cat(Const(INFINITY, 31), sign_6), Mux(
                infinite_6, 0, Cat(rounded[:23], exponent))))
        m.d.comb += [
            self.o.eq(pipe(result, "result")), self.nonfinite.eq(nonfinite(self.o) | seen_7)]
        return m
