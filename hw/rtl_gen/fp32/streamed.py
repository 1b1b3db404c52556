# SPDX-License-Identifier: Apache-2.0
"""A function unit on every lane of a stream of words."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..emit import Leaf
from .exp import Exp
from .gelu import Gelu


class Streamed(wiring.Component):
    """``function`` of every element: one word a cycle, ``LATENCY`` cycles later.

    Parameters
    ----------
    function : str
        "exp", "gelu_tanh" or "gelu_erf".
    lanes : int
        Elements of a word.

    Members
    -------
    i, o : streams of {data: lanes x 32, last: 1}
        Words of FP32 bits; ``last`` goes through.
    """

    FUNCTIONS = ("exp", "gelu_tanh", "gelu_erf")

    i: stream.Interface
    o: stream.Interface

    def __init__(self, *, function: str, lanes: int):
        if function not in self.FUNCTIONS:
            raise ValueError(
                f"function must be one of {', '.join(self.FUNCTIONS)}, not {function!r}")
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, not {lanes}")
        self.function, self.lanes = function, lanes
        self.LATENCY = Exp.LATENCY if function == "exp" else Gelu.LATENCY
        word = data.StructLayout({"data": data.ArrayLayout(32, lanes), "last": 1})
        super().__init__({"i": In(stream.Signature(word)), "o": Out(stream.Signature(word))})

    def elaborate(self, platform):
        m = Module()
        # The pipeline moves unless a result at its end is not taken.
        en = Signal()
        m.d.comb += [en.eq(~self.o.valid | self.o.ready), self.i.ready.eq(en)]
        valid, last = Signal(self.LATENCY), Signal(self.LATENCY, reset_less=True)
        with m.If(en):
            m.d.sync += [valid.eq(Cat(self.i.valid, valid)), last.eq(Cat(self.i.p.last, last))]
        m.d.comb += [self.o.valid.eq(valid[-1]), self.o.p.last.eq(last[-1])]
        for k in range(self.lanes):
            form = int(self.function == "gelu_erf")
            unit = Exp() if self.function == "exp" else Gelu((form,))
            m.submodules[f"unit_{k}"] = unit = Leaf(unit)
            m.d.comb += [unit.en.eq(en), unit.a.eq(self.i.p.data[k]), self.o.p.data[k].eq(unit.o)]
        return m
