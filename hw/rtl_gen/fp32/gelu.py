# SPDX-License-Identifier: Apache-2.0
"""FP32 GELU."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..emit import Leaf
from ..spec import tables
from .bits import BIAS, unpack
from .convert import Convert
from .mul import Mul
from .pipe import Pipe

#: -1.0, which times a gate of 0 is -0.
MINUS_ONE = 0xBF80_0000
#: A gate of 1.
ONE = 1 << 28
#: One row of the table.
ROW = data.StructLayout({"c0": unsigned(29), "c1": signed(22), "c2": signed(15)})


class Gelu(wiring.Component):
    """``gelu(a, form)``, every cycle: a times a gate from a table and a polynomial.

    Parameters
    ----------
    forms : which forms are built, a choice of 0 (tanh) and 1 (erf)

    Members
    -------
    en : ``In(1)``
        All registers hold while it is 0.
    a : ``In(32)``
    form : ``In(1)``
        Of ``a``; ignored if only one form is built.
    o : ``Out(32)``
        The result of what came :data:`LATENCY` cycles before.
    nonfinite : ``Out(1)``
        With ``o``: the operand or the result is an infinity or NaN.
    """

    LATENCY = 7 + Convert.LATENCY + Mul.LATENCY

    def __init__(self, forms: tuple[int, ...]) -> None:
        if forms not in ((0,), (1,), (0, 1)):
            raise ValueError(f"forms must be (0,), (1,) or (0, 1), not {forms!r}")
        self.forms = forms
        self.leaf_name = f"fp_gelu_{''.join(str(form) for form in forms)}"
        super().__init__({
            "en": In(1), "a": In(32), "form": In(1), "o": Out(32), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m, self.en)

        # 1: |x| · 2^24 = mantissa · 2^3 / 2^places, where |x| < 8.
        a = unpack(self.a)
        large = Signal()
        m.d.comb += large.eq(a.exponent >= BIAS + 3)
        magnitude_1 = pipe(Cat(Const(0, 3), a.mantissa), "magnitude_1")
        places = Signal(unsigned(8))
        m.d.comb += places.eq(BIAS + 2 - a.exponent)
        places_1 = pipe(Mux(places[5:].any(), 31, places[:5]), "places_1")
        sign_1 = pipe(a.sign, "sign_1")
        large_7 = pipe.delay(large & ~a.nan, 7, "large")
        form_1 = pipe(self.form, "form_1")
        # The product below is to be -0 from -8 down, -∞ included, which times a gate of 0 is NaN.
        x_11 = pipe.delay(
            Mux(large & a.sign & ~a.nan, MINUS_ONE, self.a), 7 + Convert.LATENCY, "x")
        seen = pipe.delay(a.infinite, self.LATENCY, "seen")

        # 2: z; form and sign with it.
        z_2 = pipe((magnitude_1 >> places_1)[:27], "z_2")
        form_2 = pipe(form_1, "form_2")

        # 3, 4: the table's row; the second register is the block RAM's own.
        rows = [{"c0": c0, "c1": c1, "c2": c2}
                for form in self.forms for c0, c1, c2 in tables.GELU[form]]
        m.submodules.table = table = memory.Memory(
            shape=ROW, depth=len(rows), init=rows, attrs={"rom_style": "block"})
        read = table.read_port()
        m.d.comb += [
            read.en.eq(self.en),
            read.addr.eq(Cat(z_2[18:], form_2) if len(self.forms) == 2 else z_2[18:]),
        ]
        row_4 = pipe(read.data, "row_4")
        u = Signal(signed(18))
        m.d.comb += u.eq(Cat(z_2[:17], ~z_2[17]).as_signed())     # less 2^17
        u_4 = pipe.delay(u, 2, "u")

        # 5, 6: slope.
        curve = pipe(row_4.c2 * u_4, "curve")
        slope = Signal(signed(23))
        m.d.comb += slope.eq(pipe(row_4.c1, "c1_5") + (curve >> 18))
        slope_6 = pipe(slope, "slope_6")

        # 7: rise.
        rise = pipe(slope_6 * pipe.delay(u_4, 2, "u_6"), "rise")

        # 8: p within 0..1; what negative x make of it is the same in the mirror.
        sign_4 = pipe.delay(sign_1, 3, "sign")
        c0_7 = pipe.delay(Mux(sign_4, ONE - row_4.c0, row_4.c0)[:29], 3, "c0")
        sign_7 = pipe.delay(sign_4, 3, "sign_7")
        step = Signal(signed(24))
        m.d.comb += step.eq(rise >> 18)
        p = Signal(signed(31))
        m.d.comb += p.eq(Mux(sign_7, c0_7 - step, c0_7 + step))
        gate = Signal(unsigned(29))
        m.d.comb += gate.eq(Mux(
            large_7, Mux(sign_7, 0, ONE), Mux(p < 0, 0, Mux(p > ONE, ONE, p[:29]))))
        m.submodules.convert = convert = Leaf(Convert(30))
        m.d.comb += [convert.en.eq(self.en), convert.n.eq(gate), convert.e.eq(-28)]

        # 12 to 15: the product.
        m.submodules.mul = mul = Leaf(Mul())
        m.d.comb += [
            mul.en.eq(self.en), mul.a.eq(x_11), mul.b.eq(convert.o),
            self.o.eq(mul.o), self.nonfinite.eq(mul.nonfinite | seen),
        ]

        return m
