# SPDX-License-Identifier: Apache-2.0
"""FP32 exponential."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..spec import tables
from .bits import BIAS, INFINITY, NAN, nonfinite, unpack
from .pipe import Pipe
from .product import product

#: Largest argument with a finite result; magnitude of the least one whose result is not zero.
LARGEST, LEAST = 0x42B1_7217, 0x42AE_AC4F


def table(rows):
    """(c0 without its leading one, c1, c2) of a table of 2^f, each as narrow as it can be."""
    columns = [[c0 - (1 << 28) for c0, _, _ in rows], *([row[k] for row in rows] for k in (1, 2))]
    return [Array(Const(value, max(column).bit_length()) for value in column)
            for column in columns]


class Exp(wiring.Component):
    """``exp(a)``, every cycle: a table of 2^f and a polynomial of degree two.

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

    LATENCY = 11
    leaf_name = "fp_exp"

    def __init__(self) -> None:
        super().__init__({"en": In(1), "a": In(32), "o": Out(32), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m, self.en)

        # 1: x · 2^26 = ±mantissa · 2^9 / 2^places, where |x| < 128.
        a = unpack(self.a)
        magnitude = Cat(Const(0, 9), a.mantissa)
        wide_1 = pipe(Mux(a.sign, -magnitude, magnitude).as_signed(), "wide_1")
        places = Signal(unsigned(8))
        m.d.comb += places.eq(BIAS + 6 - a.exponent)
        # From 34 places on all are alike; above |x| = 128 the result does not come from here.
        places_1 = pipe(Mux(places[6:].any(), 63, places[:6]), "places_1")
        nan_10 = pipe.delay(a.nan, 10, "nan")
        over_10 = pipe.delay(~a.sign & (self.a[:31] > LARGEST), 10, "over")
        under_10 = pipe.delay(a.sign & (self.a[:31] > LEAST), 10, "under")
        infinite_11 = pipe.delay(a.infinite, 11, "infinite")

        # 2: floor(x · 2^26).
        xi = pipe((wide_1 >> places_1)[:34].as_signed(), "xi")

        # 3, 4: in units of ln 2; two registers for the synthesis to move into the DSP blocks.
        scaled = pipe.delay(xi * Const(tables.EXP_LOG2E, 33), 2, "scaled")

        # 5: whole part n, interval i, and u within the interval.
        t = scaled[32:].as_signed()
        f = t[:26]
        c0, c1, c2 = (pipe(column[f[19:]], f"c{k}") for k, column in enumerate(table(tables.EXP)))
        u_5 = pipe(f[:19], "u_5")
        n_10 = pipe.delay((t >> 26)[:9].as_signed(), 6, "n")

        # 6, 7: slope.
        curve = pipe(c2 * u_5, "curve")
        slope = Signal(unsigned(23))
        m.d.comb += slope.eq(pipe(c1, "c1_6") + (curve >> 19))

        # 8, 9: rise.
        rise = product(m, pipe, platform, slope, pipe(u_5, "u_6"), "rise")

        # 10: p has 28 fraction bits; the leading one is left out.
        p = Signal(unsigned(29))
        m.d.comb += p.eq(pipe.delay(c0, 4, "c0_9") + (rise >> 19))
        p_10 = pipe(p, "p_10")

        # 11: round to 23 fraction bits; a carry goes into the exponent.
        rounded = Signal(unsigned(25))
        m.d.comb += rounded.eq((p_10 + 16) >> 5)
        exponent = Signal(signed(11))
        m.d.comb += exponent.eq(n_10 + rounded[23:] + BIAS)
        result = Mux(
            over_10 | (exponent > 254), INFINITY,
            Mux(under_10 | (exponent < 1), 0, Cat(rounded[:23], exponent[:8])))
        m.d.comb += [
            self.o.eq(pipe(Mux(nan_10, NAN, result), "result")),
            self.nonfinite.eq(nonfinite(self.o) | infinite_11),
        ]

        return m
