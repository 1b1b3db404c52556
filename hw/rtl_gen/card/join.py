# SPDX-License-Identifier: Apache-2.0
"""Streams that go to several receivers, and receivers with several streams."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Fork(wiring.Component):
    """Gives every payload to all receivers, each when it is ready.

    Parameters
    ----------
    shape : payload shape
    ways : int

    Members
    -------
    i : ``In(stream.Signature(shape))``
        Taken when the last receiver has it.
    o : array of ``Out(stream.Signature(shape))``
    """

    def __init__(self, shape, *, ways: int):
        self.shape, self.ways = shape, ways
        super().__init__({"i": In(stream.Signature(shape)),
                          "o": Out(stream.Signature(shape)).array(ways)})

    def elaborate(self, platform):
        m = Module()
        given, ready = Signal(self.ways), Signal(self.ways)
        # One register, so that what comes in need not drive all receivers.
        there, payload = Signal(), Signal(self.shape, reset_less=True)
        through = Signal()
        m.d.comb += [
            ready.eq(Cat(port.ready for port in self.o)),
            through.eq((given | ready).all()), self.i.ready.eq(~there | through)]
        with m.If(there):
            m.d.sync += given.eq(Mux(through, 0, given | ready))
        with m.If(self.i.ready):
            m.d.sync += [there.eq(self.i.valid), payload.eq(self.i.payload)]
        for k, port in enumerate(self.o):
            m.d.comb += [port.valid.eq(there & ~given[k]), port.payload.eq(payload)]
        return m


class Join(wiring.Component):
    """Gives one receiver the payloads of several streams, in turn.

    Parameters
    ----------
    shape : payload shape
    ways : int

    Members
    -------
    i : array of ``In(stream.Signature(shape))``
    o : ``Out(stream.Signature(shape))``
    """

    def __init__(self, shape, *, ways: int):
        self.shape, self.ways = shape, ways
        super().__init__({"i": In(stream.Signature(shape)).array(ways),
                          "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        # The turn stays with a stream until it has nothing: an offer is never taken back.
        turn = Signal(range(self.ways))
        valid = Array(port.valid for port in self.i)[turn]
        with m.Switch(turn):
            for k, port in enumerate(self.i):
                with m.Case(k):
                    m.d.comb += [self.o.payload.eq(port.payload), self.o.valid.eq(port.valid),
                                 port.ready.eq(self.o.ready)]
        with m.If(~valid | self.o.ready):
            for k in reversed(range(self.ways)):
                with m.If(self.i[k].valid & (turn != k)):
                    m.d.sync += turn.eq(k)
        return m
