# SPDX-License-Identifier: Apache-2.0
"""CRC-32 of frames, a beat a cycle."""

import functools
import zlib

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..spec.link import CRC_BITS
from . import layouts


@functools.cache
def columns(beat_bytes: int) -> tuple[int, list[int], list[int]]:
    """The CRC of a beat of zeros, and what each bit of a beat and of the CRC before it flips.

    CRCs are affine: ``crc(a ^ b) = crc(a) ^ crc(b) ^ crc(0)``.
    """
    def after(word: int, before: int) -> int:
        return zlib.crc32(word.to_bytes(beat_bytes, "little"), before)
    zero = after(0, 0)
    return (zero, [after(1 << bit, 0) ^ zero for bit in range(8 * beat_bytes)],
            [after(0, 1 << bit) ^ zero for bit in range(CRC_BITS)])


class Crc32(wiring.Component):
    """CRC-32 of IEEE 802.3 over beats, their lowest byte first.

    ``amaranth.lib.crc`` makes chains of as many gates as a beat has bits, too deep for tools that
    recurse; these are trees.

    Parameters
    ----------
    beat_bytes : int

    Members
    -------
    start, valid, data : in
        A beat comes, and whether it is the first.
    crc : ``Out(32)``
        Of all beats up to the last one, a cycle later.
    """

    def __init__(self, *, beat_bytes: int):
        self.beat_bytes = beat_bytes
        super().__init__({"start": In(1), "valid": In(1), "data": In(8 * beat_bytes),
                          "crc": Out(CRC_BITS)})

    def elaborate(self, platform):
        m = Module()
        zero, of_data, of_crc = columns(self.beat_bytes)
        before = Signal(CRC_BITS)
        m.d.comb += before.eq(Mux(self.start, 0, self.crc))
        with m.If(self.valid):
            for bit in range(CRC_BITS):
                terms = [value[k] for value, column in ((self.data, of_data), (before, of_crc))
                         for k, flips in enumerate(column) if flips >> bit & 1]
                m.d.sync += self.crc[bit].eq(Cat(terms).xor() ^ (zero >> bit & 1))
        return m


class Seal(wiring.Component):
    """Puts the CRC into trailers.

    Parameters
    ----------
    beat_bytes : int

    Members
    -------
    i, o : streams of ``{data, last}``
        Frames; ``last`` marks the trailer.  A beat goes on a cycle later.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, *, beat_bytes: int):
        self.beat_bytes = beat_bytes
        beat = layouts.beat(beat_bytes)
        super().__init__({"i": In(stream.Signature(beat)), "o": Out(stream.Signature(beat))})

    def elaborate(self, platform):
        m = Module()
        beat = Signal(layouts.beat(self.beat_bytes), reset_less=True)
        m.submodules.crc = processor = Crc32(beat_bytes=self.beat_bytes)
        begins, take = Signal(init=1), Signal()
        m.d.comb += [
            self.i.ready.eq(~self.o.valid | self.o.ready), take.eq(self.i.valid & self.i.ready),
            processor.valid.eq(take), processor.start.eq(take & begins),
            processor.data.eq(self.i.p.data),
            self.o.p.last.eq(beat.last),
            self.o.p.data.eq(Mux(beat.last, Cat(beat.data[:-CRC_BITS], processor.crc),
                                 beat.data))]
        with m.If(take):
            m.d.sync += [beat.eq(self.i.payload), begins.eq(self.i.p.last), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m


class Check(wiring.Component):
    """Checks the CRC of frames, which it never holds up.

    Parameters
    ----------
    beat_bytes : int

    Members
    -------
    i : ``In({valid, data, last})``
        A beat of a frame as it came over the link.
    o : ``Out({valid, data, trailer})``
        The same two cycles later.
    good : ``Out(1)``
        With a trailer: the frame is intact.
    """

    LATENCY = 2

    def __init__(self, *, beat_bytes: int):
        self.beat_bytes = beat_bytes
        size = 8 * beat_bytes
        super().__init__({
            "i": In(data.StructLayout({"valid": 1, "data": size, "last": 1})),
            "o": Out(data.StructLayout({"valid": 1, "data": size, "trailer": 1})),
            "good": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.crc = processor = Crc32(beat_bytes=self.beat_bytes)
        begins, here = Signal(init=1), Signal(self.o.shape())
        with m.If(self.i.valid):
            m.d.sync += begins.eq(self.i.last)
        m.d.comb += [
            processor.valid.eq(self.i.valid), processor.start.eq(self.i.valid & begins),
            processor.data.eq(Cat(self.i.data[:-CRC_BITS],
                                  Mux(self.i.last, 0, self.i.data[-CRC_BITS:])))]
        m.d.sync += [
            here.valid.eq(self.i.valid), here.data.eq(self.i.data), here.trailer.eq(self.i.last),
            self.o.eq(here),
            self.good.eq(here.valid & here.trailer & (processor.crc == here.data[-CRC_BITS:]))]
        return m
