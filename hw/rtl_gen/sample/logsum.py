# SPDX-License-Identifier: Apache-2.0
"""Running maximum m and sum s of exp(x - m) over words of logits."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Queue
from ..emit import Leaf
from ..fp32 import Add, Exp, Max, MaxTree, Mul, Tree
from ..fp32.bits import nonfinite

_MINUS_INFINITY = 0xFF80_0000


class LogSumExp(wiring.Component):
    """Log-sum-exp over words, as docs/numerics.md defines it.

    A word's exponentials share ``width`` exp units, because a row of logits takes the memory longer
    to bring than this needs.

    Parameters
    ----------
    lanes : int
        Logits of a word.
    width : int
        exp units; divides ``lanes``.

    Members
    -------
    clear : ``In(1)``
        The next word is the first.
    i : ``In(stream.Signature({logits: lanes x 32, valid: lanes}))``
        A word with at least one valid lane; one every :attr:`interval` cycles.
    busy : ``Out(1)``
        The last word is not in the sum yet.
    maximum, sum : ``Out(32)``
    nonfinite : ``Out(1)``
        For a cycle: the maximum or the sum became infinite or NaN.
    """

    leaf_name = "log_sum_exp"

    def __init__(self, *, lanes: int, width: int):
        if width < 2 or lanes % width:
            raise ValueError(f"width must be at least 2 and divide {lanes}, not {width!r}")
        self.lanes, self.width = lanes, width
        super().__init__({
            "clear": In(1),
            "i": In(stream.Signature(data.StructLayout({
                "logits": data.ArrayLayout(32, lanes), "valid": lanes}))),
            "busy": Out(1), "maximum": Out(32), "sum": Out(32), "nonfinite": Out(1)})

    @property
    def interval(self) -> int:
        """Cycles from word to word: the exp units' turns, or one step of the running sum."""
        return max(self.lanes // self.width + 1, Mul.LATENCY + Add.LATENCY + 1)

    def elaborate(self, platform):
        m = Module()
        parts = self.lanes // self.width

        def later(value, cycles):
            for _ in range(cycles):
                delayed = Signal.like(value, name="delayed")
                m.d.sync += delayed.eq(value)
                value = delayed
            return value

        def named(value, shape, name):
            signal = Signal(shape, name=name)
            m.d.comb += signal.eq(value)
            return signal

        # Words come at fixed intervals, so that every later step is a fixed delay.
        gap = Signal(range(self.interval))
        fresh = Signal(init=1)
        m.d.comb += self.i.ready.eq(gap == 0)
        start = named(self.i.valid & self.i.ready, 1, "start")
        m.d.sync += gap.eq(Mux(start, self.interval - 1, Mux(gap == 0, 0, gap - 1)))
        with m.If(start):
            m.d.sync += fresh.eq(0)
        with m.Elif(self.clear):
            m.d.sync += fresh.eq(1)

        # The maximum of the word, then of the row up to it.
        m.submodules.top = top = Leaf(MaxTree(self.lanes))
        m.submodules.larger = larger = Leaf(Max())
        m.d.comb += [top.en.eq(1), larger.en.eq(1), larger.a.eq(self.maximum), larger.b.eq(top.o)]
        m.d.comb += [top.i[k].eq(Mux(self.i.p.valid[k], self.i.p.logits[k], _MINUS_INFINITY))
                     for k in range(self.lanes)]
        deep = top.component.LATENCY + Max.LATENCY
        feed = later(start, deep)
        first = later(named(start & fresh, 1, "first"), deep)
        own = later(named(top.o, 32, "own"), Max.LATENCY)
        maximum = named(Mux(first, own, larger.o), 32, "maximum_now")
        m.submodules.words = words = Queue(
            self.i.p.shape(), depth=max(3, deep // self.interval + 2))
        m.d.comb += [words.i.payload.eq(self.i.p), words.i.valid.eq(start), words.o.ready.eq(feed)]

        # Its exponentials, part by part, and that of the change of the maximum on the first unit.
        word = Signal.like(self.i.p, reset_less=True)
        before = Signal(32, reset_less=True)
        part, feeding, row_start = Signal(range(parts + 1)), Signal(), Signal()
        with m.If(feed):
            m.d.sync += [word.eq(words.o.payload), before.eq(self.maximum),
                         self.maximum.eq(maximum), part.eq(0), feeding.eq(1), row_start.eq(first)]
        with m.Elif(part == parts):
            m.d.sync += feeding.eq(0)
        with m.Else():
            m.d.sync += part.eq(part + 1)
        turn = named(part == parts, 1, "turn")
        logits = Array(Cat(*(word.logits[p * self.width + k] for k in range(self.width)))
                       for p in range(parts))
        masks = Array(word.valid[p * self.width:(p + 1) * self.width] for p in range(parts))
        exps = []
        for k in range(self.width):
            m.submodules[f"sub_{k}"] = sub = Leaf(Add())
            m.submodules[f"exp_{k}"] = exp = Leaf(Exp())
            value = logits[part].word_select(k, 32)
            m.d.comb += [sub.en.eq(1), sub.a.eq(Mux(turn, before, value) if k == 0 else value),
                         sub.b.eq(self.maximum ^ (1 << 31)), exp.en.eq(1), exp.a.eq(sub.o)]
            exps.append(exp)
        m.submodules.low = low = Leaf(Tree(self.width))
        mask = later(named(masks[part], self.width, "mask"), Add.LATENCY + Exp.LATENCY)
        m.d.comb += low.en.eq(1)
        m.d.comb += [low.i[k].eq(Mux(mask[k], exps[k].o, 0)) for k in range(self.width)]

        # The parts' sums are leaves of the word's tree; the last part completes it.
        run = Add.LATENCY + Exp.LATENCY + low.component.LATENCY
        arrived = later(named(feeding & ~turn, 1, "fed"), run)
        last = later(named(feeding & (part == parts - 1), 1, "fed_last"), run)
        sums = Signal(data.ArrayLayout(32, parts), reset_less=True)
        with m.If(arrived):
            m.d.sync += sums.eq(Cat(sums, low.o)[32:] if parts > 1 else low.o)
        tail = 1
        total = sums[0]
        if parts > 1:
            m.submodules.high = high = Leaf(Tree(parts))
            m.d.comb += high.en.eq(1)
            m.d.comb += [high.i[p].eq(sums[p]) for p in range(parts)]
            tail, total = 1 + high.component.LATENCY, high.o

        # s = s * factor + total; the factor left its unit earlier and waits for the total.
        m.submodules.scale = scale = Leaf(Mul())
        m.submodules.add = add = Leaf(Add())
        factor = later(named(exps[0].o, 32, "factor"), low.component.LATENCY + tail - 1)
        summed = later(last, tail)
        begins = later(named(feeding & (part == parts - 1) & row_start, 1, "begins"), run + tail)
        m.d.comb += [
            scale.en.eq(1), scale.a.eq(self.sum), scale.b.eq(factor),
            add.en.eq(1), add.a.eq(scale.o),
            add.b.eq(later(named(total, 32, "total"), Mul.LATENCY))]
        step = Mul.LATENCY + Add.LATENCY
        complete = later(summed, step)
        alone = later(named(Mux(begins, total, 0), 32, "alone"), step)
        begun = later(begins, step)
        with m.If(complete):
            m.d.sync += self.sum.eq(Mux(begun, alone, add.o))
        check = later(complete, 1)
        m.d.comb += self.nonfinite.eq(check & (nonfinite(self.sum) | nonfinite(self.maximum)))

        flying = Signal(range(16))
        m.d.sync += flying.eq(flying + start - check)
        m.d.comb += self.busy.eq(flying != 0)
        return m
