# SPDX-License-Identifier: Apache-2.0
"""Sums in a given order: one adder, several sums at once."""

from amaranth import Array, Const, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram
from ..emit import Leaf
from ..fp32 import Add
from .delay import delay

#: Sums under way: each may add again when its last result is back.
SLOTS = Add.LATENCY + 1


def word_layout(tag) -> data.StructLayout:
    """An addend that cannot be kept waiting; the last one ends its sum."""
    return data.StructLayout({"valid": 1, "value": 32, "last": 1, "tag": tag})


class Chain(wiring.Component):
    """``acc = +0; for each addend: acc = add(acc, addend)``, several such sums in turn.

    A sum adds once in :data:`SLOTS` cycles; together the sums add every cycle.  A sum whose addends
    came before all those of another ends before it, if it has as many.

    Parameters
    ----------
    tag : shape
        What goes from a sum's last addend to its result.
    words : int
        Addends that may wait.

    Members
    -------
    word : ``In({valid, value, last, tag})``
        Addends, one sum after another; at most ``words`` that ``taken`` has not reported.
    taken : ``Out(1)``
        An addend has left.
    o : ``Out({valid, value, tag})``
        A sum, for one cycle.
    nonfinite : ``Out(1)``
        An infinity or NaN was read or made.
    """

    def __init__(self, *, tag, words: int) -> None:
        self.tag, self.words = tag, words
        super().__init__({
            "word": In(word_layout(tag)), "taken": Out(1),
            "o": Out(data.StructLayout({"valid": 1, "value": 32, "tag": tag})),
            "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        region = 1 << (self.words - 1).bit_length()
        entry = data.StructLayout({"value": 32, "last": 1, "tag": self.tag})
        m.submodules.waiting = waiting = Ram(entry, depth=8 * region)

        def after(slot):
            return Mux(slot == SLOTS - 1, 0, slot + 1)[:3]

        # One slot after another is filled.
        slot = Signal(3)
        write = Array(Signal(range(region), name=f"write_{k}") for k in range(SLOTS))
        read = Array(Signal(range(region), name=f"read_{k}") for k in range(SLOTS))
        new = Signal(entry)
        m.d.comb += [
            *(new[name].eq(self.word[name]) for name, _ in entry),
            waiting.write_en.eq(self.word.valid),
            waiting.write_addr.eq(slot * region + write[slot]), waiting.write_data.eq(new)]
        with m.If(self.word.valid):
            m.d.sync += write[slot].eq(write[slot] + 1)
            with m.If(self.word.last):
                m.d.sync += slot.eq(after(slot))

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
        m.d.comb += self.taken.eq(valid)

        m.submodules.sums = sums = memory.Memory(shape=32, depth=8, init=[])
        kept, back = sums.read_port(domain="comb"), sums.write_port()
        m.submodules.adder = adder = Leaf(Add())
        m.d.comb += [
            kept.addr.eq(here),
            adder.en.eq(1), adder.a.eq(Mux(started.bit_select(here, 1), kept.data, Const(0, 32))),
            adder.b.eq(found.value)]
        with m.If(valid):
            m.d.sync += started.bit_select(here, 1).eq(~found.last)

        at = Add.LATENCY
        valid_out = delay(m, valid, at, "valid", reset_less=False)
        m.d.comb += [
            back.addr.eq(delay(m, here, at, "here")), back.data.eq(adder.o), back.en.eq(valid_out),
            self.o.valid.eq(valid_out & delay(m, found.last, at, "last")),
            self.o.value.eq(adder.o), self.o.tag.eq(delay(m, found.tag, at, "tag")),
            self.nonfinite.eq(valid_out & adder.nonfinite)]
        return m
