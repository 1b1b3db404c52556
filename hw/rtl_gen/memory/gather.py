# SPDX-License-Identifier: Apache-2.0
"""Words of one lane to beats of its channel."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import layouts
from ..emit import Leaf
from ..spec.config import CardConfig


class Gather(wiring.Component):
    """Collects a beat.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    push : ``In(1)``
        Take ``word`` as number ``place`` of the beat; only while not ``full``.  The first word of a
        beat sets all others to zero.
    word, place : ``In(32)``, ``In(range(beat_bytes // 4))``
    complete : ``In(1)``
        With the last word of a beat, which goes to beat ``address``.
    address : ``In(32)``
    full : ``Out(1)``
        The beat waits to be taken.
    write : ``Out(stream.Signature(layouts.channel_write(config)))``
    """

    leaf_name = "gather"

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "push": In(1), "word": In(32), "place": In(range(config.beat_bytes // 4)),
            "complete": In(1), "address": In(32), "full": Out(1),
            "write": Out(stream.Signature(layouts.channel_write(config)))})

    def elaborate(self, platform):
        m = Module()
        first = self.place == 0
        beat = Signal(8 * self.config.beat_bytes, reset_less=True)
        for place in range(self.config.beat_bytes // 4):
            mine = self.place == place
            # Zeros come from the registers' own reset: the words take no logic.
            with m.If(self.push & first & ~mine):
                m.d.sync += beat.word_select(place, 32).eq(0)
            with m.Elif(self.push & mine):
                m.d.sync += beat.word_select(place, 32).eq(self.word)
        m.d.comb += [self.write.valid.eq(self.full), self.write.p.data.eq(beat)]
        with m.If(self.push & self.complete):
            m.d.sync += [self.full.eq(1), self.write.p.address.eq(self.address)]
        with m.Elif(self.write.ready):
            m.d.sync += self.full.eq(0)
        return m


class Gathers(wiring.Component):
    """One :class:`Gather` per lane, filled in step.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    start : ``In(1)``
        Begin with beat ``address``.
    address : ``In(32)``
    push : ``In(1)``
        Take a word in the lanes of ``lanes``; only while ``ready``.
    words : ``In(layouts.word(config))``
    lanes : ``In(channels)``
    last : ``In(1)``
        The word is the last one: its beat is complete.
    ready : ``Out(1)``
        No beat waits to be taken.
    write : ``Out(stream.Signature(layouts.channel_write(config))).array(channels)``
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "start": In(1), "address": In(32), "push": In(1), "words": In(layouts.word(config)),
            "lanes": In(config.channels), "last": In(1), "ready": Out(1),
            "write": Out(stream.Signature(layouts.channel_write(config))).array(config.channels)})

    def elaborate(self, platform):
        m = Module()
        per_beat = self.config.beat_bytes // 4
        address, place, complete = Signal(32), Signal(range(per_beat)), Signal()
        m.d.comb += complete.eq(self.last | (place == per_beat - 1))
        with m.If(self.start):
            m.d.sync += [address.eq(self.address), place.eq(0)]
        with m.Elif(self.push):
            m.d.sync += [place.eq(Mux(complete, 0, place + 1)), address.eq(address + complete)]
        full = Signal(self.config.channels)
        m.d.comb += self.ready.eq(~full.any())
        for lane in range(self.config.channels):
            m.submodules[f"gather_{lane}"] = gather = Leaf(Gather(self.config))
            m.d.comb += [
                gather.push.eq(self.push & self.lanes[lane]), gather.word.eq(self.words[lane]),
                gather.place.eq(place), gather.complete.eq(complete), gather.address.eq(address),
                full[lane].eq(gather.full)]
            connect(m, gather.write, flipped(self.write[lane]))
        return m
