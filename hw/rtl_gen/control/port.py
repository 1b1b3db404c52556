# SPDX-License-Identifier: Apache-2.0
"""Control's own access to memory: commands in, status and results out."""

from amaranth import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import axi
from ..spec.config import CardConfig

#: Beats of the longest burst.  Bursts end at multiples of it, so that none crosses 4 KiB.
BURST = 16
#: Bits of a length in 32-bit words: a whole program has 8 words an instruction.
WORDS_BITS = 20
#: Writes that may wait for their answer.
OUTSTANDING = 15


class SystemPort(wiring.Component):
    """Reads runs of 32-bit words, writes single beats, over one AXI4 port.

    Rare and small transfers: one read burst at a time, one 32-bit word a cycle.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    read : ``In(stream({address: 64, words: 20}))``
        A byte address, a multiple of the beat, and a number of words above zero.
    words : ``Out(stream(32))``
        The words, one after another.
    write : ``In(stream({address: 64, data: beat}))``
    reading, writing : ``Out(1)``
        A read has not delivered all its words; a write has not been answered.
    read_error, write_error : ``Out(1)``
        Pulse: an answer was an error.  A faulty read delivers as many words as any other.
    axi : AXI4 master
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "read": In(stream.Signature(data.StructLayout({"address": 64, "words": WORDS_BITS}))),
            "words": Out(stream.Signature(32)),
            "write": In(stream.Signature(data.StructLayout({
                "address": 64, "data": 8 * config.beat_bytes}))),
            "reading": Out(1), "writing": Out(1),
            "read_error": Out(1), "write_error": Out(1),
            "axi": Out(axi.full(config.beat_bytes))})

    def elaborate(self, platform):
        m = Module()
        beat_bytes = self.config.beat_bytes
        size = (beat_bytes - 1).bit_length()
        m.d.comb += [
            self.axi.arsize.eq(size), self.axi.arburst.eq(1), self.axi.rready.eq(0),
            self.axi.awsize.eq(size), self.axi.awburst.eq(1), self.axi.awlen.eq(0),
            self.axi.wlast.eq(1), self.axi.wstrb.eq(Const(-1, beat_bytes)), self.axi.bready.eq(1)]
        self._elaborate_read(m, size)
        self._elaborate_write(m)
        return m

    def _elaborate_read(self, m, size):
        per_beat = self.config.beat_bytes // 4
        words_left, beats_left = Signal(WORDS_BITS), Signal(WORDS_BITS)
        #: The beat being cut into words, and how many of its words are still to go.
        beat = Signal(8 * self.config.beat_bytes, reset_less=True)
        here = Signal(range(per_beat + 1))
        address, burst = Signal(64), Signal(range(BURST + 1))

        m.d.comb += [
            self.reading.eq(words_left != 0),
            self.read.ready.eq(words_left == 0),
            self.words.payload.eq(beat[:32]),
            self.words.valid.eq(here != 0)]
        with m.If(self.read.valid & self.read.ready):
            m.d.sync += [
                words_left.eq(self.read.p.words), address.eq(self.read.p.address),
                beats_left.eq((self.read.p.words + (per_beat - 1)) >> (per_beat - 1).bit_length())]

        room = Signal.like(burst)
        m.d.comb += room.eq(BURST - address[size:size + (BURST - 1).bit_length()])
        with m.If(~self.axi.arvalid & (burst == 0) & (beats_left != 0)):
            length = Signal.like(burst)
            m.d.comb += length.eq(Mux(beats_left < room, beats_left, room))
            m.d.sync += [
                self.axi.arvalid.eq(1), self.axi.araddr.eq(address), self.axi.arlen.eq(length - 1),
                burst.eq(length), beats_left.eq(beats_left - length),
                address.eq(address + (length << size))]
        with m.If(self.axi.arvalid & self.axi.arready):
            m.d.sync += self.axi.arvalid.eq(0)

        m.d.sync += self.read_error.eq(0)
        with m.If(self.words.valid & self.words.ready):
            m.d.sync += [beat.eq(beat >> 32), here.eq(here - 1), words_left.eq(words_left - 1)]
        m.d.comb += self.axi.rready.eq((here == 0) & (burst != 0))
        with m.If(self.axi.rvalid & self.axi.rready):
            m.d.sync += [
                beat.eq(self.axi.rdata), burst.eq(burst - 1), self.read_error.eq(self.axi.rresp[1]),
                here.eq(Mux(words_left < per_beat, words_left, per_beat))]

    def _elaborate_write(self, m):
        waiting = Signal(range(OUTSTANDING + 1))
        m.d.comb += [
            self.write.ready.eq(~self.axi.awvalid & ~self.axi.wvalid & (waiting != OUTSTANDING)),
            self.writing.eq(waiting != 0)]
        with m.If(self.axi.awready):
            m.d.sync += self.axi.awvalid.eq(0)
        with m.If(self.axi.wready):
            m.d.sync += self.axi.wvalid.eq(0)
        sent, answered = Signal(), Signal()
        m.d.comb += [sent.eq(self.write.valid & self.write.ready),
                     answered.eq(self.axi.bvalid & self.axi.bready)]
        with m.If(sent):
            m.d.sync += [
                self.axi.awvalid.eq(1), self.axi.awaddr.eq(self.write.p.address),
                self.axi.wvalid.eq(1), self.axi.wdata.eq(self.write.p.data)]
        m.d.sync += [waiting.eq(waiting + sent - answered),
                     self.write_error.eq(answered & self.axi.bresp[1])]
