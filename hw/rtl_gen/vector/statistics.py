# SPDX-License-Identifier: Apache-2.0
"""Sums of slices and of squared deviations from their means."""

from amaranth import Cat, Const, Module, Signal, unsigned
from amaranth.lib import data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import Ram
from ..emit import Leaf
from ..fp32 import Mul
from ..spec.config import CardConfig
from .chain import Chain, word_layout
from .delay import delay
from .norm import NORM, SUMS, Norm, norms_layout

#: Slices whose statistics may form at the same time.
CONTEXTS = 16
#: Sums of words, and addends of norms, that wait to be added up.
WORDS, FED = 64, 32


class Sum(enum.Enum, shape=unsigned(3)):
    """What a chain of additions sums up."""

    SLICE = 0           #: the elements of a slice
    DEVIATIONS = 1      #: the squared deviations from their mean
    TOTAL = 2           #: the sums of a vector's slices
    MOMENT = 3          #: the squared deviations from the vector's mean
    VECTOR = 4          #: an operand of VECTOR


#: With the last addend: what it is, and of which slice (context) or vector (token).
TAG = data.StructLayout({"kind": Sum, "id": 4})

#: A slice whose statistics are wanted.
OPEN = data.StructLayout({
    "valid": 1, "token": 2, "slice": 6, "words": 12, "inv": 32, "count": 32})

#: A slice to be read again, less its mean.
AGAIN = data.StructLayout({"words": 12, "mean": 32, "id": 4})


