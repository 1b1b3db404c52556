# SPDX-License-Identifier: Apache-2.0
"""Dependency counters: who is let go, that nothing is lost, and that none counts too far.

At full size: all counters, all that wait, all that report.
"""

import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from rtl_gen.common import tree_sum
from rtl_gen.control.counters import BITS, Counters, Order
from rtl_gen.control.dispatch import Reporter
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.isa import COUNTER_MAX, COUNTERS, Queue
from tests.formal.prove import prove

pytestmark = pytest.mark.formal
#: Of a card in a ring: the queues and control, the units and control.
WAITERS, REPORTERS = len(Queue), len(Reporter) + 1
#: Instructions in the queues, at most.
WAITING = (len(Queue) - 1) * CardConfig.queue_depth


class Granted(wiring.Component):
    """Counters beside plain numbers: one more for each signal, one less for each grant."""

    def __init__(self):
        self.dut = Counters(requesters=WAITERS, reporters=REPORTERS)
        members = self.dut.signature.members
        super().__init__({name: In(members[name].shape)
                          for name in ("clear", "request", "wait", "done")})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.d.comb += [getattr(dut, name).eq(getattr(self, name))
                     for name in ("clear", "request", "wait", "done")]
        held = [Signal(BITS, name=f"held_{k}") for k in range(COUNTERS)]
        none, able = Signal(COUNTERS), Signal(WAITERS)
        m.d.comb += [
            none.eq(Cat(number == 0 for number in held)),
            able.eq(Cat(self.request[k] & ((self.wait[k] & none) == 0) for k in range(WAITERS))),
            # The first that can is let go, and nobody else.
            Assert(dut.grant == able & (~able + 1))]
        for k, number in enumerate(held):
            came = tree_sum(report.valid & report.signal[k] for report in self.done)
            went = tree_sum(dut.grant[n] & self.wait[n][k] for n in range(WAITERS))
            after = Signal(BITS + 2, name=f"after_{k}")
            m.d.comb += [after.eq(number + came - went), Assert(went <= (number != 0)),
                         # See `Program`.
                         Assume(after < 1 << BITS)]
            m.d.sync += number.eq(Mux(self.clear, 0, after))
        return m


class Ordered(wiring.Component):
    """The counters of the program in order beside plain numbers."""

    def __init__(self):
        self.dut = Order()
        super().__init__({name: In(self.dut.signature.members[name].shape)
                          for name in ("clear", "wait", "signal", "apply")})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.d.comb += [getattr(dut, name).eq(getattr(self, name)) for name in self.signature.members]
        planned = [Signal(range(COUNTER_MAX + 1), name=f"planned_{k}") for k in range(COUNTERS)]
        starved, full = Signal(), Signal()
        # Both at once leave a counter alone, but need it above zero.
        m.d.sync += [
            starved.eq(Cat(self.wait[k] & (planned[k] == 0) for k in range(COUNTERS)).any()),
            full.eq(Cat(self.signal[k] & (planned[k] + 1 - self.wait[k] > COUNTER_MAX)
                        for k in range(COUNTERS)).any())]
        m.d.comb += [Assert(dut.starved == starved), Assert(dut.full == full)]
        for k, number in enumerate(planned):
            # That none goes below zero or beyond the maximum: see `Program`.
            after = number + (self.apply & self.signal[k]) - (self.apply & self.wait[k])
            m.d.sync += number.eq(Mux(self.clear, 0, after))
        return m


