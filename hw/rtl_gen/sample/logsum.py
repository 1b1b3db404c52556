# SPDX-License-Identifier: Apache-2.0
"""Running maximum m and sum s of exp(x - m) over words of logits, of several columns."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Queue
from ..emit import Leaf
from ..fp32 import Add, AddUnsigned, Exp, Max, MaxTree, Mul, Pipe, UnsignedTree
from ..fp32.bits import let, nonfinite
from ..softmax.maxima import number

_MINUS_INFINITY = 0xFF80_0000


class LogSumExp(wiring.Component):
    """Log-sum-exp over words, as docs/numerics.md defines it, of columns in any order.

    A word's exponentials share ``width`` exp units: a row of logits takes the memory longer to
    bring than this needs.  Their sums wait in a queue, each until the one before it of its column
    is in the running sum.  Where the maximum has not changed, the factor is exactly 1 and the
    running sum need not be multiplied: that is nearly everywhere, and in a ring, where every card
    looks through the logits of all, the multiplication would be what everything waits for.

    Parameters
    ----------
    lanes : int
        Logits of a word.
    width : int
        exp units; divides ``lanes``.
    columns : int

    Members
    -------
    clear : ``In(1)``
        The next word of each column is its first.
    i : ``In(stream.Signature({logits: lanes x 32, valid: lanes, column: number}))``
        A word with at least one valid lane; one every :attr:`TURNS` cycles, and of a column every
        :attr:`INTERVAL` in the long run, :attr:`STEP` + 1 where its maximum changes.
    busy : ``Out(1)``
        The last word is not in its sum yet.
    shown : ``In(number)``, maximum, sum : ``Out(32)``
        Those of a column.
    nonfinite : ``Out(1)``
        For a cycle: a maximum or a sum became infinite or NaN.
    """

    leaf_name = "log_sum_exp"
    #: Cycles of one step of a running sum.
    STEP = Mul.LATENCY + AddUnsigned.LATENCY
    #: Words under way, which all find room in the queue: a word takes up to 51 cycles, and one may
    #: come every two, or every three where it has two parts.
    WORDS = 32

    def __init__(self, *, lanes: int, width: int, columns: int):
        if width < 1 or lanes % width:
            raise ValueError(f"width must divide {lanes}, not be {width!r}")
        self.lanes, self.width, self.columns = lanes, width, columns
        super().__init__({
            "clear": In(1),
            "i": In(stream.Signature(data.StructLayout({
                "logits": data.ArrayLayout(32, lanes), "valid": lanes,
                "column": number(columns)}))),
            "busy": Out(1), "shown": In(number(columns)), "maximum": Out(32), "sum": Out(32),
            "nonfinite": Out(1)})

    @property
    def TURNS(self) -> int:
        """Cycles of the exp units for a word: its parts, and the change of its maximum."""
        return self.lanes // self.width + 1

    @property
    def INTERVAL(self) -> int:
        """Cycles from word to word of one column whose maximum stays."""
        return max(self.TURNS, AddUnsigned.LATENCY + 1)

    def elaborate(self, platform):
        m = Module()
        pipe, parts = Pipe(m), self.lanes // self.width

        def flag(value, cycles, name):
            return pipe.delay(let(m, value, name), cycles, name, reset_less=False)

        def later(value, cycles, name):
            return pipe.delay(let(m, value, name), cycles, name)

        # Every step up to a word's sum is a fixed time after the word was taken.
        columns = range(self.columns)
        gap, flying = Signal(range(self.TURNS)), Signal(range(self.WORDS + 1))
        fresh = Array(Signal(name=f"fresh_{c}", init=1) for c in columns)
        column, start = self.i.p.column, Signal()
        m.d.comb += [self.i.ready.eq((gap == 0) & (flying != self.WORDS)),
                     start.eq(self.i.valid & self.i.ready)]
        with m.If(gap != 0):
            m.d.sync += gap.eq(gap - 1)
        with m.If(start):
            m.d.sync += [gap.eq(self.TURNS - 1), fresh[column].eq(0)]
        with m.Elif(self.clear):
            m.d.sync += [one.eq(1) for one in fresh]

        # The maximum of the word, then of the row up to it.
        m.submodules.top = top = Leaf(MaxTree(self.lanes))
        m.submodules.larger = larger = Leaf(Max())
        maxima = Array(Signal(32, name=f"maximum_{c}", reset_less=True) for c in columns)
        m.d.comb += [top.i[k].eq(Mux(self.i.p.valid[k], self.i.p.logits[k], _MINUS_INFINITY))
                     for k in range(self.lanes)]
        deep = top.component.LATENCY + Max.LATENCY
        compared = later(column, top.component.LATENCY, "compared")
        m.d.comb += [top.en.eq(1), larger.en.eq(1), larger.a.eq(maxima[compared]),
                     larger.b.eq(top.o)]
        feed = flag(start, deep, "feed")
        first = later(fresh[column], deep, "first")
        fed = pipe(compared, "fed")
        maximum = let(m, Mux(first, later(top.o, Max.LATENCY, "own"), larger.o), "maximum_now")
        m.submodules.words = words = Queue(self.i.p.shape(), depth=deep + 2)
        m.d.comb += [words.i.payload.eq(self.i.p), words.i.valid.eq(start), words.o.ready.eq(feed)]

        # Its exponentials, part by part, and that of the change of the maximum on the first unit.
        word = Signal.like(self.i.p, reset_less=True)
        before, now = Signal(32, reset_less=True), Signal(32, reset_less=True)
        part, feeding, row_start = Signal(range(parts + 1)), Signal(), Signal(reset_less=True)
        changes = Signal(reset_less=True)
        with m.If(feed):
            m.d.sync += [word.eq(words.o.payload), before.eq(maxima[fed]), now.eq(maximum),
                         maxima[fed].eq(maximum), part.eq(0), feeding.eq(1), row_start.eq(first),
                         # (Of an infinite maximum the sum has been no number from its word on.)
                         changes.eq(maximum != maxima[fed])]
        with m.Elif(part == parts):
            m.d.sync += feeding.eq(0)
        with m.Else():
            m.d.sync += part.eq(part + 1)
        turn = let(m, part == parts, "turn")
        logits = Array(Cat(*(word.logits[p * self.width + k] for k in range(self.width)))
                       for p in range(parts))
        masks = Array(word.valid[p * self.width:(p + 1) * self.width] for p in range(parts))
        exps = []
        for k in range(self.width):
            m.submodules[f"sub_{k}"] = sub = Leaf(Add())
            m.submodules[f"exp_{k}"] = exp = Leaf(Exp())
            value = logits[part].word_select(k, 32)
            m.d.comb += [sub.en.eq(1), sub.a.eq(Mux(turn, before, value) if k == 0 else value),
                         sub.b.eq(now ^ (1 << 31)), exp.en.eq(1), exp.a.eq(sub.o)]
            exps.append(exp)
        m.submodules.low = low = Leaf(UnsignedTree(self.width))
        mask = later(masks[part], Add.LATENCY + Exp.LATENCY, "mask")
        m.d.comb += low.en.eq(1)
        m.d.comb += [low.i[k].eq(Mux(mask[k], exps[k].o, 0)) for k in range(self.width)]

        # The parts' sums are leaves of the word's tree; the last part completes it.
        run = Add.LATENCY + Exp.LATENCY + low.component.LATENCY
        arrived = flag(feeding & ~turn, run, "arrived")
        last_part = let(m, feeding & (part == parts - 1), "last_part")
        sums = Signal(data.ArrayLayout(32, parts), reset_less=True)
        with m.If(arrived):
            m.d.sync += sums.eq(Cat(sums, low.o)[32:] if parts > 1 else low.o)
        tail, total = 1, sums[0]
        if parts > 1:
            m.submodules.high = high = Leaf(UnsignedTree(parts))
            m.d.comb += high.en.eq(1)
            m.d.comb += [high.i[p].eq(sums[p]) for p in range(parts)]
            tail, total = 1 + high.component.LATENCY, high.o

        # The factor left its unit earlier than the total, and waits for it.
        m.submodules.totals = totals = Queue(data.StructLayout({
            "total": 32, "factor": 32, "column": number(self.columns), "begins": 1,
            "changes": 1}), depth=self.WORDS)
        m.d.comb += [
            totals.i.valid.eq(flag(last_part, run + tail, "summed")),
            totals.i.p.total.eq(total),
            totals.i.p.factor.eq(later(exps[0].o, low.component.LATENCY + tail - 1, "factor")),
            totals.i.p.column.eq(later(word.column, run + tail, "of")),
            totals.i.p.begins.eq(later(row_start, run + tail, "begins")),
            totals.i.p.changes.eq(later(changes, run + tail, "changed"))]

        # s = s * factor + total, or s + total.  `rest`: until the running sum is there.
        m.submodules.scale = scale = Leaf(Mul())
        m.submodules.add = add = Leaf(AddUnsigned())
        running = Array(Signal(32, name=f"sum_{c}", reset_less=True) for c in columns)
        rest = Array(Signal(range(self.STEP + 1), name=f"rest_{c}") for c in columns)
        head, go = totals.o.p, Signal()
        m.d.comb += [
            totals.o.ready.eq(rest[head.column] <= Mux(head.changes, 0, Mul.LATENCY)),
            go.eq(totals.o.valid & totals.o.ready)]
        for count in rest:
            with m.If(count != 0):
                m.d.sync += count.eq(count - 1)
        with m.If(go):
            m.d.sync += rest[head.column].eq(self.STEP)
        summing = later(head.column, Mul.LATENCY, "summing")
        own = let(m, later(head.total, Mul.LATENCY, "total"), "own_total")
        m.d.comb += [
            scale.en.eq(1), scale.a.eq(running[head.column]), scale.b.eq(head.factor),
            add.en.eq(1), add.b.eq(own),
            add.a.eq(Mux(later(head.changes, Mul.LATENCY, "scaled"), scale.o, running[summing]))]
        complete = flag(go, self.STEP, "complete")
        alone = later(own, AddUnsigned.LATENCY, "alone")
        result = let(m, Mux(later(head.begins, self.STEP, "begun"), alone, add.o), "result")
        completed = later(summing, AddUnsigned.LATENCY, "completed")
        with m.If(complete):
            m.d.sync += running[completed].eq(result)
        m.d.comb += [self.maximum.eq(maxima[self.shown]), self.sum.eq(running[self.shown])]

        check = flag(complete, 1, "check")
        m.d.sync += self.nonfinite.eq(
            (feed & nonfinite(maximum)) | (complete & nonfinite(result)))
        m.d.sync += flying.eq(flying + start - check)
        m.d.comb += self.busy.eq(flying != 0)
        return m
