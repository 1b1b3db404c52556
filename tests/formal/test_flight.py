# SPDX-License-Identifier: Apache-2.0
"""What is unfinished: how many, whether one writes, and which is the oldest.

Four instructions in place of 128.
"""

import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from rtl_gen.control import flight
from tests.formal.prove import prove

pytestmark = pytest.mark.formal
DEPTH = 4
#: Cycles after its dispatch from which on an instruction may finish, and `oldest` shows it.
LATENCY = 2


class Unfinished(wiring.Component):
    """Instructions beside a plain list of them, the oldest first."""

    def __init__(self):
        super().__init__({"issued": In(1), "issue": In(flight.ISSUE), "done": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = flight.Flight()
        m.d.comb += [dut.issued.eq(self.issued), dut.issue.eq(self.issue), dut.done.eq(self.done)]

        entries = [Signal(flight.ISSUE.size, name=f"entry_{k}") for k in range(DEPTH)]
        ages = [Signal(range(LATENCY + 1), name=f"age_{k}") for k in range(DEPTH)]
        count, after, known = Signal(range(DEPTH + 1)), Signal(range(DEPTH + 1)), Signal()
        m.d.comb += [
            known.eq((count != 0) & (ages[0] == LATENCY)), after.eq(count - self.done),
            Assume(~self.issued | dut.room), Assume(~self.done | known)]
        m.d.sync += count.eq(after + self.issued)
        older = lambda age: age + (age != LATENCY)  # noqa: E731
        for k in range(DEPTH):
            following = min(k + 1, DEPTH - 1)
            m.d.sync += [
                entries[k].eq(Mux(self.done, entries[following], entries[k])),
                ages[k].eq(older(Mux(self.done, ages[following], ages[k])))]
            with m.If(self.issued & (after == k)):
                m.d.sync += [entries[k].eq(self.issue), ages[k].eq(1)]

        writes = Cat((count > k) & data.View(flight.ISSUE, entry).writes
                     for k, entry in enumerate(entries))
        m.d.comb += [
            Assert(dut.busy == (count != 0)), Assert(dut.writes == writes.any()),
            Assert(dut.room == (count != DEPTH))]
        with m.If(known):
            m.d.comb += Assert(dut.oldest == data.View(flight.ISSUE, entries[0]))
        return m


def test_what_is_unfinished_is_known(build_root, monkeypatch):
    monkeypatch.setattr(flight, "DEPTH", DEPTH)
    monkeypatch.setattr(flight, "ISSUE", data.StructLayout({"pc": 1, "sequence": 1, "writes": 1}))
    prove(Unfinished(), build_root / "formal" / "flight")
