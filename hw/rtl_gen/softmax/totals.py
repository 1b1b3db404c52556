# SPDX-License-Identifier: Apache-2.0
"""Reciprocals of the sums of numerators."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Queue
from ..emit import Leaf
from ..fp32 import Pipe, Rcp, UnsignedTree
from .chain import Chain

#: Sums on their way, from their first word to their reciprocal's end.
SUMS = 64


class Totals(wiring.Component):
    """``rcp`` of the sum over words of ``tree(word)``, a word every cycle, sum after sum.

    Parameters
    ----------
    lanes : int
    words : int
        Words of the longest sum.
    tag : shape
        What goes with a sum.

    Members
    -------
    i : ``In({valid, p, last, tag})``
        Words, one sum after another; not held up: at most :attr:`WORDS` that ``taken`` has not
        reported, and :data:`SUMS` sums that have not left.
    taken : ``Out(1)``
        For a cycle: a word has been added.
    o : ``Out(stream.Signature({value, tag}))``
        Reciprocals, in the order of the sums.
    """

    o: stream.Interface

    def __init__(self, *, lanes: int, words: int, tag) -> None:
        self.lanes, self.words, self.tag = lanes, words, tag
        super().__init__({
            "i": In(data.StructLayout({
                "valid": 1, "p": data.ArrayLayout(32, lanes), "last": 1, "tag": tag})),
            "taken": Out(1),
            "o": Out(stream.Signature(data.StructLayout({"value": 32, "tag": tag})))})

    @property
    def WORDS(self) -> int:
        """Words that may be on their way: those of a long sum and what the tree holds."""
        return 1 << (self.words + 64 - 1).bit_length()

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m)
        m.submodules.tree = tree = UnsignedTree(self.lanes)
        m.submodules.chain = chain = Chain(depth=self.WORDS, tag=range(SUMS))

        number = Signal(range(SUMS))
        with m.If(self.i.valid & self.i.last):
            m.d.sync += number.eq(number + 1)
        m.d.comb += [
            tree.en.eq(1), tree.i.eq(self.i.p),
            chain.i.valid.eq(
                pipe.delay(self.i.valid, tree.LATENCY, "valid", reset_less=False)),
            chain.i.value.eq(tree.o),
            chain.i.last.eq(pipe.delay(self.i.last, tree.LATENCY, "last")),
            chain.i.tag.eq(pipe.delay(number, tree.LATENCY, "number")),
            self.taken.eq(chain.taken)]

        # Sums wait for those that began before them.
        m.submodules.sums = sums = memory.Memory(shape=32, depth=SUMS, init=[])
        write, read = sums.write_port(), sums.read_port(domain="comb")
        ended, next_out = Signal(SUMS), Signal(range(SUMS))
        leaves = Signal()
        m.d.comb += [
            write.en.eq(chain.o.valid), write.addr.eq(chain.o.tag), write.data.eq(chain.o.value),
            read.addr.eq(next_out), leaves.eq(ended.bit_select(next_out, 1))]
        with m.If(leaves):
            m.d.sync += next_out.eq(next_out + 1)
        m.d.sync += ended.eq(
            (ended | (chain.o.valid << chain.o.tag)) & ~(leaves << next_out))

        m.submodules.rcp = rcp = Leaf(Rcp())
        m.submodules.tags = tags = Queue(self.tag, depth=SUMS)
        m.submodules.results = results = Queue(32, depth=SUMS)
        m.d.comb += [
            rcp.en.eq(1), rcp.a.eq(read.data),
            results.i.valid.eq(pipe.delay(leaves, Rcp.LATENCY, "leaves", reset_less=False)),
            results.i.payload.eq(rcp.o),
            tags.i.valid.eq(self.i.valid & self.i.last), tags.i.payload.eq(self.i.tag),
            self.o.valid.eq(results.o.valid & tags.o.valid),
            self.o.p.value.eq(results.o.payload), self.o.p.tag.eq(tags.o.payload),
            Cat(results.o.ready, tags.o.ready).eq((self.o.valid & self.o.ready).replicate(2))]
        return m
