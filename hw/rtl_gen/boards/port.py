# SPDX-License-Identifier: Apache-2.0
"""A channel's AXI4 master in front of the SDRAM: bursts become beats."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Queue, axi
from .sdram import Sdram

#: Beats read that a port has room for: two are on their way while one is taken.
ROOM = 4
#: Response to an address that memory has not.
DECERR = 3


class Port(wiring.Component):
    """AXI4 slave for INCR bursts of whole beats, one burst at a time in each direction.

    Beats that are not in memory are answered with DECERR and not written.  A write is answered
    when its last beat has been taken; whoever then reads gets what was written, because beats are
    carried out in the order in which they are taken.

    Parameters
    ----------
    beat_bytes : int
    address_bits : int
        Of beat numbers.

    Members
    -------
    axi : AXI4 slave
    read, write : ``Out(stream({address, write, data}))``
        Beats for :class:`~rtl_gen.boards.sdram.Sdram`.
    came : ``In({valid, data})``
        A beat that ``read`` has asked for.
    """

    def __init__(self, *, beat_bytes: int, address_bits: int) -> None:
        self.beat_bytes, self.address_bits = beat_bytes, address_bits
        request = stream.Signature(Sdram.request(address_bits, beat_bytes))
        super().__init__({
            "axi": In(axi.full(beat_bytes)), "read": Out(request), "write": Out(request),
            "came": In(data.StructLayout({"valid": 1, "data": 8 * beat_bytes}))})

    def elaborate(self, platform):
        m = Module()
        self._reads(m)
        self._writes(m)
        return m

    def _split(self, address):
        """Beat number, and whether memory ends before it."""
        size = (self.beat_bytes - 1).bit_length()
        end = size + self.address_bits
        return address[size:end], address[end:].any()

    def _reads(self, m):
        bus = self.axi
        address, outside = self._split(bus.araddr)
        left, beyond = Signal(9), Signal()
        beat = Signal(self.address_bits, reset_less=True)
        # What is asked for has room, and its end of burst and response wait for it.
        m.submodules.ends = ends = Queue(data.StructLayout({"last": 1, "beyond": 1}), depth=ROOM)
        m.submodules.beats = beats = Queue(8 * self.beat_bytes, depth=ROOM)
        room, asks, taken = Signal(range(ROOM + 1), init=ROOM), Signal(), Signal()

        m.d.comb += bus.arready.eq(left == 0)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [beat.eq(address), left.eq(bus.arlen + 1), beyond.eq(outside)]
        m.d.comb += [
            self.read.valid.eq((left != 0) & (room != 0)), self.read.p.address.eq(beat),
            asks.eq(self.read.valid & self.read.ready),
            ends.i.valid.eq(asks), ends.i.p.last.eq(left == 1), ends.i.p.beyond.eq(beyond),
            beats.i.valid.eq(self.came.valid), beats.i.payload.eq(self.came.data)]
        with m.If(asks):
            m.d.sync += [beat.eq(beat + 1), left.eq(left - 1)]
        m.d.comb += [
            bus.rvalid.eq(beats.o.valid & ends.o.valid), bus.rdata.eq(beats.o.payload),
            bus.rlast.eq(ends.o.p.last), bus.rresp.eq(Mux(ends.o.p.beyond, DECERR, axi.OKAY)),
            taken.eq(bus.rvalid & bus.rready), beats.o.ready.eq(taken), ends.o.ready.eq(taken)]
        m.d.sync += room.eq(room + taken - asks)

    def _writes(self, m):
        bus = self.axi
        address, outside = self._split(bus.awaddr)
        busy, beyond = Signal(), Signal()
        beat = Signal(self.address_bits, reset_less=True)

        m.d.comb += bus.awready.eq(~busy & ~bus.bvalid)
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [beat.eq(address), busy.eq(1), beyond.eq(outside)]
        m.d.comb += [
            self.write.valid.eq(busy & bus.wvalid & ~beyond), self.write.p.write.eq(1),
            self.write.p.address.eq(beat), self.write.p.data.eq(bus.wdata),
            bus.wready.eq(busy & (self.write.ready | beyond))]
        with m.If(bus.bvalid & bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += beat.eq(beat + 1)
            with m.If(bus.wlast):
                m.d.sync += [busy.eq(0), bus.bvalid.eq(1),
                             bus.bresp.eq(Mux(beyond, DECERR, axi.OKAY))]


class Arbiter(wiring.Component):
    """Beats of several masters, by turns.

    Parameters
    ----------
    beat_bytes, address_bits : int
    ways : int
        Masters.

    Members
    -------
    i : ways of ``In(stream({address, write, data}))``
    o : ``Out(stream({address, write, data}))``
    read : ``In({valid, data})``
        Beats in the order in which ``o`` has asked for them.
    came : ways of ``Out({valid, data})``
        Each master's own.
    reading : ``Out(1)``
        Some beat that was asked for has not come.
    """

    #: Reads that may be under way: the one that the SDRAM carries out, one before it, one behind.
    UNDER_WAY = 4

    def __init__(self, *, beat_bytes: int, address_bits: int, ways: int) -> None:
        self.ways = ways
        request = stream.Signature(Sdram.request(address_bits, beat_bytes))
        beat = data.StructLayout({"valid": 1, "data": 8 * beat_bytes})
        super().__init__({
            "i": In(request).array(ways), "o": Out(request), "read": In(beat),
            "came": Out(beat).array(ways), "reading": Out(1)})

    def elaborate(self, platform):
        m = Module()
        ways = self.ways
        m.submodules.owners = owners = Queue(ways, depth=self.UNDER_WAY)
        under_way = Signal(range(self.UNDER_WAY + 3))

        # Whoever comes first after the last one that had a turn; a choice stays until it is taken.
        wants, turn, chosen = Signal(ways), Signal(ways, init=1), Signal(ways)
        m.d.comb += wants.eq(Cat(port.valid for port in self.i))
        with m.Switch(turn):
            for last in range(ways):
                with m.Case(1 << last):
                    for k in reversed(range(1, ways + 1)):
                        with m.If(wants[(last + k) % ways]):
                            m.d.comb += chosen.eq(1 << (last + k) % ways)
        held, free = Signal(self.o.payload.shape(), reset_less=True), Signal()
        full, owner = Signal(), Signal(ways)
        m.d.comb += [free.eq(~full | (self.o.valid & self.o.ready)), self.o.payload.eq(held),
                     # A read needs a place for its owner's name.
                     self.o.valid.eq(full & (held.write | owners.i.ready)),
                     owners.i.payload.eq(owner),
                     owners.i.valid.eq(full & ~held.write & self.o.ready)]
        with m.If(free):
            m.d.sync += full.eq(chosen.any())
            with m.If(chosen.any()):
                m.d.sync += [turn.eq(chosen), owner.eq(chosen)]
        for k, port in enumerate(self.i):
            m.d.comb += port.ready.eq(free & chosen[k])
            with m.If(free & chosen[k]):
                m.d.sync += held.eq(port.payload)

        for k, came in enumerate(self.came):
            m.d.comb += [came.data.eq(self.read.data),
                         came.valid.eq(self.read.valid & owners.o.payload[k])]
        m.d.comb += owners.o.ready.eq(self.read.valid)
        asked = Signal()
        m.d.comb += [asked.eq(self.o.valid & self.o.ready & ~held.write),
                     self.reading.eq((under_way != 0) | full)]
        m.d.sync += under_way.eq(under_way + asked - self.read.valid)
        return m
