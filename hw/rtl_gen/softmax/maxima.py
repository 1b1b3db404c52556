# SPDX-License-Identifier: Apache-2.0
"""Maxima over the valid scores of rows that come in word by word."""

from amaranth import Array, Module, Mux, Shape, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..fp32 import MaxTree, Pipe, key

#: The least number: what a masked score counts as.
LEAST = 0xFF80_0000


def number(tokens: int) -> Shape:
    """Shape of a row's number; a bit even where there is but one row."""
    return unsigned(max(1, (tokens - 1).bit_length()))


def word_layout(lanes: int, tokens: int) -> data.StructLayout:
    """One word of scores."""
    return data.StructLayout({
        "valid": 1,
        "scores": data.ArrayLayout(32, lanes),
        "left": range(lanes + 1),       # how many of them, from the first on, are valid
        "token": number(tokens),
        "first": 1, "last": 1})         # word of its token


class Maxima(wiring.Component):
    """The maximum of each token's scores, a word every cycle, tokens interleaved.

    Parameters
    ----------
    lanes : int
        Scores of a word, a power of two.
    tokens : int

    Members
    -------
    i : ``In(word_layout(lanes, tokens))``
    o : ``Out({valid, value})``
        For a cycle, :attr:`LATENCY` cycles after the last word of a token.
    """

    def __init__(self, *, lanes: int, tokens: int) -> None:
        self.lanes, self.tokens = lanes, tokens
        super().__init__({
            "i": In(word_layout(lanes, tokens)),
            "o": Out(data.StructLayout({"valid": 1, "value": 32}))})

    @property
    def LATENCY(self) -> int:
        return 1 + MaxTree.latency(self.lanes)

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m)
        m.submodules.tree = tree = MaxTree(self.lanes)
        m.d.comb += tree.en.eq(1)
        m.d.comb += [
            tree.i[k].eq(pipe(Mux(k < self.i.left, self.i.scores[k], LEAST), f"score_{k}"))
            for k in range(self.lanes)]

        valid = pipe.delay(self.i.valid, self.LATENCY, "valid", reset_less=False)
        token, first, last = (pipe.delay(value, self.LATENCY, name) for value, name in (
            (self.i.token, "token"), (self.i.first, "first"), (self.i.last, "last")))
        # What leaves the tree is clean: by its key, NaN is above all numbers.
        best = Array(Signal(32, name=f"best_{k}", reset_less=True) for k in range(self.tokens))
        value, before = Signal(32), Signal(32)
        m.d.comb += [
            before.eq(best[token]),
            value.eq(Mux(first | (key(tree.o) > key(before)), tree.o, before)),
            self.o.valid.eq(valid & last), self.o.value.eq(value)]
        with m.If(valid):
            m.d.sync += best[token].eq(value)
        return m
