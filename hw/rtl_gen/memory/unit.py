# SPDX-License-Identifier: Apache-2.0
"""The memory queue's unit: LOAD and STORE."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import layouts
from ..spec.config import CardConfig
from ..spec.isa import COUNTERS, FORMATS
from ..vector import scales, scratchpad
from .gather import Gathers
from .turns import user


class MemoryUnit(wiring.Component):
    """Executes LOAD and STORE, one after another.

    A LOAD takes what the channels have read as constants, a word of every lane in a cycle.  A STORE
    collects words to beats, which the channels write.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    job : ``In(stream.Signature(layouts.JOB))``
    done : ``Out(layouts.DONE)``
    constants : :func:`turns.user`
    words : ``In(layouts.word(config))``
        The next constant of each channel.
    write : ``Out(stream.Signature(scratchpad.write_layout(config)))``
    load : ``Out(stream.Signature(scales.load_layout(config)))``
    read : :func:`scratchpad.read_port`
    row_read : ``Out(stream.Signature(scales.entry_layout(config)))``
    row : ``In(stream.Signature(32))``
    beats : ``Out(stream.Signature(layouts.channel_write(config))).array(channels)``
    """

    #: Cycles from a LOAD taken until it is done, less one a word, if all words are there.
    LATENCY = 2

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "job": In(stream.Signature(layouts.JOB)), "done": Out(layouts.DONE),
            "constants": Out(user()), "words": In(layouts.word(config)),
            "write": Out(stream.Signature(scratchpad.write_layout(config))),
            "load": Out(stream.Signature(scales.load_layout(config))),
            "read": Out(scratchpad.read_port(config)),
            "row_read": Out(stream.Signature(scales.entry_layout(config))),
            "row": In(stream.Signature(32)),
            "beats": Out(stream.Signature(layouts.channel_write(config))).array(config.channels)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        lane_bits = (config.channels - 1).bit_length()
        m.submodules.gathers = gathers = Gathers(config)
        for inner, outer in zip(gathers.write, self.beats, strict=True):
            connect(m, inner, flipped(outer))
        load, store = (layouts.view(name, self.job.p.word) for name in ("LOAD", "STORE"))

        # The instruction at hand.
        signal, target = Signal(COUNTERS, reset_less=True), Signal(reset_less=True)
        rows, words, left = Signal(12), Signal(16), Signal(16)
        place, lane = Signal(16, reset_less=True), Signal(lane_bits, reset_less=True)
        finish = Signal()
        m.d.sync += self.done.valid.eq(finish)
        m.d.comb += [self.done.signal.eq(signal), gathers.address.eq(self.job.p.address)]

        # A word on its way to scratchpad or scales.
        there = Signal()
        word = Signal(data.StructLayout({"addr": 16, "data": layouts.word(config)}),
                      reset_less=True)
        free = ~there | Mux(target, self.load.ready, self.write.ready)
        m.d.comb += [
            self.write.payload.eq(word), self.write.valid.eq(there & ~target),
            self.load.payload.eq(word), self.load.valid.eq(there & target)]
        with m.If(free):
            m.d.sync += there.eq(0)

        read_valid, read_last = Signal(), Signal(reset_less=True)
        asked = Signal(16)
        m.d.comb += [
            self.read.addr.eq(place), self.row_read.p.addr.eq(place), self.row_read.p.lane.eq(lane)]
        row_words = Signal(layouts.word(config))
        m.d.comb += [row_words[k].eq(self.row.payload) for k in range(config.channels)]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.job.ready.eq(1), gathers.start.eq(1)]
                is_load = load.opcode == FORMATS["LOAD"][0]
                m.d.sync += [
                    signal.eq(load.signal), rows.eq(self.job.p.rows),
                    target.eq(Mux(is_load, load.target, store.source)),
                    place.eq(Mux(is_load, load.dst, store.src)),
                    lane.eq(self.job.p.pos[:lane_bits])]
                length = Mux(is_load, load.words, store.words)
                m.d.sync += [words.eq(length), left.eq(length), asked.eq(length)]
                with m.If(self.job.valid):
                    with m.If(~is_load):
                        # Scales: of the row of the position.
                        m.d.sync += rows.eq(self.job.p.pos >> lane_bits)
                        m.next = "PLACE"
                    with m.Elif(self.job.p.rows == 0):
                        m.next = "LAST"
                    with m.Else():
                        m.next = "LOAD"

            with m.State("LOAD"):
                take = self.constants.level.any() & free
                row_ends, ends = left == 1, rows == 1
                m.d.comb += self.constants.take.eq(take)
                with m.If(take):
                    m.d.sync += [
                        there.eq(1), word.addr.eq(place), word.data.eq(self.words),
                        place.eq(place + 1), left.eq(Mux(row_ends, words, left - 1))]
                    with m.If(row_ends):
                        m.d.comb += [self.constants.skip.eq(1), self.constants.release.eq(ends)]
                        m.d.sync += rows.eq(rows - 1)
                        with m.If(ends):
                            m.next = "LAST"

            with m.State("PLACE"):
                with m.If(target):
                    m.d.sync += place.eq(place + rows * words)
                    m.next = "SCALES"
                with m.Else():
                    m.next = "STORE"

            with m.State("STORE"):
                # The word that was read stays until the next read.
                m.d.comb += [
                    gathers.words.eq(self.read.data), gathers.lanes.eq(-1),
                    gathers.last.eq(read_last), gathers.push.eq(read_valid & gathers.ready),
                    self.read.en.eq((asked != 0) & (~read_valid | gathers.push))]
                with m.If(self.read.en):
                    m.d.sync += [read_valid.eq(1), read_last.eq(asked == 1), asked.eq(asked - 1),
                                 place.eq(place + 1)]
                with m.Elif(gathers.push):
                    m.d.sync += read_valid.eq(0)
                with m.If(gathers.push & read_last):
                    m.next = "LAST"

            with m.State("SCALES"):
                m.d.comb += [
                    gathers.words.eq(row_words), gathers.lanes.eq(1 << lane),
                    gathers.last.eq(left == 1), gathers.push.eq(self.row.valid & gathers.ready),
                    self.row.ready.eq(gathers.ready), self.row_read.valid.eq(asked != 0)]
                with m.If(self.row_read.valid & self.row_read.ready):
                    m.d.sync += [asked.eq(asked - 1), place.eq(place + 1)]
                with m.If(gathers.push):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "LAST"

            with m.State("LAST"):
                # Done when the last word or beat is taken.
                with m.If(free & gathers.ready):
                    m.d.comb += finish.eq(1)
                    m.next = "IDLE"
        return m
