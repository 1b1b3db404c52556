# SPDX-License-Identifier: Apache-2.0
"""One lane of the epilogue: from an 80-bit sum to an FP32 result."""

from amaranth import Cat, Const, Module, Mux, signed
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from ..emit import Leaf
from ..fp32 import Add, Convert, Gelu, Mul, Pipe
from ..spec.config import ACC_BITS

#: 1.0, which times a number leaves it as it is.
ONE = 0x3F80_0000
#: -0, which added to a number leaves it as it is, zeros of both signs included.
NOTHING = 0x8000_0000


class Scale(enum.Enum, shape=2):
    """What a sum is multiplied by."""

    NONE = 0
    WORD = 1    #: ``scale``
    K = 2       #: ``k_scale``


#: What a lane does with one sum.
OP = data.StructLayout({
    "base": signed(8),  # exponent of the sum
    "scale": Scale,
    "norm": 1,          # take mean · wg off
    "bias": 1,
    "form": 1,          # of gelu
})


class EpilogueLane(wiring.Component):
    """Scale, deferred norm, divide, bias, gelu, residual: a sum every cycle, never stalling.

    What a sum does not need is done with a number that leaves it as it is, so the way is the same
    for all; but for gelu, which is a detour of ``Gelu.LATENCY`` cycles.  Operands come at the
    cycles after the sum that the constants below say.

    Members
    -------
    acc : ``In(signed(80))``
    op : ``In(OP)``
    scale, wg, bias : ``In(32)``
        Constants of the row; with ``acc``.
    masked : ``In(1)``
        At :data:`MASK_AT`: the sum counts as zero, and nothing is raised.
    k_scale : ``In(16)``
        BF16, at :data:`K_SCALE_AT`.
    mean : ``In(32)``
        At :data:`MEAN_AT`.
    rstd, divide : ``In(32)``
        Factors, at :data:`RSTD_AT` and :data:`DIVIDE_AT`; 1.0 for none.
    detour : ``In(1)``
        At the end, :data:`VALUE_AT` or :data:`GELU_AT`: which way the sum came.
    residual : ``In(1)``, old : ``In(32)``
        With ``detour``: whether ``old`` is added.
    scaled : ``Out(32)``
        Sum times scale, at :data:`SCALED_AT`.
    o : ``Out(32)``, nonfinite : ``Out(1)``
        :data:`FINISH` cycles after ``detour``: the result, and whether an infinity or NaN was read
        or made.
    """

    MASK_AT = 1
    K_SCALE_AT = Convert.LATENCY
    MEAN_AT = 1 + Convert.LATENCY
    SCALED_AT = MEAN_AT + Mul.LATENCY
    RSTD_AT = SCALED_AT + Add.LATENCY
    DIVIDE_AT = RSTD_AT + Mul.LATENCY
    BIAS_AT = DIVIDE_AT + Mul.LATENCY
    VALUE_AT = BIAS_AT + Add.LATENCY
    GELU_AT = VALUE_AT + Gelu.LATENCY
    FINISH = Add.LATENCY
    leaf_name = "epilogue_lane"

    def __init__(self) -> None:
        super().__init__({
            "acc": In(signed(ACC_BITS)), "op": In(OP),
            "scale": In(32), "wg": In(32), "bias": In(32),
            "masked": In(1), "k_scale": In(16), "mean": In(32), "rstd": In(32), "divide": In(32),
            "detour": In(1), "residual": In(1), "old": In(32),
            "scaled": Out(32), "o": Out(32), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m)

        def unit(name, component, **inputs):
            m.submodules[name] = leaf = Leaf(component)
            m.d.comb += [leaf.en.eq(1), *(
                getattr(leaf, port).eq(value) for port, value in inputs.items())]
            return leaf

        # 0: a register, as the sum comes out of a memory and a choice of tokens.
        op = pipe(self.op, "op")
        convert = unit(
            "convert", Convert(ACC_BITS), n=Mux(self.masked, 0, pipe(self.acc, "acc")), e=op.base)

        # The scale is chosen in the cycle before it is needed.
        masked = pipe.delay(self.masked, self.K_SCALE_AT - self.MASK_AT, "masked")
        kind = pipe.delay(op.scale.as_value(), self.K_SCALE_AT - 1, "kind")
        word = pipe.delay(self.scale, self.K_SCALE_AT, "scale")
        chosen = Mux(kind == Scale.K.value, Cat(Const(0, 16), self.k_scale), word)
        scale = pipe(Mux(masked | (kind == Scale.NONE.value), ONE, chosen), "chosen")
        scaled = unit("scaled", Mul(), a=convert.o, b=scale)
        m.d.comb += self.scaled.eq(scaled.o)

        # Less mean · wg, which forms at the same time.
        term = unit("term", Mul(), a=self.mean, b=pipe.delay(self.wg, self.MEAN_AT, "wg"))
        norm = pipe.delay(op.norm, self.SCALED_AT - 1, "norm")
        centred = unit("centred", Add(), a=scaled.o,
                       b=Mux(norm, Cat(term.o[:31], ~term.o[31]), NOTHING))
        normal = unit("normal", Mul(), a=centred.o, b=self.rstd)
        divided = unit("divided", Mul(), a=normal.o, b=self.divide)

        biased = pipe.delay(op.bias, self.BIAS_AT - 1, "biased")
        bias = pipe.delay(self.bias, self.BIAS_AT, "bias")
        value = unit("value", Add(), a=divided.o, b=Mux(biased, bias, NOTHING))
        form = pipe.delay(op.form, self.VALUE_AT - 1, "form")
        gelu = unit("gelu", Gelu((0, 1)), a=value.o, form=form)

        # Whatever is not finite stays so up to here; gelu alone makes numbers of infinities.
        result = unit("result", Add(), a=Mux(self.detour, gelu.o, value.o),
                      b=Mux(self.residual, self.old, NOTHING))
        seen = pipe.delay(self.detour & gelu.nonfinite, self.FINISH, "seen")
        m.d.comb += [self.o.eq(result.o), self.nonfinite.eq(result.nonfinite | seen)]
        return m