class Statistics(wiring.Component):
    """Statistics of slices, and the norm from them: what the deferred LayerNorm needs.

    A slice is summed word by word, then read again for its squared deviations.  Several slices are
    under way at once.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    open : ``In(OPEN)``
        A slice whose words come next; valid only if ``free``.
    id, free : ``Out``
        Which context it gets; whether there is one, and no statistics form for the same entry.
    word, taken
        Sums of words, see :class:`Chain`; tagged SLICE or DEVIATIONS with their context, or VECTOR.
    again : ``Out(stream.Signature(AGAIN))``
        Slices to be read again for their squared deviations, in the order of ``open``.
    norm : ``In(stream.Signature(NORM))``
        Vectors whose slices have their sums; one of each token at a time.
    unsummed, pending : ``Out(tokens)``
        Tokens with slices that have no sum yet; that are not complete.
    busy, done : ``Out(tokens)``
        Tokens whose norm is being computed; for a cycle: it is complete.
    total : ``Out({valid, value})``
        A sum tagged VECTOR.
    norms : ``Out``
        Mean and reciprocal deviation by set and token.
    nonfinite : ``Out(1)``
        For a cycle: an infinity or NaN was read or made.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "open": In(OPEN), "id": Out(4), "free": Out(1),
            "word": In(word_layout(TAG)), "taken": Out(1),
            "again": Out(stream.Signature(AGAIN)),
            "norm": In(stream.Signature(NORM)),
            "unsummed": Out(config.tokens), "pending": Out(config.tokens),
            "busy": Out(config.tokens), "done": Out(config.tokens),
            "total": Out(data.StructLayout({"valid": 1, "value": 32})),
            "norms": Out(norms_layout(config)), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.chain = chain = Chain(tag=TAG, words=WORDS, fed=FED)
        m.submodules.vectors = norm = Norm(config, tag=TAG)
        m.d.comb += [chain.word.eq(self.word), self.taken.eq(chain.taken)]

        # A slice takes the contexts in turn.
        mine = Signal(range(CONTEXTS))
        held = Signal(CONTEXTS)
        ended = Signal(CONTEXTS)
        about = data.StructLayout({"token": 2, "slice": 6, "count": 32})
        m.submodules.contexts = contexts = memory.Memory(shape=about, depth=CONTEXTS, init=[])
        opened, looked_up = contexts.write_port(), contexts.read_port(domain="comb")
        m.submodules.slices = slices = memory.Memory(shape=12, depth=CONTEXTS, init=[])
        m.submodules.means = means = memory.Memory(shape=32, depth=CONTEXTS, init=[])
        words_in, words_out = slices.write_port(), slices.read_port(domain="comb")
        mean_in, mean_out = means.write_port(), means.read_port(domain="comb")
        places = [Signal(8, name=f"place_{k}", reset_less=True) for k in range(CONTEXTS)]
        wanted = Cat(self.open.slice, self.open.token)
        clash = Cat(held[k] & (place == wanted) for k, place in enumerate(places)).any()
        for k, place in enumerate(places):
            with m.If(self.open.valid & (mine == k)):
                m.d.sync += place.eq(wanted)
        m.d.comb += [self.id.eq(mine), self.free.eq(~held.bit_select(mine, 1) & ~clash)]
        m.d.comb += [words_in.data.eq(self.open.words), *(
            getattr(opened.data, name).eq(getattr(self.open, name)) for name, _ in about)]
        for port in (opened, words_in):
            m.d.comb += [port.en.eq(self.open.valid), port.addr.eq(mine)]
        m.d.sync += [
            mine.eq(mine + self.open.valid),
            held.eq((held | (self.open.valid << mine)[:CONTEXTS]) & ~ended)]

        # What every sum but one is multiplied with.
        m.submodules.factors = factors = memory.Memory(shape=32, depth=2 * CONTEXTS, init=[])
        factor_in, factor = factors.write_port(), factors.read_port(domain="comb")
        normed = Signal()
        m.d.comb += [
            normed.eq(self.norm.valid & self.norm.ready),
            factor_in.en.eq(self.open.valid | normed)]
        with m.If(normed):
            m.d.comb += [factor_in.addr.eq(Cat(self.norm.p.token, Const(0, 2), 1)),
                         factor_in.data.eq(self.norm.p.inv)]
        with m.Else():
            m.d.comb += [factor_in.addr.eq(mine), factor_in.data.eq(self.open.inv)]

        # A sum, and a few cycles later its product.
        m.submodules.multiplier = multiplier = Leaf(Mul())
        tag = Signal(TAG, reset_less=True)
        valid, value = Signal(), Signal(32, reset_less=True)
        m.d.sync += [valid.eq(chain.o.valid), value.eq(chain.o.value), tag.eq(chain.o.tag)]
        kind = tag.kind.as_value()
        of_vector = (kind == Sum.TOTAL.value) | (kind == Sum.MOMENT.value)
        m.d.comb += [
            factor.addr.eq(Cat(tag.id, of_vector)),
            multiplier.en.eq(1), multiplier.a.eq(value), multiplier.b.eq(factor.data)]
        at = Mul.LATENCY
        product = multiplier.o
        valid = delay(m, valid, at, "valid", reset_less=False)
        value = delay(m, value, at, "value")
        kind = delay(m, kind, at, "kind")
        id = delay(m, tag.id, at, "id")
        hit = {name: Signal(name=f"is_{name.lower()}") for name in Sum.__members__}
        m.d.comb += [hit[name].eq(valid & (kind == member.value))
                     for name, member in Sum.__members__.items()]
        m.d.comb += [self.total.valid.eq(hit["VECTOR"]), self.total.value.eq(value),
                     looked_up.addr.eq(id)]

        # A slice's sum asks for its squared deviations; with these the slice is complete.
        place = Cat(looked_up.data.slice, looked_up.data.token)
        turn, summed, begun = Signal(range(CONTEXTS)), Signal(CONTEXTS), Signal(CONTEXTS)
        m.d.comb += [
            mean_in.en.eq(hit["SLICE"]), mean_in.addr.eq(id), mean_in.data.eq(product),
            mean_out.addr.eq(turn), words_out.addr.eq(turn),
            self.again.valid.eq(summed.bit_select(turn, 1)),
            self.again.p.mean.eq(mean_out.data), self.again.p.id.eq(turn),
            self.again.p.words.eq(words_out.data)]
        with m.If(self.again.valid & self.again.ready):
            m.d.comb += begun.eq(1 << turn)
            m.d.sync += turn.eq(turn + 1)
        m.d.sync += summed.eq((summed | (hit["SLICE"] << id)[:CONTEXTS]) & ~begun)
        with m.If(hit["DEVIATIONS"]):
            m.d.comb += ended.eq(1 << id)

        depth = 1 << len(place)
        m.submodules.sums = sums = Ram(SUMS, depth=depth)
        m.submodules.deviations = deviations = Ram(32, depth=depth)
        m.d.comb += [
            sums.write_en.eq(hit["SLICE"]), sums.write_addr.eq(place),
            sums.write_data.total.eq(value), sums.write_data.mean.eq(product),
            sums.write_data.count.eq(looked_up.data.count),
            deviations.write_en.eq(hit["DEVIATIONS"]), deviations.write_addr.eq(place),
            deviations.write_data.eq(value)]

        for t in range(config.tokens):
            for flags, event in ((self.unsummed, "SLICE"), (self.pending, "DEVIATIONS")):
                count = Signal(range(CONTEXTS + 1), name=f"open_{event.lower()}_{t}")
                m.d.sync += count.eq(
                    count + (self.open.valid & (self.open.token == t))
                    - (hit[event] & (looked_up.data.token == t)))
                m.d.comb += flags[t].eq(count != 0)

        # The norm of a vector.
        connect(m, flipped(self.norm), norm.i)
        connect(m, norm.feed, chain.feed)
        m.d.comb += [
            sums.read_en.eq(norm.read_en), sums.read_addr.eq(norm.read_addr),
            deviations.read_en.eq(norm.read_en), deviations.read_addr.eq(norm.read_addr),
            norm.sums.eq(sums.read_data), norm.deviations.eq(deviations.read_data),
            norm.total.eq(hit["TOTAL"]), norm.moment.eq(hit["MOMENT"]),
            norm.token.eq(id), norm.product.eq(product), norm.pending.eq(self.pending),
            self.busy.eq(norm.busy), self.done.eq(norm.done), self.norms.eq(norm.norms)]
        m.d.sync += self.nonfinite.eq(
            chain.nonfinite | norm.nonfinite
            | (multiplier.nonfinite & (hit["SLICE"] | hit["TOTAL"] | hit["MOMENT"])))
        return m
