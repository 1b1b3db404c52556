# SPDX-License-Identifier: Apache-2.0
"""Sums in a given order: one adder, several sums at once."""

from amaranth import Array, Const, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram
from ..emit import Leaf
from ..fp32 import Add
from .delay import delay

#: Sums under way: each may add again when its last result is back.
SLOTS = Add.LATENCY + 1


def addend(tag) -> data.StructLayout:
    """One addend; the last one ends its sum."""
    return data.StructLayout({"value": 32, "last": 1, "tag": tag})


def word_layout(tag) -> data.StructLayout:
    """An addend that cannot be kept waiting."""
    return data.StructLayout({"valid": 1, "value": 32, "last": 1, "tag": tag})


class Chain(wiring.Component):
    """``acc = +0; for each addend: acc = add(acc, addend)``, several such sums in turn.

    A sum adds once in :data:`SLOTS` cycles; together the sums add every cycle.  Sums end in any
    order.

    Parameters
    ----------
    tag : shape
        What goes from a sum's last addend to its result.
    words, fed : int
        Addends that may wait, of each of the two sources.

    Members
    -------
    word : ``In({valid, value, last, tag})``
        Addends, one sum after another; at most ``words`` that ``taken`` has not reported.
    taken : ``Out(1)``
        An addend of ``word`` has left.
    feed : ``In(stream.Signature({value, last, tag}))``
        Addends of other sums; ``word`` goes first.
    o : ``Out({valid, value, tag})``
        A sum, for one cycle.
    nonfinite : ``Out(1)``
        An infinity or NaN was read or made.
    """

    feed: stream.Interface

    def __init__(self, *, tag, words: int, fed: int) -> None:
        self.tag, self.words, self.fed = tag, words, fed
        super().__init__({
            "word": In(word_layout(tag)),
            "taken": Out(1),
            "feed": In(stream.Signature(addend(tag))),
            "o": Out(data.StructLayout({"valid": 1, "value": 32, "tag": tag})),
            "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        region = 1 << (self.words + self.fed - 1).bit_length()
        entry = data.StructLayout({"fed": 1, "addend": addend(self.tag)})
        m.submodules.waiting = waiting = Ram(entry, depth=8 * region)

        # Each source fills one slot after another, never the one that the other is filling.
        fed = Signal(range(self.fed + 1))
        word_slot, feed_slot = Signal(3), Signal(3, init=SLOTS // 2)
        write = Array(Signal(range(region), name=f"write_{k}") for k in range(SLOTS))
        read = Array(Signal(range(region), name=f"read_{k}") for k in range(SLOTS))
        slot = Signal(3)
        new = Signal(entry)
        feeds = Signal()
        m.d.comb += [
            self.feed.ready.eq(~self.word.valid & (fed != self.fed)),
            feeds.eq(self.feed.valid & self.feed.ready),
            slot.eq(Mux(self.word.valid, word_slot, feed_slot)),
            new.fed.eq(~self.word.valid),
            waiting.write_en.eq(self.word.valid | feeds),
            waiting.write_addr.eq(slot * region + write[slot]), waiting.write_data.eq(new)]
        with m.If(self.word.valid):
            m.d.comb += [getattr(new.addend, name).eq(getattr(self.word, name))
                         for name in ("value", "last", "tag")]
        with m.Else():
            m.d.comb += new.addend.eq(self.feed.payload)
        with m.If(waiting.write_en):
            m.d.sync += write[slot].eq(write[slot] + 1)

        def after(slot):
            return Mux(slot == SLOTS - 1, 0, slot + 1)[:3]

        for mine, other, ends in (
                (word_slot, feed_slot, self.word.valid & self.word.last),
                (feed_slot, word_slot, feeds & self.feed.p.last)):
            with m.If(ends):
                m.d.sync += mine.eq(Mux(after(mine) == other, after(after(mine)), after(mine)))

        # In turn, each slot reads an addend, and adds it a cycle later.
        turn = Signal(3)
        some, started = Signal(), Signal(SLOTS)
        m.d.sync += turn.eq(after(turn))
        m.d.comb += [
            some.eq(read[turn] != write[turn]),
            waiting.read_en.eq(some), waiting.read_addr.eq(turn * region + read[turn])]
        with m.If(some):
            m.d.sync += read[turn].eq(read[turn] + 1)
        valid = delay(m, some, 1, "some", reset_less=False)
        here = delay(m, turn, 1, "turn")
        found = waiting.read_data
        m.d.comb += self.taken.eq(valid & ~found.fed)
        m.d.sync += fed.eq(fed + feeds - (valid & found.fed))

        m.submodules.sums = sums = memory.Memory(shape=32, depth=8, init=[])
        kept, back = sums.read_port(domain="comb"), sums.write_port()
        m.submodules.adder = adder = Leaf(Add())
        m.d.comb += [
            kept.addr.eq(here),
            adder.en.eq(1), adder.a.eq(Mux(started.bit_select(here, 1), kept.data, Const(0, 32))),
            adder.b.eq(found.addend.value)]
        with m.If(valid):
            m.d.sync += started.bit_select(here, 1).eq(~found.addend.last)

        at = Add.LATENCY
        valid_out = delay(m, valid, at, "valid", reset_less=False)
        m.d.comb += [
            back.addr.eq(delay(m, here, at, "here")), back.data.eq(adder.o), back.en.eq(valid_out),
            self.o.valid.eq(valid_out & delay(m, found.addend.last, at, "last")),
            self.o.value.eq(adder.o), self.o.tag.eq(delay(m, found.addend.tag, at, "tag")),
            self.nonfinite.eq(valid_out & adder.nonfinite)]
        return m
