# SPDX-License-Identifier: Apache-2.0
"""Slices of FP32 numbers as integers of one common exponent."""

from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, enum, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import Ram
from ..emit import Leaf
from .peak import Peak, latency, limited
from .rounding import Rounding

#: How far an exponent may lie above its base.
REACH = 31
#: Words that are under way between the input and the first word of a result, at most.
SLACK = 16
#: Results that wait for the consumer.
RESULTS = 8


class Mode(enum.Enum, shape=unsigned(2)):
    """What is done with a slice where ``passes`` is set."""

    QUANTISE = 0    #: find the exponent, then round
    MEASURE = 1     #: find the peak only
    ROUND = 2       #: take the base as the exponent, whatever comes


def input_layout(lanes: int, tag, *, passes: bool) -> data.StructLayout:
    """One word of a slice; digits, base, tag and mode are the same in all words of one slice."""
    layout = {"data": data.ArrayLayout(32, lanes), "mask": lanes, "last": 1, "digits": 1,
              "base": signed(8), "tag": tag}
    return data.StructLayout(layout | ({"mode": Mode} if passes else {}))


def output_layout(lanes: int, tag) -> data.StructLayout:
    """One quantised word."""
    digit = data.ArrayLayout(signed(8), lanes)
    return data.StructLayout(
        {"low": digit, "high": digit, "exponent": signed(8), "last": 1, "tag": tag})


