# SPDX-License-Identifier: Apache-2.0
"""Sums in the order of their addends: one adder, as many sums at once as it has stages."""

from amaranth import Array, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram
from ..emit import Leaf
from ..fp32 import AddUnsigned, Pipe

#: Sums that form at the same time.
SLOTS = AddUnsigned.LATENCY


class Chain(wiring.Component):
    """``acc = +0; for each addend: acc = add(acc, addend)``, of addends without sign.

    A sum adds once in :data:`SLOTS` cycles, so that many sums form at the same time: sum after
    sum takes an addend a cycle.  They may end in another order than they began in.

    Parameters
    ----------
    depth : int
        Addends that may wait, a power of two.
    tag : shape
        What goes with a sum.

    Members
    -------
    i : ``In({valid, value, last, tag})``
        Addends, one sum after another; ``last`` ends a sum.  It is not held up: at most ``depth``
        that ``taken`` has not reported.
    taken : ``Out(1)``
        For a cycle: an addend has gone.
    o : ``Out({valid, value, tag})``
        For a cycle: a sum.
    """

    #: Cycles from the last addend of a sum to the sum, at least and, if it is alone, at most.
    LATENCY = (3 + AddUnsigned.LATENCY, 2 + SLOTS + AddUnsigned.LATENCY)

    def __init__(self, *, depth: int, tag) -> None:
        self.depth, self.tag = depth, tag
        super().__init__({
            "i": In(data.StructLayout({"valid": 1, "value": 32, "last": 1, "tag": tag})),
            "taken": Out(1),
            "o": Out(data.StructLayout({"valid": 1, "value": 32, "tag": tag}))})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m)
        addend = data.StructLayout({"value": 32, "last": 1, "tag": self.tag})
        m.submodules.waiting = waiting = Ram(addend, depth=4 * self.depth)

        # Sums go into the slots' queues in turn.
        place = range(self.depth)
        heads = Array(Signal(place, name=f"head_{k}") for k in range(SLOTS))
        tails = Array(Signal(place, name=f"tail_{k}") for k in range(SLOTS))
        slot, turn = Signal(range(SLOTS)), Signal(range(SLOTS))

        def after(number):
            return Mux(number == SLOTS - 1, 0, number + 1)

        m.d.comb += [
            waiting.write_en.eq(self.i.valid),
            waiting.write_addr.eq(slot * self.depth + heads[slot]),
            waiting.write_data.value.eq(self.i.value), waiting.write_data.last.eq(self.i.last),
            waiting.write_data.tag.eq(self.i.tag)]
        with m.If(self.i.valid):
            m.d.sync += heads[slot].eq(heads[slot] + 1)
            with m.If(self.i.last):
                m.d.sync += slot.eq(after(slot))

        # A slot whose turn it is reads an addend, and its sum comes out of the adder as the
        # addend comes out of the memory.
        some = Signal()
        m.d.comb += [
            some.eq(heads[turn] != tails[turn]), self.taken.eq(some),
            waiting.read_en.eq(some), waiting.read_addr.eq(turn * self.depth + tails[turn])]
        m.d.sync += turn.eq(after(turn))
        with m.If(some):
            m.d.sync += tails[turn].eq(tails[turn] + 1)
        here, found = pipe(some, "here", reset_less=False), waiting.read_data
        started = Array(Signal(name=f"started_{k}") for k in range(SLOTS))
        mine = pipe(turn, "mine")
        m.submodules.adder = adder = Leaf(AddUnsigned())
        m.d.comb += [
            adder.en.eq(1),
            adder.a.eq(Mux(started[mine], adder.o, Const(0, 32))),
            # Nothing to add: + 0, which leaves a sum of numbers without sign as it is.
            adder.b.eq(Mux(here, found.value, Const(0, 32)))]
        with m.If(here):
            m.d.sync += started[mine].eq(~found.last)

        stages = AddUnsigned.LATENCY
        m.d.comb += [
            self.o.valid.eq(pipe.delay(here & found.last, stages, "ends", reset_less=False)),
            self.o.value.eq(adder.o), self.o.tag.eq(pipe.delay(found.tag, stages, "tag"))]
        return m
