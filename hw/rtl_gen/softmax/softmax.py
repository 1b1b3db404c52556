# SPDX-License-Identifier: Apache-2.0
"""Softmax of rows of scores, word by word."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import Queue, Ram
from ..emit import Leaf
from ..fp32 import MaxTree, Pipe
from .lane import SoftmaxLane
from .maxima import Maxima, number
from .totals import SUMS, Totals

#: Headers whose words are in the unit.
HEADERS = 16
#: Words of numerators between the ring and the consumer: those on their way, and some.
RESULTS = 32


def header_layout(*, lanes: int, words: int, tokens: int, tag) -> data.StructLayout:
    """What is said of some rows before their words come."""
    return data.StructLayout({
        "length": range(lanes * words + 1),     # valid scores of the first row
        "words": range(words + 1),              # of each row
        "rows": range(tokens + 1), "tag": tag})


class Softmax(wiring.Component):
    """Numerators ``exp(s - max s)`` and the reciprocal of their sum, a word every cycle.

    Scores wait in a ring until their maximum is known; those that follow come in meanwhile.

    Parameters
    ----------
    lanes : int
        Scores of a word, a power of two.
    words : int
        Words of the longest row, a power of two.
    tokens : int
        Rows that may come together.
    tag : shape
        What goes from a header to its results.

    Members
    -------
    header : ``In(stream.Signature({length, words, rows, tag}))``
        So many rows follow together, of so many words: rows of ``length``, ``length`` + 1 …
        valid scores, at least 1, whatever their words hold beyond.
    i : ``In(stream.Signature(ArrayLayout(32, lanes)))``
        The first word of each row, then the second of each, and so on.
    o : ``Out(stream.Signature({p, mask, last, row, tag}))``
        Numerators, row after row, as many words as came in.  Those beyond the length are +0 and
        have their bit of ``mask`` set; ``last`` ends a row.
    total : ``Out(stream.Signature({value, row, tag}))``
        The reciprocal of the sum of each row, in their order.
    nonfinite : ``Out(1)``
        For a cycle: an infinity or NaN was read or made, unmasked.
    """

    header: stream.Interface
    i: stream.Interface
    o: stream.Interface
    total: stream.Interface

    def __init__(self, *, lanes: int, words: int, tokens: int, tag) -> None:
        if lanes < 1 or lanes & lanes - 1:
            raise ValueError(f"lanes must be a power of two, not {lanes!r}")
        if words < 2 or words & words - 1:
            raise ValueError(f"words must be a power of two from 2 up, not {words!r}")
        if tokens < 1:
            raise ValueError(f"tokens must be at least 1, not {tokens!r}")
        self.lanes, self.words, self.tokens, self.tag = lanes, words, tokens, tag
        word = data.ArrayLayout(32, lanes)
        super().__init__({
            "header": In(stream.Signature(
                header_layout(lanes=lanes, words=words, tokens=tokens, tag=tag))),
            "i": In(stream.Signature(word)),
            "o": Out(stream.Signature(data.StructLayout({
                "p": word, "mask": lanes, "last": 1, "row": number(tokens), "tag": tag}))),
            "total": Out(stream.Signature(data.StructLayout({
                "value": 32, "row": number(tokens), "tag": tag}))),
            "nonfinite": Out(1)})

    @property
    def LATENCY(self) -> int:
        """Cycles from the last word of a row to its first numerators, if nothing is before it."""
        return 2 + MaxTree.latency(self.lanes) + 2 + 1 + SoftmaxLane.LATENCY + 2

    @property
    def ring(self) -> int:
        """Words of scores that fit: those of the longest rows of two headers."""
        return 1 << (2 * self.tokens * self.words - 1).bit_length()

    def _valid(self, left):
        """How many scores of a word are valid if ``left`` are from its first on."""
        return Mux(left < 0, 0, Mux(left > self.lanes, self.lanes, left))

    def elaborate(self, platform):
        m = Module()
        lanes, tokens, ring = self.lanes, self.tokens, self.ring
        pipe = Pipe(m)
        count = signed((lanes * self.words + tokens).bit_length() + 1)

        # ---- Words come in, row by row within a word. ----
        about = self.header.p
        used, headers = Signal(range(ring + 1)), Signal(range(HEADERS + 1))
        take, freed, finished = Signal(), Signal(range(tokens + 1)), Signal()
        word, row = Signal(range(self.words)), Signal(number(tokens))
        past = Signal(count)                # scores of each row that came before
        last_row, last_word, ends = Signal(), Signal(), Signal()
        m.submodules.jobs = jobs = Queue(about.shape(), depth=HEADERS)
        m.d.comb += [
            self.i.ready.eq(self.header.valid & (used != ring) & (headers != HEADERS)),
            take.eq(self.i.valid & self.i.ready),
            last_row.eq(row == about.rows - 1), last_word.eq(word == about.words - 1),
            ends.eq(take & last_row & last_word),
            self.header.ready.eq(ends),
            jobs.i.valid.eq(ends), jobs.i.payload.eq(about)]
        m.d.sync += [
            used.eq(used + take - freed), headers.eq(headers + ends - finished)]
        with m.If(take):
            m.d.sync += row.eq(row + 1)
            with m.If(last_row):
                m.d.sync += [row.eq(0), word.eq(word + 1), past.eq(past + lanes)]
        with m.If(ends):
            m.d.sync += [word.eq(0), past.eq(0)]

        # They are stored, and the rows' maxima found.
        m.submodules.scores = scores = Ram(data.ArrayLayout(32, lanes), depth=ring)
        m.submodules.maxima = maxima = Maxima(lanes=lanes, tokens=tokens)
        m.submodules.found = found = Queue(32, depth=HEADERS * tokens)
        stored, write = maxima.i, Signal(range(ring))
        m.d.comb += [
            stored.valid.eq(pipe(take, "stored", reset_less=False)),
            stored.scores.eq(pipe(self.i.payload, "word_scores")),
            stored.left.eq(pipe(self._valid(about.length + row - past), "word_left")),
            stored.token.eq(pipe(row, "word_row")), stored.first.eq(pipe(word == 0, "word_first")),
            stored.last.eq(pipe(last_word, "word_last")),
            scores.write_en.eq(stored.valid), scores.write_addr.eq(write),
            scores.write_data.eq(stored.scores),
            found.i.valid.eq(maxima.o.valid), found.i.payload.eq(maxima.o.value)]
        m.d.sync += write.eq(write + stored.valid)

        # ---- A row whose maximum is known is read, word by word. ----
        job, give = jobs.o.payload, Signal()
        out_word, out_row = Signal(range(self.words)), Signal(number(tokens))
        out_past = Signal(count)
        base, address = Signal(range(ring)), Signal(range(ring))    # of the header, of the word
        row_ends, last_out = Signal(), Signal()
        m.submodules.totals = totals = Totals(
            lanes=lanes, words=self.words,
            tag=data.StructLayout({"row": number(tokens), "tag": self.tag}))
        m.submodules.results = results = Queue(self.o.payload.shape(), depth=RESULTS)
        room = Signal(range(RESULTS + 1), init=RESULTS)
        adding, sums = Signal(range(totals.WORDS + 1)), Signal(range(SUMS + 1))
        m.d.comb += [
            give.eq(jobs.o.valid & found.o.valid & (room != 0) & (adding != totals.WORDS)
                    & (sums != SUMS)),
            row_ends.eq(give & (out_word == job.words - 1)),
            last_out.eq(out_row == job.rows - 1), finished.eq(row_ends & last_out),
            found.o.ready.eq(row_ends), jobs.o.ready.eq(finished),
            # With the word of the last row, those of the others are free too.
            freed.eq(Mux(give & last_out, job.rows, 0)),
            scores.read_en.eq(give), scores.read_addr.eq(address)]
        m.d.sync += [
            room.eq(room - give + (self.o.valid & self.o.ready)),
            adding.eq(adding + give - totals.taken),
            sums.eq(sums + row_ends - (self.total.valid & self.total.ready))]
        with m.If(give):
            m.d.sync += [
                out_word.eq(out_word + 1), out_past.eq(out_past + lanes),
                address.eq(address + job.rows)]
        with m.If(row_ends):
            m.d.sync += [
                out_word.eq(0), out_past.eq(0), out_row.eq(out_row + 1),
                address.eq(base + out_row + 1)]
        with m.If(finished):
            m.d.sync += [out_row.eq(0), base.eq(address + 1), address.eq(address + 1)]

        # ---- Numerators, to the consumer and to the sums. ----
        valid = pipe(give, "given", reset_less=False)
        maximum = pipe(found.o.payload, "maximum")
        left = pipe(self._valid(job.length + out_row - out_past), "left")
        last = pipe(row_ends, "row_ends")
        tag = Signal(totals.tag)
        m.d.comb += [tag.row.eq(out_row), tag.tag.eq(job.tag)]
        flags = []
        late = SoftmaxLane.LATENCY
        p, mask = results.i.p.p, results.i.p.mask
        left_late = pipe.delay(left, late, "left")
        for k in range(lanes):
            m.submodules[f"lane_{k}"] = lane = Leaf(SoftmaxLane())
            m.d.comb += [
                lane.score.eq(scores.read_data[k]), lane.maximum.eq(maximum),
                lane.masked.eq(k >= left), p[k].eq(lane.o), mask[k].eq(k >= left_late)]
            flags.append(lane.nonfinite)
        valid_late = pipe.delay(valid, late, "valid", reset_less=False)
        last_late = pipe.delay(last, late, "last")
        tag_late = Signal(totals.tag)
        m.d.comb += [
            tag_late.eq(pipe.delay(tag.as_value(), late + 1, "tag")),
            results.i.valid.eq(valid_late), results.i.p.last.eq(last_late),
            results.i.p.row.eq(tag_late.row), results.i.p.tag.eq(tag_late.tag),
            totals.i.valid.eq(valid_late), totals.i.p.eq(p), totals.i.last.eq(last_late),
            totals.i.tag.eq(tag_late),
            self.total.valid.eq(totals.o.valid), totals.o.ready.eq(self.total.ready),
            self.total.p.value.eq(totals.o.p.value), self.total.p.row.eq(totals.o.p.tag.row),
            self.total.p.tag.eq(totals.o.p.tag.tag)]
        connect(m, results.o, flipped(self.o))
        seen = Signal(lanes)
        m.d.comb += seen.eq(Cat(flags))
        m.d.sync += self.nonfinite.eq(valid_late & seen.any())
        return m
