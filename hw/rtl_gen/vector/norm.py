# SPDX-License-Identifier: Apache-2.0
"""Mean and reciprocal deviation of a vector from the statistics of its slices."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..emit import Leaf
from ..fp32 import Add, Divide, Mul, Root
from ..spec.config import CardConfig
from .chain import addend
from .delay import delay

#: A vector to be normed.
NORM = data.StructLayout({"token": 2, "set": 1, "slices": 7, "inv": 32, "eps": 32})
#: What is kept of a slice, besides its squared deviations.
SUMS = data.StructLayout({"total": 32, "mean": 32, "count": 32})
#: Cycles from the statistics of a slice to the share of its mean in the vector's deviations.
SHARE = Add.LATENCY + 2 * Mul.LATENCY
#: Slices under way to the chain of additions.
WAITING = 32


def norms_layout(config: CardConfig) -> data.ArrayLayout:
    """Mean and reciprocal deviation, by set and token."""
    pair = data.StructLayout({"mean": 32, "rstd": 32})
    return data.ArrayLayout(data.ArrayLayout(pair, config.tokens), 2)


class Norm(wiring.Component):
    """Combines the statistics of slices in their order, for several tokens at once.

    First the sums of the slices go to the chain of additions, then, when the mean is known, the
    squared deviations of every slice and what the distance of its mean adds to them.

    Parameters
    ----------
    config : CardConfig
    tag : shape of the chain's tags ``{kind, id}``

    Members
    -------
    i : ``In(stream.Signature(NORM))``
        Waits while the token's last norm is computed.
    pending : ``In(tokens)``
        Tokens with slices whose squared deviations are not there: only their sums are added up.
    read_en, read_addr, sums, deviations
        Statistics of the slice at ``{slice, token}``, a cycle later.
    feed : ``Out(stream.Signature(addend))``
        Addends.
    total, moment, token, product
        For a cycle: the sum of a token's totals (moments) is there; its product with ``inv``.
    busy, done : ``Out(tokens)``
    norms : ``Out``
    nonfinite : ``Out(1)``
    """

    def __init__(self, config: CardConfig, *, tag):
        self.config, self.tag = config, tag
        super().__init__({
            "i": In(stream.Signature(NORM)),
            "pending": In(config.tokens),
            "read_en": Out(1), "read_addr": Out(8), "sums": In(SUMS), "deviations": In(32),
            "feed": Out(stream.Signature(addend(tag))),
            "total": In(1), "moment": In(1), "token": In(2), "product": In(32),
            "busy": Out(config.tokens), "done": Out(config.tokens),
            "norms": Out(norms_layout(config)), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        tokens = self.config.tokens

        def per_token(name, shape):
            return Array(Signal(shape, name=f"{name}_{t}", reset_less=True) for t in range(tokens))

        slices, means, eps, sets = (per_token(name, shape) for name, shape in (
            ("slices", 7), ("mean", 32), ("eps", 32), ("set", 1)))

        # Tokens wait for their sums, then for their moments, to be fed.
        sums_wanted, moments_wanted = Signal(tokens), Signal(tokens)
        taken, token = Signal(), self.i.p.token
        m.d.comb += [
            self.i.ready.eq(~self.busy.bit_select(token, 1)),
            taken.eq(self.i.valid & self.i.ready)]
        with m.If(taken):
            m.d.sync += [
                slices[token].eq(self.i.p.slices), eps[token].eq(self.i.p.eps),
                sets[token].eq(self.i.p.set)]
        with m.If(self.total):
            m.d.sync += means[self.token].eq(self.product)

        # One token after another, slice by slice.
        active, moments, current = Signal(), Signal(), Signal(2)
        entry, left = Signal(6), Signal(7)
        room = Signal(range(WAITING + 1), init=WAITING)
        step, pop = Signal(), Signal()
        m.d.comb += [
            step.eq(active & (room != 0)),
            self.read_en.eq(step), self.read_addr.eq(Cat(entry, current))]
        m.d.sync += room.eq(room - step + pop)
        started_sums, started_moments = Signal(tokens), Signal(tokens)
        with m.If(step):
            m.d.sync += [entry.eq(entry + 1), left.eq(left - 1)]
            with m.If(left == 1):
                m.d.sync += active.eq(0)
        with m.Elif(~active):
            for t in reversed(range(tokens)):
                with m.If((moments_wanted[t] & ~self.pending[t]) | sums_wanted[t]):
                    m.d.comb += [
                        started_moments.eq(moments_wanted[t] << t),
                        started_sums.eq((~moments_wanted[t]) << t)]
                    m.d.sync += [
                        active.eq(1), moments.eq(moments_wanted[t]), current.eq(t),
                        entry.eq(0), left.eq(slices[t])]
        m.d.sync += [
            sums_wanted.eq((sums_wanted | (taken << token)[:tokens]) & ~started_sums),
            moments_wanted.eq(
                (moments_wanted | (self.total << self.token)[:tokens]) & ~started_moments)]

        about = data.StructLayout({"valid": 1, "moments": 1, "token": 2, "last": 1})
        now = Signal(about)
        m.d.sync += [
            now.valid.eq(step), now.moments.eq(moments), now.token.eq(current),
            now.last.eq(left == 1)]

        # What the distance of a slice's mean from the vector's adds: elements · distance².
        m.submodules.distance = distance = Leaf(Add())
        m.submodules.square = square = Leaf(Mul())
        m.submodules.share = share = Leaf(Mul())
        mean = means[now.token]
        m.d.comb += [unit.en.eq(1) for unit in (distance, square, share)]
        m.d.comb += [
            distance.a.eq(self.sums.mean), distance.b.eq(Cat(mean[:31], ~mean[31])),
            square.a.eq(distance.o), square.b.eq(distance.o),
            share.a.eq(square.o),
            share.b.eq(delay(m, self.sums.count, Add.LATENCY + Mul.LATENCY, "count"))]

        stages = [now]
        for k in range(SHARE):
            stages.append(delay(m, stages[-1], 1, f"about_{k}", reset_less=False))
        through = stages[-1]
        first = delay(
            m, Mux(now.moments, self.deviations, self.sums.total), SHARE, "first")
        shares = [unit.nonfinite & stages[at].valid & stages[at].moments for unit, at in (
            (distance, Add.LATENCY), (square, Add.LATENCY + Mul.LATENCY), (share, SHARE))]

        # One addend for a sum, two for a moment.
        waiting = data.StructLayout({"about": about, "first": 32, "second": 32})
        m.submodules.waiting = queue = fifo.SyncFIFO(width=waiting.size, depth=WAITING)
        new, head = Signal(waiting), Signal(waiting)
        second = Signal()
        m.d.comb += [
            new.about.eq(through), new.first.eq(first), new.second.eq(share.o),
            queue.w_data.eq(new), queue.w_en.eq(through.valid), head.eq(queue.r_data),
            self.feed.valid.eq(queue.r_rdy),
            self.feed.p.value.eq(Mux(second, head.second, head.first)),
            self.feed.p.last.eq(head.about.last & (second | ~head.about.moments)),
            # TOTAL or MOMENT
            self.feed.p.tag.kind.as_value().eq(2 + head.about.moments),
            self.feed.p.tag.id.eq(head.about.token),
            pop.eq(queue.r_rdy & self.feed.ready & (second | ~head.about.moments)),
            queue.r_en.eq(pop)]
        with m.If(self.feed.valid & self.feed.ready):
            m.d.sync += second.eq(~second & head.about.moments)

        # The last steps: a root takes long, so every token has one of its own.
        m.submodules.variance = variance = Leaf(Add())
        m.d.comb += [variance.en.eq(1), variance.a.eq(self.product),
                     variance.b.eq(eps[self.token])]
        arrived = delay(m, self.moment, Add.LATENCY, "arrived", reset_less=False)
        whose = delay(m, self.token, Add.LATENCY, "whose")
        roots = [Leaf(Divide()) for _ in range(tokens)]
        for t, root in enumerate(roots):
            m.submodules[f"root_{t}"] = root
            m.d.comb += [
                root.i.valid.eq(arrived & (whose == t)), root.i.p.a.eq(variance.o),
                root.i.p.op.as_value().eq(Root.RSQRT.value), root.o.ready.eq(1),
                self.done[t].eq(root.o.valid)]
        m.d.sync += self.nonfinite.eq(Cat(
            *shares, variance.nonfinite & arrived,
            *(root.o.valid & root.o.p.nonfinite for root in roots)).any())
        kept = Signal(norms_layout(self.config), reset_less=True)
        for k in range(2):
            for t in range(tokens):
                with m.If(self.done[t] & (sets[t] == k)):
                    m.d.sync += [
                        kept[k][t].mean.eq(means[t]), kept[k][t].rstd.eq(roots[t].o.p.value)]
        m.d.comb += self.norms.eq(kept)
        m.d.sync += self.busy.eq((self.busy | (taken << token)[:tokens]) & ~self.done)
        return m
