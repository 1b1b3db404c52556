# SPDX-License-Identifier: Apache-2.0
"""One channel of memory: reads ahead, splits, decodes; writes."""

from amaranth import Module, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import axi, layouts
from ..spec.config import CardConfig
from .constants import WORDS, Constants
from .entries import EntryFifo
from .plan import Planner
from .reader import PAGE, Reader
from .splitter import Splitter
from .writer import Writer

#: Beats of the longest read burst.
BURST = 64
#: Read bursts under way: small streams make small bursts, and their latency is to be hidden too.
OUTSTANDING = 32


class Channel(wiring.Component):
    """Everything between a memory port and a lane.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    axi : AXI4 master
    base : ``In(64)``
        Byte address of the channel's memory.
    job : ``In(stream.Signature(layouts.stream_job(config)))``
        What to read next.
    entries, swap, some, take
        As of :class:`EntryFifo`.
    words, word_level, word_take, word_skip
        As of :class:`Constants`.
    write : ``In(stream.Signature(layouts.channel_write(config)))``
    reading, writing : ``Out(1)``
        Reads or writes are under way.
    read_error, write_error : ``Out(1)``
        An answer was an error; until reset.
    drain : ``In(1)``
        Ask for no more, and drop what still comes; writes are completed.  When neither ``reading``
        nor ``writing`` is high a reset makes the channel as new.
    flush : ``In(1)``
        Somebody waits until all is written.
    read_beat, write_beat : ``Out(1)``
        A beat moved.
    """

    leaf_name = "channel"
    #: Cycles from a job taken until its first address is out.
    ADDRESS_LATENCY = Planner.LATENCY + Reader.LATENCY
    #: Cycles from a value beat taken from memory until its (first) entry is there.
    ENTRY_LATENCY = Splitter.LATENCY + EntryFifo.LATENCY
    #: Cycles from a beat of constants taken from memory until its words are there.
    CONSTANT_LATENCY = 1 + Constants.LATENCY

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "axi": Out(axi.full(config.beat_bytes)), "base": In(64),
            "job": In(stream.Signature(layouts.stream_job(config))),
            "entries": Out(layouts.entry(config).size).array(2), "swap": Out(1),
            "some": Out(2), "take": In(2),
            "words": Out(data.ArrayLayout(unsigned(32), WORDS)), "word_level": Out(2),
            "word_take": In(2), "word_skip": In(1),
            "write": In(stream.Signature(layouts.channel_write(config))),
            "reading": Out(1), "writing": Out(1), "read_error": Out(1), "write_error": Out(1),
            "drain": In(1), "flush": In(1), "read_beat": Out(1), "write_beat": Out(1)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.planner = planner = Planner(config)
        m.submodules.reader = reader = Reader(
            config.beat_bytes, burst=min(BURST, PAGE // config.beat_bytes), outstanding=OUTSTANDING)
        m.submodules.splitter = splitter = Splitter(config)
        m.submodules.entries = entries = EntryFifo(config)
        m.submodules.constants = constants = Constants(config)
        m.submodules.writer = writer = Writer(config)

        for half in (reader.axi, writer.axi):
            for name, member in half.signature.members.items():
                outer, inner = getattr(self.axi, name), getattr(half, name)
                m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)
        connect(m, flipped(self.job), planner.job)
        connect(m, planner.read, reader.job)
        connect(m, planner.segments, splitter.segments)
        connect(m, reader.o, splitter.i)
        connect(m, splitter.constants, constants.i)
        connect(m, flipped(self.write), writer.i)
        m.d.comb += [
            reader.base.eq(self.base), writer.base.eq(self.base), reader.abort.eq(self.drain),
            writer.flush.eq(self.flush),
            splitter.room.eq(entries.room), entries.reserve.eq(splitter.reserve),
            entries.weights_en.eq(splitter.weights_en), entries.weights.eq(splitter.weights),
            entries.index_en.eq(splitter.index_en), entries.index.eq(splitter.index),
            self.entries[0].eq(entries.entries[0]), self.entries[1].eq(entries.entries[1]),
            self.swap.eq(entries.swap),
            self.some.eq(entries.some), entries.take.eq(self.take),
            self.words.eq(constants.words), self.word_level.eq(constants.level),
            constants.take.eq(self.word_take), constants.skip.eq(self.word_skip),
            self.reading.eq(reader.reading), self.writing.eq(writer.writing),
            self.read_error.eq(reader.error), self.write_error.eq(writer.error),
            self.read_beat.eq(reader.beat), self.write_beat.eq(writer.beat)]
        return m
