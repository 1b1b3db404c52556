# SPDX-License-Identifier: Apache-2.0
"""From scores to quantised probabilities: softmax, the scales of V, one slice a block."""

from amaranth import Array, Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import Queue, layouts
from ..emit import Leaf
from ..fp32 import Mul, Pipe
from ..softmax import Softmax
from ..spec.config import CardConfig
from ..spec.isa import COUNTERS, SUMS
from ..vector import SliceQuantiser
from ..vector.scales import read_port

#: Instructions on their way.
JOBS = 8
#: Words between the scales and the quantiser: those on their way, and some.
PRODUCTS = 12

#: What the stages need of an instruction.
ABOUT = data.StructLayout({
    "digits": 1, "two_beat": 1, "exponent": signed(8), "dst": 16, "stride": 16,
    "scale": 16, "scale_stride": 7, "words": 12, "columns": 3, "result": range(SUMS),
    "signal": COUNTERS})


def results_layout(config: CardConfig) -> data.ArrayLayout:
    """1/sum, by result and token."""
    return data.ArrayLayout(data.ArrayLayout(unsigned(32), config.tokens), SUMS)


def _log2(value: int) -> int:
    return value.bit_length() - 1


class ProbPath(wiring.Component):
    """Softmax of scores, times the scales of V, quantised into the planes.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    job : ``In(stream.Signature(layouts.JOB))``
        A MATMUL to softmax; before its scores.
    scores : ``In(stream.Signature(layouts.word(config)))``
        Its rows in order, token by token.
    v_read : ``Out(scales.read_port(config))``
        Scales of V.
    planes : ``Out(stream.Signature(layouts.plane_write(config)))``
        Token after token, all blocks of the rows.
    results : ``Out(results_layout(config))``
        1/sum of the softmax results.
    pending : ``Out(8)``
        A result is still to come.
    done : ``Out(layouts.DONE)``
        The probabilities are in the planes.  Sums that come later are waited for by the epilogue.
    nonfinite, range : ``Out(1)``
        For a cycle: a sticky bit is to be set.
    """

    job: stream.Interface
    scores: stream.Interface
    planes: stream.Interface

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__({
            "job": In(stream.Signature(layouts.JOB)),
            "scores": In(stream.Signature(layouts.word(config))),
            "v_read": Out(read_port(config)),
            "planes": Out(stream.Signature(layouts.plane_write(config))),
            "results": Out(results_layout(config)), "pending": Out(SUMS),
            "done": Out(layouts.DONE), "nonfinite": Out(1), "range": Out(1)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        lanes, tokens = config.vector_lanes, config.tokens
        parts = config.beat_bytes // lanes
        pipe = Pipe(m)
        number = range(JOBS)

        # ---- Instructions: a table, in which the stages look up what they need by number. ----
        m.submodules.table = table = memory.Memory(shape=ABOUT, depth=JOBS, init=[])
        enter = table.write_port()
        at_scale, at_plane, at_total = (table.read_port(domain="comb") for _ in range(3))
        m.submodules.softmax = softmax = Softmax(
            lanes=lanes, words=config.context // lanes, tokens=tokens, tag=number)
        m.submodules.headers = headers = Queue(softmax.header.payload.shape(), depth=JOBS)
        word = layouts.view("MATMUL", self.job.p.word)
        room, entry = Signal(range(JOBS + 1), init=JOBS), Signal(number)
        accept, retire = Signal(), Signal()
        scores = self.job.p.rows * lanes
        m.d.comb += [
            self.job.ready.eq(room != 0), accept.eq(self.job.valid & self.job.ready),
            enter.en.eq(accept), enter.addr.eq(entry),
            enter.data.digits.eq(word.digits), enter.data.two_beat.eq(word.two_beat),
            enter.data.exponent.eq(word.exponent), enter.data.dst.eq(word.dst),
            enter.data.stride.eq(word.dst_stride),
            enter.data.scale.eq(word.kv_base + word.head),
            enter.data.scale_stride.eq(word.kv_heads), enter.data.words.eq(self.job.p.rows),
            enter.data.columns.eq(word.columns), enter.data.result.eq(word.dest - 1),
            enter.data.signal.eq(word.signal),
            headers.i.valid.eq(accept), headers.i.p.words.eq(self.job.p.rows),
            headers.i.p.length.eq(Mux(self.job.p.len > scores, scores, self.job.p.len)),
            headers.i.p.rows.eq(word.columns), headers.i.p.tag.eq(entry)]
        m.d.sync += [room.eq(room - accept + retire), entry.eq(entry + accept)]
        connect(m, headers.o, softmax.header)
        connect(m, flipped(self.scores), softmax.i)

        # ---- Times the scales of V, and filled up to whole blocks. ----
        tag = data.StructLayout({"entry": number, "row": 2, "first": 1, "last": 1})
        m.submodules.quantiser = quantiser = SliceQuantiser(
            lanes=lanes, depth=parts, tag=tag, passes=False)
        m.submodules.products = products = Queue(quantiser.i.payload.shape(), depth=PRODUCTS)
        places = Signal(range(PRODUCTS + 1), init=PRODUCTS)
        numerators, about = softmax.o, at_scale.data
        padding, fresh = Signal(), Signal(init=1)
        part, index, scale = Signal(range(max(2, parts))), Signal(12), Signal(16)
        # What the row is of, while its last block is filled up.
        of = Signal(data.StructLayout({"entry": number, "row": 2}))
        kept = Signal.like(of)
        step, block_ends, row_ends = Signal(), Signal(), Signal()
        with m.If(padding):
            m.d.comb += of.eq(kept)
        with m.Else():
            m.d.comb += [of.entry.eq(numerators.p.tag), of.row.eq(numerators.p.row)]
        m.d.comb += [
            at_scale.addr.eq(of.entry),
            step.eq((padding | numerators.valid) & (places != 0)),
            numerators.ready.eq(step & ~padding),
            block_ends.eq(part == parts - 1),
            row_ends.eq(block_ends & (padding | numerators.p.last)),
            self.v_read.en.eq(step & ~padding),
            self.v_read.addr.eq(Mux(fresh, about.scale, scale))]
        with m.If(step):
            m.d.sync += [
                kept.eq(of), fresh.eq(row_ends), scale.eq(self.v_read.addr + about.scale_stride),
                part.eq(Mux(block_ends, 0, part + 1)), index.eq(Mux(row_ends, 0, index + 1)),
                padding.eq((padding | numerators.p.last) & ~block_ends)]

        given = Signal(quantiser.i.payload.shape())
        last_block = (index >> _log2(parts)) == ((about.words - 1) >> _log2(parts))
        m.d.comb += [
            given.mask.eq(Mux(padding, (1 << lanes) - 1, numerators.p.mask)),
            given.last.eq(block_ends), given.digits.eq(about.digits),
            given.base.eq(about.exponent), given.tag.entry.eq(of.entry), given.tag.row.eq(of.row),
            given.tag.first.eq((index >> _log2(parts)) == 0),
            given.tag.last.eq(last_block & (of.row == about.columns - 1))]
        step_1 = pipe(step, "step", reset_less=False)
        p_1 = pipe(numerators.p.p, "p")
        late = Signal.like(given)
        m.d.comb += late.eq(pipe.delay(given.as_value(), 1 + Mul.LATENCY, "given"))
        m.d.comb += [
            products.i.valid.eq(pipe.delay(step_1, Mul.LATENCY, "product", reset_less=False)),
            products.i.payload.eq(late)]
        for k in range(lanes):
            m.submodules[f"scale_{k}"] = mul = Leaf(Mul())
            m.d.comb += [
                mul.en.eq(1), mul.a.eq(p_1[k]), mul.b.eq(Cat(Const(0, 16), self.v_read.data[k])),
                products.i.p.data[k].eq(mul.o)]
        connect(m, products.o, quantiser.i)
        m.d.sync += places.eq(places - step + (products.o.valid & products.o.ready))

        # ---- Into the planes. ----
        words, about = quantiser.o, at_plane.data
        block, base, plane_part = Signal(16), Signal(16), Signal(range(max(2, parts)))
        # Where the first block of a row goes: a stride beyond that of the row before.
        first, starts = Signal(16), Signal()
        m.d.comb += [
            at_plane.addr.eq(words.p.tag.entry),
            starts.eq(words.p.tag.first & (plane_part == 0)),
            first.eq(Mux(words.p.tag.row == 0, about.dst, base + about.stride)),
            self.planes.valid.eq(words.valid), words.ready.eq(self.planes.ready),
            self.planes.p.block.eq(Mux(starts, first, block)), self.planes.p.part.eq(plane_part),
            self.planes.p.low.eq(words.p.low), self.planes.p.high.eq(words.p.high),
            self.planes.p.exponent.eq(words.p.exponent), self.planes.p.digits.eq(about.digits),
            self.planes.p.two_beat.eq(about.two_beat), self.planes.p.token.eq(words.p.tag.row)]
        stored = Signal()
        m.d.comb += stored.eq(words.valid & words.ready)
        with m.If(stored):
            m.d.sync += [
                plane_part.eq(Mux(words.p.last, 0, plane_part + 1)),
                block.eq(self.planes.p.block + words.p.last)]
            with m.If(starts):
                m.d.sync += base.eq(first)
        complete = stored & words.p.last & words.p.tag.last
        m.d.sync += [self.done.valid.eq(complete), self.done.signal.eq(about.signal)]

        # ---- 1/sum.  An instruction leaves the table when both ways have ended. ----
        total, about = softmax.total, at_total.data
        summed = Signal()
        m.d.comb += [
            total.ready.eq(1), at_total.addr.eq(total.p.tag),
            summed.eq(total.valid & (total.p.row == about.columns - 1))]
        result = Array(Array(self.results[k][t] for t in range(tokens)) for k in range(SUMS))
        with m.If(total.valid):
            m.d.sync += result[about.result][total.p.row].eq(total.p.value)
        planes_done, sums_done = Signal(range(JOBS + 1)), Signal(range(JOBS + 1))
        m.d.comb += retire.eq((planes_done != 0) & (sums_done != 0))
        m.d.sync += [
            planes_done.eq(planes_done + complete - retire),
            sums_done.eq(sums_done + summed - retire)]
        for k in range(SUMS):
            count = Signal(range(JOBS + 1), name=f"pending_{k}")
            m.d.comb += self.pending[k].eq(count != 0)
            m.d.sync += count.eq(count + (accept & (enter.data.result == k))
                                 - (summed & (about.result == k)))

        m.d.sync += [
            self.nonfinite.eq(softmax.nonfinite | quantiser.nonfinite),
            self.range.eq(quantiser.range)]
        return m
