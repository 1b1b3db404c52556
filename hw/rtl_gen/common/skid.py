# SPDX-License-Identifier: Apache-2.0
"""A stream whose ``ready`` comes from a register."""

from amaranth import Module, Mux, Shape, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Skid(wiring.Component):
    """Passes a stream on in the same cycle, but tells its giver a cycle later that it is held up.

    Long chains of ``ready`` end here.  What the giver offers in that cycle is kept.

    Parameters
    ----------
    shape : payload shape

    Members
    -------
    i : ``In(stream.Signature(shape))``
    o : ``Out(stream.Signature(shape))``
        No cycle later, and as many payloads a cycle.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape):
        self.shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        full, kept = Signal(), Signal(Shape.cast(self.shape).width, reset_less=True)
        given = getattr(self.i.payload, "as_value", lambda: self.i.payload)()
        taken = getattr(self.o.payload, "as_value", lambda: self.o.payload)()
        m.d.comb += [
            self.i.ready.eq(~full), self.o.valid.eq(full | self.i.valid),
            taken.eq(Mux(full, kept, given))]
        with m.If(self.o.ready):
            m.d.sync += full.eq(0)
        with m.Elif(self.i.valid):
            m.d.sync += full.eq(1)
        with m.If(~full):
            m.d.sync += kept.eq(given)
        return m
