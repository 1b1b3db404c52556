# SPDX-License-Identifier: Apache-2.0
"""LayerNorm of a stream of vectors."""

import types

from amaranth import Cat, Module, Signal
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import Ram
from ..emit import Leaf
from ..fp32 import Add, Divide, Mul, Root, Tree
from .chain import Chain
from .delay import delay
from .layernorm_lane import LayerNormLane

#: Vectors under way.
VECTORS = 16
#: Vectors whose sums may wait for the adder.
WAITING = 8
#: Results that wait for the consumer.
RESULTS = 32


def _signals(prefix: str, **shapes) -> types.SimpleNamespace:
    """Signals that belong together."""
    return types.SimpleNamespace(**{
        name: Signal(shape, name=f"{prefix}_{name}") for name, shape in shapes.items()})


class LayerNorm(wiring.Component):
    """``y = (x − mean) · rstd · gamma + beta``, with mean and variance of each vector.

    Vectors overlap: while one comes in, the ones before are summed up and leave.

    Parameters
    ----------
    lanes : int
        Numbers of a word, a power of two.
    words : int
        Words of the longest vector.

    Members
    -------
    i : ``In(stream.Signature({data, last}))``
        Vectors, words of FP32; ``last`` ends one.
    o : ``Out(stream.Signature({data, last}))``
    weights : ``In(stream.Signature({gamma, beta, last}))``
        Gamma and beta, words in order; after ``last`` from the first word again.  They stay.
    inv, eps : ``In(32)``
        FP32 of 1/elements and of what is added to the variance; they must not change while vectors
        are under way.
    nonfinite : ``Out(1)``
        For a cycle: an infinity or NaN was read or made.
    """

    i: stream.Interface
    o: stream.Interface
    weights: stream.Interface

    def __init__(self, *, lanes: int, words: int):
        if lanes < 1 or lanes & lanes - 1:
            raise ValueError(f"lanes must be a power of two, not {lanes!r}")
        if words < 1:
            raise ValueError(f"words must be at least 1, not {words!r}")
        self.lanes, self.words = lanes, words
        self._place = range(max(2, words))      # Verilog has no signals without bits
        word = data.ArrayLayout(32, lanes)
        layout = data.StructLayout({"data": word, "last": 1})
        super().__init__({
            "i": In(stream.Signature(layout)), "o": Out(stream.Signature(layout)),
            "weights": In(stream.Signature(data.StructLayout(
                {"gamma": word, "beta": word, "last": 1}))),
            "inv": In(32), "eps": In(32), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        lanes = self.lanes
        ring = 1 << (VECTORS * self.words - 1).bit_length()
        place, number = range(ring), range(VECTORS)
        word = data.ArrayLayout(32, lanes)

        # Words come in and are kept in two memories, one for each time that they are read.
        used, credit = Signal(range(ring + 1)), Signal(range(WAITING * self.words + 1))
        under_way = Signal(range(VECTORS + 1))
        coming, write, count = Signal(number), Signal(place), Signal(range(self.words + 1))
        take, ends, leave, left = Signal(), Signal(), Signal(), Signal()
        m.submodules.lengths = lengths = memory.Memory(
            shape=range(self.words + 1), depth=VECTORS, init=[])
        length_in = lengths.write_port()
        m.d.comb += [
            self.i.ready.eq((used != ring) & (under_way != VECTORS)
                            & (credit != WAITING * self.words)),
            take.eq(self.i.valid & self.i.ready), ends.eq(take & self.i.p.last),
            length_in.en.eq(ends), length_in.addr.eq(coming), length_in.data.eq(count + 1)]
        with m.If(take):
            m.d.sync += [write.eq(write + 1), count.eq(count + 1)]
        with m.If(ends):
            m.d.sync += [count.eq(0), coming.eq(coming + 1)]
        copies = []
        for name in ("first", "second"):
            m.submodules[name] = copy = Ram(word, depth=ring)
            m.d.comb += [
                copy.write_en.eq(take), copy.write_addr.eq(write),
                copy.write_data.eq(self.i.p.data)]
            copies.append(copy)
        lane_units = []
        for k in range(lanes):
            m.submodules[f"lane_{k}"] = lane = Leaf(LayerNormLane())
            lane_units.append(lane)

        # Their sum gives the mean.
        first, total = self._sums(m, "mean", number)
        m.d.comb += [first.i.eq(delay(m, self.i.p.data, 1, "word")), first.valid.eq(
            delay(m, take, 1, "taken", reset_less=False)),
            first.last.eq(delay(m, self.i.p.last, 1, "last")),
            first.number.eq(delay(m, coming, 1, "number"))]
        m.d.sync += [
            used.eq(used + take - leave), credit.eq(credit + take - first.taken),
            under_way.eq(under_way + ends - left)]
        mean, summed = self._kept(m, "means", number, 2)
        m.d.comb += [mean.en.eq(total.valid), mean.addr.eq(total.number),
                     mean.data.eq(total.product)]

        # The squared deviations from it give the reciprocal deviation.
        second, moment = self._sums(m, "moment", number)
        deviating = self._reader(m, "deviate", lengths, copies[0], summed[0], total)
        room = Signal(range(WAITING * self.words + 1), init=WAITING * self.words)
        m.d.sync += room.eq(room - deviating.step + second.taken)
        at = LayerNormLane.SQUARE
        m.d.comb += [
            deviating.go.eq(room != 0),
            second.valid.eq(delay(m, deviating.valid, at, "square", reset_less=False)),
            second.last.eq(delay(m, deviating.last, at, "square_last")),
            second.number.eq(delay(m, deviating.number, at, "square_number"))]
        for k, lane in enumerate(lane_units):
            m.d.comb += [lane.x.eq(copies[0].read_data[k]), lane.mean.eq(deviating.value),
                         second.i[k].eq(lane.square)]
        root = self._root(m, moment, number)
        rstd, rooted = self._kept(m, "deviations", number, 1)
        m.d.comb += [rstd.en.eq(root.valid), rstd.addr.eq(root.number), rstd.data.eq(root.value)]

        # The vector is read again and leaves.
        leaving = self._reader(m, "leave", lengths, copies[1], summed[1], root)
        layout = self.o.payload.shape()
        m.submodules.results = results = fifo.SyncFIFO(width=layout.size, depth=RESULTS)
        space, result = Signal(range(RESULTS + 1), init=RESULTS), Signal(layout)
        m.d.sync += space.eq(space - leaving.step + (self.o.valid & self.o.ready))
        gamma, beta = self._weights(m, leaving.index)
        at = LayerNormLane.LATENCY
        m.d.comb += [
            leaving.go.eq(space != 0), leave.eq(leaving.step), left.eq(leaving.ends),
            rooted[0].addr.eq(summed[1].addr),
            result.last.eq(delay(m, leaving.last, at, "result_last")),
            results.w_en.eq(delay(m, leaving.valid, at, "result", reset_less=False)),
            results.w_data.eq(result)]
        deviation = delay(m, rooted[0].data, 1, "deviation")
        for k, lane in enumerate(lane_units):
            m.d.comb += [
                lane.z.eq(copies[1].read_data[k]), lane.shift.eq(leaving.value),
                lane.rstd.eq(deviation), lane.gamma.eq(gamma[k]), lane.beta.eq(beta[k]),
                lane.valid.eq(leaving.valid), result.data[k].eq(lane.y)]
        connect(m, results.r_stream, flipped(self.o))
        m.d.sync += self.nonfinite.eq(
            Cat(lane.nonfinite for lane in lane_units).any() | total.nonfinite
            | moment.nonfinite | root.nonfinite)
        return m

    def _kept(self, m, name, number, ports):
        """A small memory: its write port and so many read ports."""
        m.submodules[name] = kept = memory.Memory(shape=32, depth=VECTORS, init=[])
        return kept.write_port(), [kept.read_port(domain="comb") for _ in range(ports)]

    def _sums(self, m, name, number):
        """Sums of words, times ``inv``: inputs and results."""
        lanes = self.lanes
        m.submodules[f"{name}_tree"] = tree = Leaf(Tree(lanes))
        m.submodules[f"{name}_chain"] = chain = Chain(
            tag=number, words=WAITING * self.words)
        m.submodules[f"{name}_product"] = product = Leaf(Mul())
        words = _signals(f"{name}_words", i=data.ArrayLayout(32, lanes), valid=1, last=1,
                         number=number, taken=1)
        sums = _signals(f"{name}_sum", valid=1, number=number, product=32, nonfinite=1)
        latency = tree.component.LATENCY
        m.d.comb += [
            tree.en.eq(1), product.en.eq(1), tree.i.eq(words.i),
            chain.word.valid.eq(
                delay(m, words.valid, latency, f"{name}_valid", reset_less=False)),
            chain.word.last.eq(delay(m, words.last, latency, f"{name}_last")),
            chain.word.tag.eq(delay(m, words.number, latency, f"{name}_number")),
            chain.word.value.eq(tree.o), words.taken.eq(chain.taken),
            product.a.eq(chain.o.value), product.b.eq(self.inv), sums.product.eq(product.o),
            sums.valid.eq(
                delay(m, chain.o.valid, Mul.LATENCY, f"{name}_ended", reset_less=False)),
            sums.number.eq(delay(m, chain.o.tag, Mul.LATENCY, f"{name}_of")),
            sums.nonfinite.eq(
                (tree.nonfinite & chain.word.valid) | chain.nonfinite
                | (product.nonfinite & sums.valid))]
        return words, sums

    def _reader(self, m, name, lengths, copy, means, trigger):
        """Reads the vectors that ``trigger`` reports, in their order, with their means."""
        length = lengths.read_port(domain="comb")
        about = _signals(name, go=1, step=1, ends=1, valid=1, last=1, number=range(VECTORS),
                         value=32, index=self._place)
        turn = Signal(range(VECTORS), name=f"{name}_turn")
        ready = Signal(VECTORS, name=f"{name}_ready")
        place = Signal.like(copy.read_addr, name=f"{name}_place")
        ended = Signal(VECTORS, name=f"{name}_ended")
        m.d.comb += [
            length.addr.eq(turn), means.addr.eq(turn),
            about.step.eq(about.go & ready.bit_select(turn, 1)),
            about.ends.eq(about.step & (about.index + 1 == length.data)),
            copy.read_en.eq(about.step), copy.read_addr.eq(place)]
        m.d.sync += [
            ready.eq((ready | (trigger.valid << trigger.number)[:VECTORS]) & ~ended),
            about.valid.eq(about.step), about.last.eq(about.ends), about.number.eq(turn),
            about.value.eq(means.data)]
        with m.If(about.step):
            m.d.sync += [place.eq(place + 1), about.index.eq(about.index + 1)]
        with m.If(about.ends):
            m.d.comb += ended.eq(1 << turn)
            m.d.sync += [turn.eq(turn + 1), about.index.eq(0)]
        return about

    def _root(self, m, moment, number):
        """Reciprocal deviations, one after another."""
        entry = data.StructLayout({"number": number, "value": 32})
        m.submodules.moments = moments = fifo.SyncFIFO(width=entry.size, depth=VECTORS)
        m.submodules.plus = plus = Leaf(Add())
        m.submodules.root = unit = Leaf(Divide())
        new, head = Signal(entry), Signal(entry)
        root = _signals("root", valid=1, number=number, value=32, nonfinite=1)
        added = delay(m, moment.valid, Add.LATENCY, "added", reset_less=False)
        waiting = Signal()
        m.d.comb += [
            plus.en.eq(1), plus.a.eq(moment.product), plus.b.eq(self.eps),
            new.number.eq(delay(m, moment.number, Add.LATENCY, "added_number")),
            new.value.eq(plus.o), moments.w_en.eq(added), moments.w_data.eq(new),
            head.eq(moments.r_data),
            unit.i.valid.eq(moments.r_rdy & ~waiting), unit.i.p.a.eq(head.value),
            unit.i.p.op.eq(Root.RSQRT), unit.o.ready.eq(1),
            root.valid.eq(unit.o.valid), root.number.eq(head.number),
            root.value.eq(unit.o.p.value), moments.r_en.eq(unit.o.valid),
            root.nonfinite.eq((added & plus.nonfinite) | (unit.o.valid & unit.o.p.nonfinite))]
        m.d.sync += waiting.eq((waiting | (unit.i.valid & unit.i.ready)) & ~unit.o.valid)
        return root

    def _weights(self, m, index):
        """Gamma and beta of the word at ``index``, when the lanes need them."""
        entry = Signal(self._place)
        take = Signal()
        m.d.comb += [self.weights.ready.eq(1), take.eq(self.weights.valid)]
        with m.If(take):
            m.d.sync += entry.eq(entry + 1)
            with m.If(self.weights.p.last):
                m.d.sync += entry.eq(0)
        found = []
        for name, cycles in (("gamma", LayerNormLane.GAMMA), ("beta", LayerNormLane.BETA)):
            m.submodules[name] = kept = Ram(
                data.ArrayLayout(32, self.lanes), depth=len(self._place))
            m.d.comb += [
                kept.write_en.eq(take), kept.write_addr.eq(entry),
                kept.write_data.eq(getattr(self.weights.p, name)),
                kept.read_en.eq(1), kept.read_addr.eq(delay(m, index, cycles, f"{name}_index"))]
            found.append(kept.read_data)
        return found