class Program(wiring.Component):
    """One counter, in order and as it is, under a program that is let go as :class:`Order` says.

    Parameters
    ----------
    most : int
        What a program in order may count to.
    waiting : int
        Instructions in the queues, at most.
    bound : int
        What the counter never holds.

    Members
    -------
    clear : ``In(1)``
        A program begins.
    waits, signals : ``In(1)``
        Whether the instruction at hand does.
    starved, full : ``In(1)``
        It may not be let go, or is the last, for the sake of other counters.
    apply : ``In(1)``
        It is let go.
    control : ``In(1)``
        It is control's own, and gets its counters.
    unit : ``In(1)``
        One that was let go before gets its counters, this one among them.
    came : ``In(range(REPORTERS + 1))``
        So many signal the counter.
    """

    def __init__(self, *, most: int, waiting: int, bound: int):
        self.most, self.waiting, self.bound = most, waiting, bound
        super().__init__({name: In(1) for name in (
            "clear", "waits", "signals", "starved", "full", "apply", "control", "unit")}
            | {"came": In(range(REPORTERS + 1))})

    def elaborate(self, platform):
        m = Module()
        waits, signals, waiting, bound = self.waits, self.signals, self.waiting, self.bound
        planned, held = Signal(range(self.most + 2)), Signal(range(bound))
        after = Signal(range(bound + REPORTERS))

        # An instruction stays until it is let go, a cycle after `Order` saw it at the earliest.
        # One that waits in vain is not let go, and one that counts too far is the last.
        before, same, ended = Signal(2), Signal(), Signal()
        in_vain, too_far, starved, full = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [in_vain.eq(waits & (planned == 0)),
                     too_far.eq(signals & (planned + 1 - waits > self.most))]
        m.d.sync += [
            before.eq(Cat(waits, signals)), same.eq(~self.apply & ~self.clear),
            starved.eq(in_vain), full.eq(too_far),
            ended.eq(ended | (self.apply & (full | self.full)))]
        with m.If(same):
            m.d.comb += [Assume(before == Cat(waits, signals)),
                         Assert(starved == in_vain), Assert(full == too_far)]
        with m.If(self.apply | self.control):
            m.d.comb += Assume(same & ~ended & ~starved & ~self.starved & ~self.clear)

        unmet, due = Signal(range(waiting + 2)), Signal(range(bound))
        granted, went = Signal(), Signal()
        m.d.comb += [
            went.eq(self.unit | (self.control & waits)), after.eq(held + self.came - went),
            # Control goes on in the cycle after its grant.  Only who was let go waits and signals,
            # and only so many wait.
            Assume(~granted | self.apply), Assume(~(self.control & (self.apply | self.unit))),
            Assume(self.unit <= unmet), Assume(unmet <= waiting),
            Assume(self.came <= due + (self.apply & signals)),
            # See `Granted`.
            Assume(went <= (held != 0))]
        m.d.sync += [
            granted.eq(self.control), held.eq(after),
            planned.eq(planned + (self.apply & signals) - (self.apply & waits)),
            unmet.eq(unmet + (self.apply & waits & ~granted) - self.unit),
            due.eq(due + (self.apply & signals) - self.came)]
        with m.If(self.clear):
            m.d.comb += Assume((unmet == 0) & (due == 0) & (self.came == 0))
            m.d.sync += [ended.eq(0), planned.eq(0), held.eq(0)]

        m.d.comb += [
            Assert(planned <= self.most + ended), Assert(~(self.apply & waits) | (planned != 0)),
            Assert(held + due + (granted & waits) == planned + unmet),
            Assert(after < bound)]
        return m


def test_who_can_is_let_go_and_nothing_is_lost(build_root):
    prove(Granted(), build_root / "formal" / "granted")


def test_what_can_never_start_is_known(build_root):
    prove(Ordered(), build_root / "formal" / "ordered")


def test_no_counter_goes_too_far(build_root):
    # All of a program in order, the one signal it is stopped for, and what came for those that
    # wait.  The argument is the same for any size.
    beyond = lambda most, waiting: most + 1 + waiting + 1   # noqa: E731
    prove(Program(most=3, waiting=2, bound=beyond(3, 2)), build_root / "formal" / "program")
    with pytest.raises(AssertionError, match="refuted in cycle"):
        prove(Program(most=3, waiting=2, bound=beyond(3, 2) - 1), build_root / "formal" / "most")
    assert beyond(COUNTER_MAX, WAITING) <= 1 << BITS
