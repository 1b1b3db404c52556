# SPDX-License-Identifier: Apache-2.0
"""Sums of the words of a vector, and of their squares, and the norm from them."""

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import data, enum, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram
from ..emit import Leaf
from ..fp32 import Add, Mul
from ..spec.config import CardConfig
from .chain import Chain, word_layout
from .delay import delay
from .lane import VectorLane
from .norm import NORM, Norm, norms_layout

#: Slices that may wait for their second pass.
SLICES = 16
#: Addends that wait to be added up.
WORDS = 64


class Sum(enum.Enum, shape=unsigned(3)):
    """What the sum of a word is for."""

    WORD = 0            #: kept: the elements of a word
    SQUARE = 1          #: kept: their squares
    TOTAL = 2           #: an addend: kept sums of words
    POWER = 3           #: an addend: kept sums of squares
    VECTOR = 4          #: an addend: an operand of VECTOR


#: What a sum is for, and of which token.
TAG = data.StructLayout({"kind": Sum, "token": 2})

#: A slice whose words are to be summed up, and then again for their squares.
OPEN = data.StructLayout({"valid": 1, "token": 2, "word": 9, "words": 12})
AGAIN = data.StructLayout({"token": 2, "word": 9, "words": 12})


def row_layout(config: CardConfig) -> data.StructLayout:
    """Where sums of V words are kept together: ``{row, kind, token}``."""
    rows = config.norm_words // config.vector_lanes
    return data.StructLayout({"row": (rows - 1).bit_length(), "kind": 1, "token": 2})


class Statistics(wiring.Component):
    """What the deferred LayerNorm needs: sums of words and of their squares, and the norm.

    The sums of V words lie side by side, so that they are added up as the elements of a word are.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    open : ``In(OPEN)``
        A slice whose words come next; valid only if ``free``.
    free : ``Out(1)``
    word : ``In({valid, value, last, tag})``, place : ``In(9)``
        Sums of words, and the word in its vector if the sum is to be kept.
    taken : ``Out(1)``
        An addend has been added; see :class:`Chain`.
    again : ``Out(stream.Signature(AGAIN))``
        Slices to be read again for their squares, in the order of ``open``.
    read_en, read_addr, sums
        Kept sums of V words, a cycle later.
    norm : ``In(NORM)``
        Vectors whose kept sums come to be added up, those of the words first.
    pending : ``Out(tokens)``
        Tokens with slices that are not complete.
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
            "open": In(OPEN), "free": Out(1),
            "word": In(word_layout(TAG)), "place": In(9), "taken": Out(1),
            "again": Out(stream.Signature(AGAIN)),
            "read_en": In(1), "read_addr": In(row_layout(config)),
            "sums": Out(data.ArrayLayout(32, config.vector_lanes)),
            "norm": In(NORM), "pending": Out(config.tokens),
            "busy": Out(config.tokens), "done": Out(config.tokens),
            "total": Out(data.StructLayout({"valid": 1, "value": 32})),
            "norms": Out(norms_layout(config)), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        lanes = config.vector_lanes
        latency = 1 + VectorLane.TERM + Add.LATENCY * (lanes - 1).bit_length()
        kind = self.word.tag.kind.as_value()
        kept, squares = Signal(), Signal()
        m.d.comb += [
            squares.eq(kind == Sum.SQUARE.value),
            kept.eq((kind == Sum.WORD.value) | squares)]

        # Slices wait for their second pass.
        m.submodules.slices = slices = fifo.SyncFIFO(width=AGAIN.size, depth=SLICES)
        entry = Signal(AGAIN)
        m.d.comb += [
            *(entry[name].eq(self.open[name]) for name, _ in AGAIN), slices.w_data.eq(entry),
            slices.w_en.eq(self.open.valid), self.free.eq(slices.w_rdy),
            self.again.payload.eq(slices.r_data), self.again.valid.eq(slices.r_rdy),
            slices.r_en.eq(self.again.ready)]
        complete = Signal()
        m.d.comb += complete.eq(self.word.valid & squares & self.word.last)
        for t in range(config.tokens):
            # Those that wait, and those on their way through lanes and tree, one a cycle at most.
            count = Signal(range(SLICES + latency + 1), name=f"open_{t}")
            m.d.sync += count.eq(count + (self.open.valid & (self.open.token == t))
                                 - (complete & (self.word.tag.token == t)))
            m.d.comb += self.pending[t].eq(count != 0)

        # Sums of words find their place.
        layout = row_layout(config)
        m.submodules.sums = sums = Ram(
            data.ArrayLayout(32, lanes), depth=1 << layout.size, parts=lanes)
        where = Signal(layout)
        bits = (lanes - 1).bit_length()
        m.d.comb += [
            where.row.eq(self.place[bits:]), where.kind.eq(squares),
            where.token.eq(self.word.tag.token),
            sums.write_en.eq((self.word.valid & kept) << self.place[:bits]),
            sums.write_addr.eq(where),
            *(sums.write_data[k].eq(self.word.value) for k in range(lanes)),
            sums.read_en.eq(self.read_en), sums.read_addr.eq(self.read_addr),
            self.sums.eq(sums.read_data)]

        # Addends are added up in order; what comes of them, times 1/elements.
        m.submodules.chain = chain = Chain(tag=TAG, words=WORDS)
        m.d.comb += [chain.word.eq(self.word), self.taken.eq(chain.taken)]
        with m.If(kept):
            m.d.comb += chain.word.valid.eq(0)
        m.submodules.factors = factors = memory.Memory(shape=32, depth=4, init=[])
        factor_in, factor = factors.write_port(), factors.read_port(domain="comb")
        m.submodules.multiplier = multiplier = Leaf(Mul())
        tag = Signal(TAG, reset_less=True)
        valid, value = Signal(), Signal(32, reset_less=True)
        m.d.sync += [valid.eq(chain.o.valid), value.eq(chain.o.value), tag.eq(chain.o.tag)]
        m.d.comb += [
            factor_in.en.eq(self.norm.valid), factor_in.addr.eq(self.norm.token),
            factor_in.data.eq(self.norm.inv), factor.addr.eq(tag.token),
            multiplier.en.eq(1), multiplier.a.eq(value), multiplier.b.eq(factor.data)]
        at = Mul.LATENCY
        came = delay(m, valid, at, "valid", reset_less=False)
        what = delay(m, tag.kind.as_value(), at, "kind")
        hit = {name: Signal(name=f"is_{name.lower()}") for name in ("TOTAL", "POWER")}
        m.d.comb += [signal.eq(came & (what == Sum[name].value)) for name, signal in hit.items()]
        m.d.comb += [
            self.total.valid.eq(valid & (tag.kind.as_value() == Sum.VECTOR.value)),
            self.total.value.eq(value)]

        m.submodules.vectors = norm = Norm(config)
        m.d.comb += [
            norm.i.eq(self.norm), norm.total.eq(hit["TOTAL"]), norm.power.eq(hit["POWER"]),
            norm.token.eq(delay(m, tag.token, at, "token")), norm.product.eq(multiplier.o),
            self.busy.eq(norm.busy), self.done.eq(norm.done), self.norms.eq(norm.norms)]
        m.d.sync += self.nonfinite.eq(
            chain.nonfinite | norm.nonfinite | (multiplier.nonfinite & Cat(*hit.values()).any()))
        return m