class SliceQuantiser(wiring.Component):
    """Quantises slices: a slice waits here until its largest magnitude is known.

    One word a cycle; the next slice comes in while the one before leaves.

    Parameters
    ----------
    lanes : int
        Numbers of a word, a power of two.
    depth : int
        Words of the longest slice.
    tag : shape
        What goes from the words of a slice to its results.
    passes : bool
        Whether slices have a ``mode``.

    Members
    -------
    i : ``In(stream.Signature({data, mask, last, digits, base, tag}))``
        Numbers; which of them are masked and count as +0; whether the word ends its slice; 0 for
        one digit, 1 for two; the least exponent.  ``mode`` besides, if ``passes``.
    o : ``Out(stream.Signature({low, high, exponent, last, tag}))``
        q = low, or 256 · high + low with two digits (high is 0 with one): y is about
        q · 2^exponent.
    nonfinite, range : ``Out(1)``
        For a cycle: an infinity or NaN came in unmasked; a slice is too large for its base.
    peak : ``Out({valid, magnitude, tag})``
        Of a measured slice, for a cycle; only if ``passes``.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, *, lanes: int, depth: int, tag, passes: bool):
        if lanes < 1 or lanes & lanes - 1:
            raise ValueError(f"lanes must be a power of two, not {lanes!r}")
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth!r}")
        self.lanes, self.depth, self.tag, self.passes = lanes, depth, tag, passes
        signature = {
            "i": In(stream.Signature(input_layout(lanes, tag, passes=passes))),
            "o": Out(stream.Signature(output_layout(lanes, tag))),
            "nonfinite": Out(1), "range": Out(1)}
        if passes:
            signature["peak"] = Out(data.StructLayout(
                {"valid": 1, "magnitude": 31, "tag": tag}))
        super().__init__(signature)

    @property
    def ring(self) -> int:
        """Words that fit in: a slice of ``depth`` and what comes while it is measured."""
        return 1 << (self.depth + SLACK - 1).bit_length()

    @property
    def LATENCY(self) -> int:
        """Cycles from the last word of a slice to the first of its result."""
        return 1 + latency(self.lanes) + 2 + 2 + Rounding.LATENCY + 1

    def elaborate(self, platform):
        m = Module()
        lanes, ring = self.lanes, self.ring
        about = data.StructLayout({
            "valid": 1, "first": 1, "last": 1, "digits": 1, "base": signed(8), "tag": self.tag,
            "mode": Mode})

        # A word comes in and is made finite.
        used = Signal(range(ring + 1))      # words in the ring, or on the way into it
        start = Signal(init=1)
        mode = self.i.p.mode if self.passes else Mode.QUANTISE
        stored_in_ring = mode != Mode.MEASURE if self.passes else Const(1, 1)
        take, give = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq((used != ring) | ~stored_in_ring),
            take.eq(self.i.valid & self.i.ready)]
        m.d.sync += used.eq(used + (take & stored_in_ring) - give)
        with m.If(take):
            m.d.sync += start.eq(self.i.p.last)
        word = Signal(data.ArrayLayout(32, lanes), reset_less=True)
        flags = [Signal(name=f"nonfinite_{k}") for k in range(lanes)]
        for k in range(lanes):
            number = self.i.p.data[k]
            m.d.sync += [
                word[k].eq(Mux(self.i.p.mask[k], 0, limited(number))),
                flags[k].eq(take & ~self.i.p.mask[k] & number[23:31].all())]
        m.d.sync += self.nonfinite.eq(Cat(flags).any())

        known = Signal(about)
        m.d.sync += [
            known.valid.eq(take), known.first.eq(start), known.last.eq(self.i.p.last),
            known.digits.eq(self.i.p.digits), known.base.eq(self.i.p.base),
            known.tag.eq(self.i.p.tag), known.mode.eq(mode)]

        # It is stored, and its largest magnitude found.
        m.submodules.words = words = Ram(data.ArrayLayout(32, lanes), depth=ring)
        m.submodules.lasts = lasts = memory.Memory(shape=1, depth=ring, init=[])
        last_write, last_read = lasts.write_port(), lasts.read_port(domain="comb")
        write, read = Signal(range(ring)), Signal(range(ring))
        stored = Signal(range(ring + 1))
        store = Signal()
        m.d.comb += [
            store.eq(known.valid & (known.mode != Mode.MEASURE)),
            words.write_en.eq(store), words.write_addr.eq(write), words.write_data.eq(word),
            last_write.en.eq(store), last_write.addr.eq(write), last_write.data.eq(known.last)]
        m.d.sync += [write.eq(write + store), stored.eq(stored + store - give)]

        m.submodules.maximum = maximum = Peak(lanes=lanes)
        m.d.comb += [
            *(maximum.i[k].eq(word[k][:31]) for k in range(lanes)),
            maximum.valid.eq(known.valid), maximum.last.eq(known.last)]
        for k in range(maximum.LATENCY):
            later = Signal(about, name=f"known_{k}")
            m.d.sync += later.eq(known)
            known = later

        # Its exponent: the least e with rint(peak · 2^-e) within the limit is that of the peak less
        # the limit's bits, and one more if the peak would be rounded beyond the limit.
        peak = maximum.o
        over = Mux(known.digits, peak[8:23] >= 0x7EFF, peak[16:23].all())
        least, measured = Signal(signed(10)), Signal(about)
        m.d.sync += [
            least.eq(peak[23:31] - Mux(known.digits, 127 + 14, 127 + 6) + over),
            measured.eq(known)]
        base = measured.base
        exponent, found, outside = Signal(signed(8)), Signal(about), Signal()
        above = Signal(signed(11))
        m.d.comb += above.eq(least - base)
        m.d.sync += [
            exponent.eq(Mux((above < 0) | (measured.mode == Mode.ROUND), base,
                            Mux(above > REACH, base + REACH, least))),
            outside.eq(above > REACH), found.eq(measured)]
        m.d.comb += self.range.eq(
            outside & found.valid & found.last & (found.mode == Mode.QUANTISE))
        if self.passes:
            m.d.comb += [
                self.peak.valid.eq(known.valid & known.last & (known.mode == Mode.MEASURE)),
                self.peak.magnitude.eq(peak), self.peak.tag.eq(known.tag)]

        # Slices whose exponent is known leave in order.
        about_slice = data.StructLayout({"digits": 1, "exponent": signed(8), "tag": self.tag})
        m.submodules.slices = slices = fifo.SyncFIFO(width=about_slice.size, depth=ring)
        entry, head = Signal(about_slice), Signal(about_slice)
        m.d.comb += [
            entry.digits.eq(found.digits), entry.exponent.eq(exponent), entry.tag.eq(found.tag),
            slices.w_data.eq(entry), head.eq(slices.r_data),
            slices.w_en.eq(found.valid & Mux(
                found.mode == Mode.ROUND, found.first, found.last & (found.mode == Mode.QUANTISE)))]

        room = Signal(range(RESULTS + 1), init=RESULTS)
        m.d.comb += [
            last_read.addr.eq(read), words.read_addr.eq(read), words.read_en.eq(give),
            give.eq(slices.r_rdy & (stored != 0) & (room != 0)),
            slices.r_en.eq(give & last_read.data)]
        m.d.sync += read.eq(read + give)

        # They are rounded and wait for the consumer.
        leaving = data.StructLayout({"valid": 1, "last": 1, "slice": about_slice})
        result = Signal(leaving)
        m.d.sync += [
            result.valid.eq(give), result.last.eq(last_read.data), result.slice.eq(head)]
        layout = output_layout(lanes, self.tag)
        m.submodules.results = results = fifo.SyncFIFO(width=layout.size, depth=RESULTS)
        rounded = Signal(layout)
        for k in range(lanes):
            m.submodules[f"rounding_{k}"] = lane = Leaf(Rounding())
            m.d.comb += [
                lane.bits.eq(words.read_data[k]), lane.exponent.eq(result.slice.exponent),
                lane.wide.eq(result.slice.digits),
                rounded.low[k].eq(lane.low), rounded.high[k].eq(lane.high)]
        for k in range(Rounding.LATENCY):
            later = Signal(leaving, name=f"result_{k}")
            m.d.sync += later.eq(result)
            result = later
        m.d.comb += [
            rounded.exponent.eq(result.slice.exponent), rounded.last.eq(result.last),
            rounded.tag.eq(result.slice.tag),
            results.w_data.eq(rounded), results.w_en.eq(result.valid)]
        connect(m, results.r_stream, flipped(self.o))
        m.d.sync += room.eq(room - give + (self.o.valid & self.o.ready))
        return m
