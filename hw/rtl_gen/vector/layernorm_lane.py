# SPDX-License-Identifier: Apache-2.0
"""One lane of LayerNorm."""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..emit import Leaf
from ..fp32 import Add, Mul
from .delay import delay


class LayerNormLane(wiring.Component):
    """Squared deviations of one vector, the result of another, an element of each every cycle.

    Members
    -------
    x, mean : ``In(32)``
    square : ``Out(32)``
        (x − mean)² of what came :data:`SQUARE` cycles before.
    z, shift, rstd : ``In(32)``
        An element of the other vector, its mean and its reciprocal deviation.
    gamma, beta : ``In(32)``
        :data:`GAMMA` and :data:`BETA` cycles after the element.
    y : ``Out(32)``
        (z − shift) · rstd · gamma + beta of what came :data:`LATENCY` cycles before.
    valid : ``In(1)``
        There is a z.
    nonfinite : ``Out(1)``
        For a cycle: a result read or is an infinity or NaN.
    """

    SQUARE = 1 + Add.LATENCY + Mul.LATENCY
    GAMMA = SQUARE
    BETA = GAMMA + Mul.LATENCY
    LATENCY = BETA + Add.LATENCY
    leaf_name = "layernorm_lane"

    def __init__(self) -> None:
        super().__init__({
            "x": In(32), "mean": In(32), "square": Out(32),
            "z": In(32), "shift": In(32), "rstd": In(32), "gamma": In(32), "beta": In(32),
            "y": Out(32), "valid": In(1), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        units = {"deviate": Add(), "squarer": Mul(), "centre": Add(), "scale": Mul(),
                 "multiply": Mul(), "add": Add()}
        for name, unit in units.items():
            m.submodules[name] = Leaf(unit)
            m.d.comb += unit.en.eq(1)
        deviate, squarer, centre, scale, multiply, add = units.values()

        def difference(unit, a, b, name):
            a, b = delay(m, a, 1, f"{name}_a"), delay(m, b, 1, f"{name}_b")
            m.d.comb += [unit.a.eq(a), unit.b.eq(Cat(b[:31], ~b[31]))]

        difference(deviate, self.x, self.mean, "deviate")
        difference(centre, self.z, self.shift, "centre")
        rstd = delay(m, self.rstd, 1 + Add.LATENCY, "rstd")
        valid = Signal()
        m.d.comb += [
            squarer.a.eq(deviate.o), squarer.b.eq(deviate.o), self.square.eq(squarer.o),
            scale.a.eq(centre.o), scale.b.eq(rstd),
            multiply.a.eq(scale.o), multiply.b.eq(self.gamma),
            add.a.eq(multiply.o), add.b.eq(self.beta), self.y.eq(add.o),
            valid.eq(delay(m, self.valid, self.LATENCY, "valid", reset_less=False))]
        # What is not finite stays so down to the last sum.
        m.d.sync += self.nonfinite.eq(valid & add.nonfinite)
        return m
