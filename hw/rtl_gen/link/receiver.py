# SPDX-License-Identifier: Apache-2.0
"""The receiving half of a link: a frame counts when its trailer says so."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram
from . import layouts


class Receiver(wiring.Component):
    """Keeps the payload of good frames that come in order, and forgets all others.

    Never holds up the link: the neighbour sends no more than there is room for.

    Parameters
    ----------
    beat_bytes, depth, frame_beats : int
    number : int
        Bits of beat numbers.

    Members
    -------
    i : ``In({valid, data, trailer})``
        For a cycle: a beat of a frame.
    frame : ``In({good, bad, seq, last})``
        With a trailer: whether it is intact and of this session, or corrupted, and what it says.
    o : ``Out(stream.Signature({data, last}))``
        Messages.
    expected, limit : ``Out(number)``
        First beat that has not come, and first for which there is no room.
    progress : ``Out(1)``
        For a cycle: payload was accepted.
    gap : ``Out(1)``
        For a cycle: some payload was lost.
    """

    o: stream.Interface

    def __init__(self, *, beat_bytes: int, depth: int, frame_beats: int,
                 number: int = layouts.NUMBER):
        layouts.check(beat_bytes, depth, frame_beats)
        self.beat_bytes, self.depth, self.frame_beats = beat_bytes, depth, frame_beats
        self.number = number
        super().__init__({
            "i": In(data.StructLayout({"valid": 1, "data": 8 * beat_bytes, "trailer": 1})),
            "frame": In(data.StructLayout({"good": 1, "bad": 1, "seq": number, "last": 1})),
            "o": Out(stream.Signature(layouts.beat(beat_bytes))),
            "expected": Out(number), "limit": Out(number), "progress": Out(1), "gap": Out(1)})

    def elaborate(self, platform):
        m = Module()
        number, depth = self.number, self.depth
        stored = layouts.beat(self.beat_bytes)
        m.submodules.ram = ram = Ram(stored, depth=depth)

        # Numbers of beats: the next to be written, the next to be read.  What was written from
        # `expected` on may still be forgotten.
        write, read = Signal(number), Signal(number)
        m.d.comb += self.limit.eq(read + depth)

        # Only the trailer tells whether a message ends, so the last beat waits for it.
        waits, waiting = Signal(), Signal(8 * self.beat_bytes, reset_less=True)
        beats, spoilt, room = Signal(range(self.frame_beats + 1)), Signal(), Signal()
        behind = Signal(number)
        put, kept, is_trailer = Signal(), Signal(), Signal()
        m.d.comb += [
            is_trailer.eq(self.i.valid & self.i.trailer),
            room.eq((write - read)[:number] < depth),
            behind.eq(self.expected - self.frame.seq),
            put.eq(self.i.valid & waits & room & ~spoilt),
            kept.eq(is_trailer & self.frame.good & waits & room & ~spoilt & (behind == 0)),
            ram.write_en.eq(put), ram.write_addr.eq(write), ram.write_data.data.eq(waiting),
            ram.write_data.last.eq(is_trailer & self.frame.last),
            self.progress.eq(kept),
            # A frame that came before was sent again for nothing; it is acknowledged again.
            self.gap.eq(is_trailer & (self.frame.bad | (
                self.frame.good & waits & ~kept & ((behind == 0) | behind[-1]))))]
        with m.If(self.i.valid):
            m.d.sync += [waits.eq(~self.i.trailer), waiting.eq(self.i.data)]
            with m.If(self.i.trailer):
                m.d.sync += [beats.eq(0), spoilt.eq(0)]
                with m.If(kept):
                    m.d.sync += [self.expected.eq(write + 1), write.eq(write + 1)]
                with m.Else():
                    m.d.sync += write.eq(self.expected)
            with m.Else():
                # Two frames without the trailer between them, or more than there is room for.
                with m.If((beats == self.frame_beats) | (waits & ~room)):
                    m.d.sync += spoilt.eq(1)
                with m.Else():
                    m.d.sync += beats.eq(beats + 1)
                m.d.sync += write.eq(write + put)

        fetch = Signal()
        m.d.comb += [
            fetch.eq((read != self.expected) & (~self.o.valid | self.o.ready)),
            ram.read_en.eq(fetch), ram.read_addr.eq(read), self.o.payload.eq(ram.read_data)]
        m.d.sync += read.eq(read + fetch)
        with m.If(fetch):
            m.d.sync += self.o.valid.eq(1)
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
