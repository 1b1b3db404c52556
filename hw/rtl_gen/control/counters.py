# SPDX-License-Identifier: Apache-2.0
"""Dependency counters: the real ones, and those of the program in order."""

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..common import layouts, tree_sum
from ..spec import isa

#: One counter holds what the program in order may hold, and the instructions in flight on top of
#: it: a queue may run ahead of the one that waits for it.
BITS = (isa.COUNTER_MAX + 1).bit_length() + 1


class Counters(wiring.Component):
    """Starts instructions whose counters are above zero, and counts the finished ones.

    A report is counted in one cycle and may be taken in the next.  One instruction starts a cycle;
    the requester with the lowest number comes first.

    Parameters
    ----------
    requesters : int
        Who waits.
    reporters : int
        Who signals.

    Members
    -------
    clear : ``In(1)``
        All counters to zero.
    request : ``In(requesters)``
    wait : ``In(ArrayLayout(isa.COUNTERS, requesters))``
        Counters that the requester needs.
    grant : ``Out(requesters)``
        In the same cycle: the requester has what it needs, and its counters have lost one.
    done : ``In(ArrayLayout(layouts.DONE, reporters))``
    """

    def __init__(self, *, requesters: int, reporters: int):
        self.requesters, self.reporters = requesters, reporters
        super().__init__({
            "clear": In(1),
            "request": In(requesters),
            "wait": In(data.ArrayLayout(unsigned(isa.COUNTERS), requesters)),
            "grant": Out(requesters),
            "done": In(data.ArrayLayout(layouts.DONE, reporters))})

    def elaborate(self, platform):
        m = Module()
        counts = [Signal(BITS, name=f"counter_{k}") for k in range(isa.COUNTERS)]
        # Whether a counter is above zero is kept beside it: to compare all counters, to choose and
        # to count in one cycle would take too long.
        above, taken = Signal(isa.COUNTERS), Signal(isa.COUNTERS)

        able = Signal(self.requesters)
        m.d.comb += able.eq(Cat(
            self.request[k] & ((self.wait[k] & ~above) == 0) for k in range(self.requesters)))
        for k in reversed(range(self.requesters)):
            with m.If(able[k]):
                m.d.comb += [self.grant.eq(1 << k), taken.eq(self.wait[k])]

        for k, count in enumerate(counts):
            gained = tree_sum(done.valid & done.signal[k] for done in self.done)
            m.d.sync += [
                count.eq(count + gained - taken[k]),
                above[k].eq((gained != 0) | (count > 1) | (above[k] & ~taken[k]))]
            with m.If(self.clear):
                m.d.sync += [count.eq(0), above[k].eq(0)]
        return m


class Order(wiring.Component):
    """The counters as they would be if the program ran one instruction after another.

    Dispatch asks here before it lets an instruction go: what can never start, and what would count
    too far, is found at the same instruction in every run, whatever the units' timing.

    Members
    -------
    clear : ``In(1)``
    wait, signal : ``In(isa.COUNTERS)``
        Of the instruction at hand.
    starved : ``Out(1)``
        It waits for what no earlier instruction signals.  Valid a cycle after ``wait``.
    full : ``Out(1)``
        Its signals would take a counter beyond the maximum.  Valid a cycle after ``signal``.
    apply : ``In(1)``
        The instruction is let go.
    """

    def __init__(self):
        super().__init__({
            "clear": In(1), "wait": In(isa.COUNTERS), "signal": In(isa.COUNTERS),
            "starved": Out(1), "full": Out(1), "apply": In(1)})

    def elaborate(self, platform):
        m = Module()
        counts = [Signal(range(isa.COUNTER_MAX + 1), name=f"order_{k}")
                  for k in range(isa.COUNTERS)]
        m.d.sync += [
            self.starved.eq(Cat(
                self.wait[k] & (count == 0) for k, count in enumerate(counts)) != 0),
            self.full.eq(Cat(
                self.signal[k] & ~self.wait[k] & (count == isa.COUNTER_MAX)
                for k, count in enumerate(counts)) != 0)]
        for k, count in enumerate(counts):
            with m.If(self.clear):
                m.d.sync += count.eq(0)
            with m.Elif(self.apply & (self.signal[k] ^ self.wait[k])):
                m.d.sync += count.eq(Mux(self.signal[k], count + 1, count - 1))
        return m
