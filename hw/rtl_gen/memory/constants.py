# SPDX-License-Identifier: Apache-2.0
"""The queue of row constants and loaded words: beats in, up to three 32-bit words a cycle out."""

from amaranth import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram, wide_style
from ..spec.config import CardConfig

#: Words that are visible at once.
WORDS = 3
#: Words that leave the beat memory in a cycle, at most: a shorter beat leaves at once.
QUAD = 4


def _sum(a, b):
    """Sum of two numbers of two bits, without a carry chain: what is taken is known late."""
    carry = a[0] & b[0]
    return Cat(a[0] ^ b[0], a[1] ^ b[1] ^ carry, Mux(carry, a[1] | b[1], a[1] & b[1]))


class Constants(wiring.Component):
    """Beats as words.

    A memory holds ``aux_beats`` beats; from it, quads of four words, or of two where a beat has
    no more, go through a window of two quads in which the next words are selected.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    i : ``In(stream.Signature(8 * beat_bytes))``
    words : ``Out(ArrayLayout(unsigned(32), 3))``
        The next three words.
    level : ``Out(2)``
        How many of them there are.
    take : ``In(2)``
        How many leave now, at most ``level``.
    skip : ``In(1)``
        Drop the words that follow in the beat of the last word taken, those taken now included;
        nothing where that word ends its beat.
    """

    #: Cycles from a beat taken in until its words are visible in an empty queue.
    LATENCY = 3

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(8 * config.beat_bytes)),
            "words": Out(data.ArrayLayout(unsigned(32), WORDS)), "level": Out(2),
            "take": In(2), "skip": In(1)})

    def elaborate(self, platform):
        m = Module()
        depth, beat_bits = self.config.aux_beats, 8 * self.config.beat_bytes
        size = min(QUAD, beat_bits // 32)       # words of a quad: a beat may have just two
        quads = beat_bits // (32 * size)

        # Beats.
        m.submodules.beats = beats = Ram(beat_bits, depth=depth, style=wide_style(beat_bits))
        held, tail, head = Signal(range(depth + 1)), Signal(range(depth)), Signal(range(depth))
        write, read = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(held != depth), write.eq(self.i.valid & self.i.ready),
            beats.write_en.eq(write), beats.write_addr.eq(tail),
            beats.write_data.eq(self.i.payload),
            beats.read_en.eq(read), beats.read_addr.eq(head)]
        # `read` is known late: it enables what is worked out without it.
        m.d.sync += tail.eq(tail + write)
        with m.If(read ^ write):
            m.d.sync += held.eq(Mux(write, held + 1, held - 1))
        with m.If(read):
            m.d.sync += head.eq(head + 1)

        # The beat that the memory's output holds, and its next quad.
        there, number = Signal(), Signal(range(quads)) if quads > 1 else Const(0)
        shift, accept = Signal(), Signal()
        ends = number == quads - 1
        m.d.comb += read.eq((held != 0) & (~there | (accept & ends)))
        with m.If(read):
            m.d.sync += there.eq(1)
        with m.Elif(accept & ends):
            m.d.sync += there.eq(0)
        if quads > 1:
            with m.If(accept):
                m.d.sync += number.eq(number + 1)

        # Two quads; the first word is word `offset` of the first.  Where a quad has two words, four
        # may have gone at once: `offset` then lies beyond the first quad, which goes before more.
        layout = data.StructLayout({"words": 32 * size, "last": 1})
        quad = [Signal(layout, name=f"quad_{k}", reset_less=True) for k in range(2)]
        valid = [Signal(name=f"valid_{k}") for k in range(2)]
        new = Signal(layout)
        m.d.comb += [
            new.words.eq(beats.read_data.word_select(number, 32 * size)), new.last.eq(ends),
            accept.eq(there & (~valid[0] | ~valid[1] | shift))]
        with m.If(shift | ~valid[0]):
            m.d.sync += [quad[0].eq(Mux(valid[1], quad[1], new)), valid[0].eq(valid[1] | there)]
        with m.If(shift & valid[1] | valid[0] & ~valid[1] & ~shift):
            m.d.sync += [quad[1].eq(new), valid[1].eq(there)]

        offset, dropping = Signal(range(QUAD)), Signal()
        following = Signal(range(QUAD + WORDS))
        m.d.comb += following.eq(_sum(offset, self.take))
        window = Cat(quad[0].words, quad[1].words)
        for k in range(WORDS):
            m.d.comb += self.words[k].eq(
                Cat(window.word_select(start, 32) for start in range(k, k + size)
                    ).word_select(offset[:(size - 1).bit_length()], 32))
        if size == QUAD:
            m.d.comb += shift.eq(following[2])
            m.d.sync += offset.eq(following)
        else:
            beyond = offset[1]
            m.d.comb += shift.eq(following >= size)
            m.d.sync += offset.eq(Mux(beyond, 0, following - Mux(shift, size, 0)))
        with m.If(dropping):
            m.d.comb += shift.eq(valid[0])
            m.d.sync += offset.eq(0)
            with m.If(valid[0] & quad[0].last):
                m.d.sync += dropping.eq(0)
        with m.Elif(valid[1]):
            m.d.comb += self.level.eq(WORDS)
        with m.Elif(valid[0]):
            m.d.comb += self.level.eq(
                Mux(offset == 0, min(WORDS, size), (size - offset)[:2]))
        if size != QUAD:
            with m.If(beyond):
                m.d.comb += self.level.eq(0)

        # Words of the current beat that are gone.
        gone = Signal(range(size * quads))
        total = Signal.like(gone)
        low = Signal(3)
        m.d.comb += [
            low.eq(_sum(Cat(gone, Const(0, 1))[:2], self.take)),
            total.eq(Cat(low[:2], Mux(low[2], gone[2:] + 1, gone[2:])))]
        m.d.sync += gone.eq(Mux(self.skip, 0, total))
        with m.If(self.skip & (total != 0)):
            m.d.sync += dropping.eq(1)
        return m
