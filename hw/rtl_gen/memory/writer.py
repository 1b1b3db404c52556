# SPDX-License-Identifier: Apache-2.0
"""AXI4 write master: single beats, joined to bursts where their addresses follow one another."""

from amaranth import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Queue, axi, layouts, wide_style
from ..spec.config import CardConfig
from .reader import PAGE

#: Beats of the longest burst; the queue of data holds two.
BURST = 16
#: Cycles without a beat after which a burst ends as it is.
PATIENCE = 8
#: Beats that are waited for, and for how many cycles without one, before bursts are sent: memory
#: then turns from reading to writing and back once for all of them.
GATHERED, QUIET = 24, 200
#: Bursts whose answer may be missing.
OUTSTANDING = 63


def writes(beat_bytes: int) -> wiring.Signature:
    """The write half of an AXI4 master."""
    members = axi.full(beat_bytes).members
    return wiring.Signature({name: member for name, member in members.items()
                             if name.startswith(("aw", "w", "b"))})


class Writer(wiring.Component):
    """Writes beats in the order in which they come.

    A burst is sent when the next beat does not follow its last one, when it is full or ends at
    4 KiB, or when no beat comes for ``PATIENCE`` cycles.  Its data are all there by then.  Bursts
    go out together: when ``GATHERED`` beats wait, no beat has come for ``QUIET`` cycles, or
    somebody waits for them.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    axi : write half of an AXI4 master
    base : ``In(64)``
        Byte address of beat 0, a multiple of the beat.
    i : ``In(stream.Signature(layouts.channel_write(config)))``
    flush : ``In(1)``
        Somebody waits until all is written.
    writing : ``Out(1)``
        Some beat has been taken and not been answered; high from the cycle after the one that takes
        it.
    error : ``Out(1)``
        Some answer was an error; until reset.
    beat : ``Out(1)``
        A beat went out.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "axi": Out(writes(config.beat_bytes)), "base": In(64),
            "i": In(stream.Signature(layouts.channel_write(config))),
            "flush": In(1), "writing": Out(1), "error": Out(1), "beat": Out(1)})

    def elaborate(self, platform):
        m = Module()
        port, beat_bytes = self.axi, self.config.beat_bytes
        size = (beat_bytes - 1).bit_length()
        burst_layout = data.StructLayout({"address": 64, "beats": range(BURST + 1)})
        m.submodules.data = beats = Queue(
            8 * beat_bytes, depth=2 * BURST, style=wide_style(8 * beat_bytes))
        m.submodules.bursts = bursts = Queue(burst_layout, depth=GATHERED)

        # A beat's data wait in their queue from the start; only its number goes on to be joined.
        # `ready` comes from a register, because all channels together decide whether the engine
        # may go on: a second number is kept, and the queue tells a cycle late that it fills up.
        here, spare = Signal(), Signal()
        waiting = Signal(range(beats.depth + 1))
        number, second = Signal(32, reset_less=True), Signal(32, reset_less=True)
        byte = Signal(64, reset_less=True)
        accept, take, sent = Signal(), Signal(), Signal()
        ready, spared, nearly_full = Signal(init=1), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(ready), accept.eq(self.i.valid & self.i.ready),
            beats.i.payload.eq(self.i.p.data), beats.i.valid.eq(accept)]
        # One more may come in the cycle that finds the queue nearly full.
        m.d.comb += [nearly_full.eq(waiting >= beats.depth - 2),
                     spared.eq((spare | accept) & here & ~take)]
        m.d.sync += [waiting.eq(waiting + accept - sent), spare.eq(spared),
                     ready.eq(~spared & ~nearly_full)]
        with m.If(accept):
            m.d.sync += second.eq(self.i.p.address)
        upcoming = Mux(spare, second, self.i.p.address)
        with m.If(~here | take):
            m.d.sync += [
                here.eq(spare | accept), number.eq(upcoming),
                byte.eq(self.base + (upcoming << size))]

        # The burst that grows.
        burst, grows = Signal(burst_layout), Signal()
        following = Signal(32, reset_less=True)
        unanswered = Signal(range(OUTSTANDING + 1))
        idle = Signal(range(PATIENCE + 1))
        fits, close = Signal(), Signal()
        m.d.comb += [
            fits.eq(grows & (number == following) & (burst.beats != BURST)
                    & (byte[size:PAGE.bit_length() - 1] != 0) & (idle != PATIENCE)),
            bursts.i.payload.eq(burst),
            bursts.i.valid.eq(grows & (unanswered != OUTSTANDING)
                              & ((here & ~fits) | (idle == PATIENCE))),
            close.eq(bursts.i.valid & bursts.i.ready),
            take.eq(here & (fits | ~grows | close))]
        with m.If(take):
            m.d.sync += [grows.eq(1), idle.eq(0), following.eq(number + 1)]
            with m.If(fits):
                m.d.sync += burst.beats.eq(burst.beats + 1)
            with m.Else():
                m.d.sync += [burst.address.eq(byte), burst.beats.eq(1)]
        with m.Elif(close):
            m.d.sync += grows.eq(0)
        with m.Elif(grows & (idle != PATIENCE)):
            m.d.sync += idle.eq(idle + 1)

        # Bursts go out until none is left.
        sends, quiet = Signal(), Signal(range(QUIET + 1))
        with m.If(accept):
            m.d.sync += quiet.eq(0)
        with m.Elif(quiet != QUIET):
            m.d.sync += quiet.eq(quiet + 1)
        with m.If((waiting >= GATHERED) | ((waiting != 0) & ((quiet == QUIET) | self.flush))):
            m.d.sync += sends.eq(1)
        with m.Elif(waiting == 0):
            m.d.sync += sends.eq(0)

        # Address, then data.
        left = Signal(range(BURST + 1))
        answered = Signal()
        m.d.comb += [
            port.awid.eq(0), port.awsize.eq(size), port.awburst.eq(1),
            port.awaddr.eq(bursts.o.p.address), port.awlen.eq(bursts.o.p.beats - 1),
            port.awvalid.eq(bursts.o.valid & sends & (left == 0)),
            bursts.o.ready.eq(port.awready & sends & (left == 0)),
            port.wdata.eq(beats.o.payload), port.wstrb.eq(Const(-1, beat_bytes)),
            port.wlast.eq(left == 1), port.wvalid.eq(beats.o.valid & (left != 0)),
            sent.eq(port.wvalid & port.wready), beats.o.ready.eq(port.wready & (left != 0)),
            port.bready.eq(1), answered.eq(port.bvalid & port.bready)]
        with m.If(port.awvalid & port.awready):
            m.d.sync += left.eq(bursts.o.p.beats)
        with m.Elif(sent):
            m.d.sync += left.eq(left - 1)
        m.d.sync += [
            unanswered.eq(unanswered + close - answered), self.beat.eq(sent),
            self.error.eq(self.error | (answered & port.bresp[1]))]
        m.d.comb += self.writing.eq(here | grows | (unanswered != 0))
        return m
