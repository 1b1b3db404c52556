# SPDX-License-Identifier: Apache-2.0
"""One lane of softmax."""

from amaranth import Cat, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..emit import Leaf
from ..fp32 import Add, Exp, Pipe


class SoftmaxLane(wiring.Component):
    """``exp(score - maximum)``, or +0 where masked, every cycle.

    Members
    -------
    score, maximum : ``In(32)``
    masked : ``In(1)``
        Of the score.
    o : ``Out(32)``
        The numerator of what came :data:`LATENCY` cycles before.
    nonfinite : ``Out(1)``
        With ``o``: something read or made, unmasked, is an infinity or NaN.
    """

    LATENCY = Add.LATENCY + Exp.LATENCY + 1
    leaf_name = "softmax_lane"

    def __init__(self) -> None:
        super().__init__({
            "score": In(32), "maximum": In(32), "masked": In(1),
            "o": Out(32), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m)
        m.submodules.less = less = Leaf(Add())
        m.submodules.exp = exp = Leaf(Exp())
        masked = pipe.delay(self.masked, self.LATENCY - 1, "masked")
        m.d.comb += [
            less.en.eq(1), less.a.eq(self.score),
            less.b.eq(Cat(self.maximum[:31], ~self.maximum[31])),
            exp.en.eq(1), exp.a.eq(less.o),
            self.o.eq(pipe(Mux(masked, 0, exp.o), "result")),
            # What the difference reads or makes reaches exp, whose flag covers what it reads.
            self.nonfinite.eq(pipe(exp.nonfinite & ~masked, "flag")),
        ]
        return m
