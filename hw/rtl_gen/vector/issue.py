# SPDX-License-Identifier: Apache-2.0
"""From instructions to passes, and from passes to words, one a cycle."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import layouts
from ..spec import isa
from ..spec.config import CardConfig
from . import head, norm, passes, statistics
from .quantise import Mode
from .serial import ALONE, Kind, is_kind

#: An instruction under way.
ENTRY = data.StructLayout({"kind": Kind, "token": 2, "signal": isa.COUNTERS})
#: A word under way.
STEP = data.StructLayout({
    "valid": 1, "a": 16, "b": 16, "dst": 16, "read_b": 1, "last": 1, "word": passes.WORD})


class Issue(wiring.Component):
    """Takes instructions in order and issues the words of their passes.

    Second passes go between first ones: those of heads at once, those for statistics when there is
    nothing else.

    Parameters
    ----------
    config : CardConfig
    words, sums, results, kept : int
        Words that may be on their way through the quantiser, to the chain of sums, to the
        scratchpad; that are kept for a second pass.
    interval : int
        Cycles that the shared functions take for a word.

    Members
    -------
    job : ``In(stream.Signature(JOB))``
    entry : ``Out(stream.Signature(ENTRY))``
        Instructions that have started and may overlap.
    idle : ``In(1)``
        None of these is under way.
    alone, alone_job, alone_done, run, running, scalar
        See :class:`Serial`.
    step : ``Out(STEP)``
        A word to be read now.
    word_left, sum_left, result_left : ``In(1)``
        A word has left the quantiser, the chain, for the scratchpad.
    open, free, pending, slice, norm, normed : see :class:`Statistics`
    head, head_again : see :class:`Heads`
    """

    job: stream.Interface
    entry: stream.Interface

    def __init__(self, config: CardConfig, *, words: int, sums: int, results: int, kept: int,
                 interval: int):
        self.config, self.interval = config, interval
        self.words, self.sums, self.results, self.kept = words, sums, results, kept
        super().__init__({
            "job": In(stream.Signature(layouts.JOB)),
            "entry": Out(stream.Signature(ENTRY)), "idle": In(1),
            "alone": Out(1), "alone_job": Out(layouts.JOB), "alone_done": In(1),
            "run": In(1), "running": Out(1), "scalar": In(32),
            "step": Out(STEP), "word_left": In(1), "sum_left": In(1), "result_left": In(1),
            "open": Out(statistics.OPEN), "free": In(1),
            "pending": In(config.tokens), "normed": In(config.tokens),
            "slice": In(stream.Signature(statistics.AGAIN)),
            "norm": Out(norm.NORM),
            "head": Out(stream.Signature(head.HEAD)),
            "head_again": In(stream.Signature(head.AGAIN))})

    def elaborate(self, platform):
        m = Module()
        config = self.config

        # One instruction is at hand.
        held, job = Signal(), Signal(layouts.JOB, reset_less=True)
        leave = Signal()
        m.d.comb += self.job.ready.eq(~held | leave)
        with m.If(self.job.ready):
            m.d.sync += [held.eq(self.job.valid), job.eq(self.job.payload)]
        kind = {name: Signal(name=f"is_{name.lower()}") for name in Kind.__members__}
        m.d.comb += [signal.eq(held & is_kind(job, name)) for name, signal in kind.items()]
        view = {name: layouts.view(name, job.word) for name in Kind.__members__}
        quant = view["QUANT"]

        # The pass that is next, and the one whose words are being issued.
        first = {name: Signal(passes.PASS, name=name)
                 for name in ("vector", "quant", "cache", "total", "power")}
        passes.vector(m, first["vector"], job, self.scalar)
        passes.quantise(m, first["quant"], job)
        passes.measure(m, first["cache"], job, config)
        second = {name: Signal(passes.PASS, name=name) for name in ("head_again", "slice_again")}
        passes.round_head(m, second["head_again"], self.head_again.p, config)
        passes.square(m, second["slice_again"], self.slice.p)
        for kind_of in (statistics.Sum.TOTAL, statistics.Sum.POWER):
            passes.add_up(m, first[kind_of.name.lower()], job, kind_of, config)
        passes.head_of(m, self.head.p, job)

        # All of a slice's words must fit where they are kept: they leave only by another pass.  A
        # norm's sums are read long before those of a slice behind it come.
        kept = Signal(range(self.kept + 1), init=self.kept)
        ready_for_slice = self.free & (kept >= quant.words)
        vectors, halfway = view["NORM"], Signal()
        ready_for_norm = (self.entry.ready & ~self.pending.bit_select(vectors.token, 1)
                          & ~self.normed.bit_select(vectors.token, 1))
        starts = {
            "vector": self.run,
            "quant": kind["QUANT"] & self.entry.ready & (~quant.stats | ready_for_slice),
            "cache": kind["CACHE"] & self.entry.ready & self.head.ready,
            "total": kind["NORM"] & ready_for_norm & ~halfway,
            "power": kind["NORM"] & halfway,
        }
        upcoming, current = Signal(passes.PASS), Signal(passes.PASS)
        loaded, active, move, room = Signal(), Signal(), Signal(), Signal()
        chosen = {name: Signal(name=f"chose_{name}") for name in (*first, *second)}
        m.d.comb += room.eq(~loaded | move)
        with m.If(move):
            m.d.sync += loaded.eq(0)
        with m.If(room):
            with m.If(self.head_again.valid):
                m.d.comb += chosen["head_again"].eq(1)
            for name in first:
                with m.Elif(starts[name]):
                    m.d.comb += chosen[name].eq(1)
            with m.Elif(self.slice.valid):
                m.d.comb += chosen["slice_again"].eq(1)
        for name, candidate in (first | second).items():
            with m.If(chosen[name]):
                m.d.sync += [upcoming.eq(candidate), loaded.eq(1)]
        m.d.comb += [
            self.running.eq(chosen["vector"]),
            self.head_again.ready.eq(chosen["head_again"]),
            self.slice.ready.eq(chosen["slice_again"]),
            self.head.valid.eq(chosen["cache"])]
        passes.assign(m, self.open, valid=chosen["quant"] & quant.stats, token=quant.token,
                      word=quant.word, words=quant.words)
        with m.If(chosen["total"] | chosen["power"]):
            m.d.sync += halfway.eq(chosen["total"])

        # An instruction leaves when its passes have been chosen, or somebody else has taken it.
        passes.assign(m, self.norm, valid=chosen["total"], token=vectors.token, set=vectors.set,
                      inv=vectors.inv, eps=vectors.eps)
        m.d.comb += [
            self.alone.eq(
                (kind["VECTOR"] | kind["SCALAR"] | kind["SAMPLE"]) & self.idle
                & ~self.pending.any()),
            self.alone_job.eq(job),
            self.entry.valid.eq(
                chosen["quant"] | chosen["cache"] | chosen["power"]),
            leave.eq(self.entry.valid | self.alone_done)]
        passes.assign(m, self.entry.p, signal=view["NORM"].signal, token=vectors.token)
        for name in Kind.__members__:
            if name not in ALONE:
                with m.If(kind[name]):
                    m.d.comb += self.entry.p.kind.eq(Kind[name])

        # Words are issued while whoever takes them has room.
        used = current.word
        ring = used.quantise & (used.how.mode != Mode.MEASURE)
        go, last = Signal(), Signal()
        leaves = []
        for name, limit, wanted, left in (
                ("words", self.words, ring, self.word_left),
                ("sums", self.sums, used.tree & used.add, self.sum_left),
                ("results", self.results, used.write, self.result_left)):
            count = Signal(range(limit + 1), init=limit, name=f"room_for_{name}")
            m.d.sync += count.eq(count - (go & wanted) + left)
            leaves.append(~wanted | (count != 0))
        # Functions take a word in several cycles.
        busy = Signal(range(max(2, self.interval)))
        with m.If(go & used.function):
            m.d.sync += busy.eq(self.interval - 1)
        with m.Elif(busy != 0):
            m.d.sync += busy.eq(busy - 1)
        leaves.append(~used.function | (busy == 0))
        # A slice of one word is written where it is kept a cycle after it was read: so late it is
        # read again.
        hold = Signal()
        leaves.append(~hold)
        m.d.comb += [
            go.eq(active & Cat(leaves).all()), last.eq(current.words == 1),
            move.eq(loaded & (~active | (go & last)))]
        m.d.sync += kept.eq(
            kept + (go & used.replay) - Mux(self.open.valid, quant.words, 0))
        start = Signal()
        with m.If(go):
            m.d.sync += [
                start.eq(0), current.words.eq(current.words - 1), current.a.eq(current.a + 1),
                current.b.eq(current.b + 1), current.dst.eq(current.dst + 1)]
            with m.If(last):
                m.d.sync += active.eq(0)
        m.d.sync += hold.eq(0)
        with m.If(move):
            m.d.sync += [
                active.eq(1), current.eq(upcoming), start.eq(1),
                hold.eq(go & used.keep & upcoming.word.replay & (upcoming.words == 1))]
        passes.assign(
            m, self.step, a=current.a, b=current.b, dst=current.dst, read_b=current.read_b,
            last=last, word=used)
        m.d.comb += [
            self.step.valid.eq(go), self.step.word.op.valid.eq(go),
            self.step.word.op.first.eq(start)]
        return m
