# SPDX-License-Identifier: Apache-2.0
"""Messages between the scratchpad and both links: SENDs and RECEIVEs."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import layouts
from ..emit import Leaf
from ..spec.config import CardConfig
from ..vector import scratchpad
from .layouts import beat
from .side import Side


class Exchange(wiring.Component):
    """Executes SENDs and RECEIVEs: those of each side in order, independent of all others.

    A SEND makes one message of the words of all its tokens, a word's low bytes first.  A RECEIVE
    takes one message and writes its words.  Side 0 is the previous card, 1 the next.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    send, receive : arrays of 2 ``In(stream.Signature(layouts.JOB))``
    done : ``Out(ArrayLayout(layouts.DONE, 4))``
        Of SENDs to side 0 and 1: the link has their last beat.  Of RECEIVEs from side 0 and 1:
        their last word is written.
    read : :func:`scratchpad.read_port`
    write : ``Out(stream.Signature(scratchpad.write_layout(config)))``
    o, i : arrays of 2 streams of ``{data, last}``
        Messages to and from the previous and the next card.
    wrong : ``Out(1)``, side : ``Out(1)``
        A message of that side had not the length that its RECEIVE says.  Nothing is received any
        more.
    waits : ``Out(1)``
        A RECEIVE is at work and its next beat has not come.
    moves : ``Out(1)``
        A beat is given or taken.
    """

    #: Cycles from a SEND offered to its first beat offered, if there is room, and the other side
    #: does not read in that cycle.
    SEND_LATENCY = 1
    #: Cycles from the last beat given until SEND is done.
    SENT_LATENCY = 1
    #: Cycles from the last beat taken until RECEIVE is done, if the scratchpad takes its word.
    RECEIVE_LATENCY = 2

    def __init__(self, config: CardConfig):
        self.config = config
        message, job = stream.Signature(beat(config.beat_bytes)), stream.Signature(layouts.JOB)
        super().__init__({
            "send": In(job).array(2), "receive": In(job).array(2),
            "done": Out(data.ArrayLayout(layouts.DONE, 4)),
            "read": Out(scratchpad.read_port(config)),
            "write": Out(stream.Signature(scratchpad.write_layout(config))),
            "o": Out(message).array(2), "i": In(message).array(2),
            "wrong": Out(1), "side": Out(1), "waits": Out(1), "moves": Out(1)})
        self._sides = [Leaf(Side(config)) for _ in range(2)]

    def elaborate(self, platform):
        m = Module()
        sides = self._sides
        m.submodules.previous, m.submodules.next = sides
        for k, side in enumerate(sides):
            connect(m, flipped(self.send[k]), side.send)
            connect(m, flipped(self.receive[k]), side.receive)
            connect(m, side.o, flipped(self.o[k]))
            connect(m, flipped(self.i[k]), side.i)
            m.d.comb += [
                self.done[k].eq(side.done[0]), self.done[2 + k].eq(side.done[1]),
                side.word.eq(self.read.data), side.stop.eq(sides[1 - k].wrong)]
        m.d.comb += [
            self.wrong.eq(Cat(side.wrong for side in sides).any()), self.side.eq(~sides[0].wrong),
            *(getattr(self, name).eq(Cat(getattr(side, name) for side in sides).any())
              for name in ("waits", "moves"))]

        # Where both want a port, who had it before waits.
        asks, writes = (Cat(side.asks for side in sides), Cat(side.write.valid for side in sides))
        reader = self._turn(m, "read", asks, Const(1, 1))
        writer = self._turn(m, "write", writes, self.write.ready)
        m.d.comb += [
            self.read.en.eq(asks.any()),
            self.read.addr.eq(Mux(reader, sides[1].address, sides[0].address)),
            self.write.valid.eq(writes.any()),
            self.write.payload.eq(Mux(writer, sides[1].write.payload, sides[0].write.payload))]
        for k, side in enumerate(sides):
            m.d.comb += [side.granted.eq(side.asks & (reader == k)),
                         side.write.ready.eq(self.write.ready & (writer == k))]
        return m

    def _turn(self, m, name: str, wants, ready):
        """Which side has a port; an offer that is not taken stays."""
        now, last, held = Signal(name=f"{name}_now"), Signal(name=f"{name}_last", init=1), Signal(
            name=f"{name}_held")
        m.d.comb += now.eq(Mux(held, last, wants[1] & ~(wants[0] & last)))
        m.d.sync += held.eq(wants.any() & ~ready)
        with m.If(wants.any()):
            m.d.sync += last.eq(now)
        return now
