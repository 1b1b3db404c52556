# SPDX-License-Identifier: Apache-2.0
"""The port that a channel shares with control: data and answers find their owners.

Against two masters and a memory that obey AXI and are otherwise free; three bursts in place of 64.
"""

import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl_gen.card import shared
from rtl_gen.common import axi
from rtl_gen.spec.config import find
from tests.formal.axi import stays
from tests.formal.prove import prove

pytestmark = pytest.mark.formal
CONFIG = find("tiny")
PORT = axi.full(CONFIG.beat_bytes).members
MASTERS = ("channel", "system")
BURSTS = 3
BURST = ("addr", "len", "size", "burst", "id")
OFFERED = {"ar": BURST, "aw": BURST, "w": ("data", "strb", "last")}


class Owners(wiring.Component):
    """Whose the bursts are that memory has taken and that have not ended, the oldest first.

    Members
    -------
    push, owner : ``In(1)``
    pop : ``In(1)``
    known, oldest : ``Out(1)``
    """

    def __init__(self):
        super().__init__({"push": In(1), "owner": In(1), "pop": In(1),
                          "known": Out(1), "oldest": Out(1)})

    def elaborate(self, platform):
        m = Module()
        owners = [Signal(name=f"owner_{k}") for k in range(BURSTS)]
        count, after = Signal(range(BURSTS + 2)), Signal(range(BURSTS + 2))
        m.d.comb += [self.known.eq(count != 0), self.oldest.eq(owners[0]),
                     after.eq(count - self.pop), Assert(count <= BURSTS)]
        m.d.sync += count.eq(after + self.push)
        for k, owner in enumerate(owners):
            m.d.sync += owner.eq(Mux(
                self.push & (after == k), self.owner,
                Mux(self.pop, owners[min(k + 1, BURSTS - 1)], owner)))
        return m


class Shared(wiring.Component):
    """Addresses and data of control are odd, those of the channel even."""

    def __init__(self):
        super().__init__({"system_reads": In(1)} | {
            f"{master}_{name}": In(member.shape) for master in MASTERS
            for name, member in PORT.items() if member.flow == Out} | {
            name: In(member.shape) for name, member in PORT.items() if member.flow == In})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = shared.SharedPort(CONFIG)
        port, masters = dut.axi, [getattr(dut, name) for name in MASTERS]
        m.d.comb += dut.system_reads.eq(self.system_reads)
        m.d.comb += [getattr(port, name).eq(getattr(self, name))
                     for name, member in PORT.items() if member.flow == In]
        m.d.comb += [getattr(master, name).eq(getattr(self, f"{prefix}_{name}"))
                     for prefix, master in zip(MASTERS, masters, strict=True)
                     for name, member in PORT.items() if member.flow == Out]
        for k, (name, master) in enumerate(zip(MASTERS, masters, strict=True)):
            m.d.comb += [Assume(master.awaddr[0] == k), Assume(master.wdata[0] == k)]
            m.d.comb += [Assume(stays(m, master, channel, *fields, name=name))
                         for channel, fields in OFFERED.items()]
        m.d.comb += [Assert(stays(m, port, channel, *fields))
                     for channel, fields in OFFERED.items()]

        def taken_of(channel):
            """From the channel, from control, by memory."""
            return [getattr(master, f"{channel}valid") & getattr(master, f"{channel}ready")
                    for master in (*masters, port)]

        # An address that is taken from one of them is offered in the next cycle, once.
        channel, system, asked = taken_of("aw")
        taken, waits, before = Signal(), Signal(), Signal(len(port.awaddr) + len(port.awlen))
        m.d.sync += [
            taken.eq(channel | system), waits.eq(port.awvalid & ~port.awready),
            before.eq(Mux(system, *(Cat(master.awaddr, master.awlen)
                                    for master in reversed(masters))))]
        m.d.comb += [Assert(~(channel & system)), Assert(port.awvalid == (taken | waits)),
                     Assert(~taken | ~waits),
                     Assert(~taken | (Cat(port.awaddr, port.awlen) == before))]

        # Data come from whose turn it is.
        m.submodules.data = data = Owners()
        channel, system, sent = taken_of("w")
        ends = sent & port.wlast
        m.d.comb += [
            data.push.eq(asked), data.owner.eq(port.awaddr[0]), data.pop.eq(ends),
            Assert(~port.wvalid | (data.known & (port.wdata[0] == data.oldest))),
            Assert(channel == (sent & ~data.oldest)), Assert(system == (sent & data.oldest))]

        # Answers, to complete bursts, go to whose they are.
        m.submodules.answers = answers = Owners()
        complete = Signal(range(BURSTS + 1))
        channel, system, answered = taken_of("b")
        m.d.sync += complete.eq(complete + ends - answered)
        m.d.comb += [
            answers.push.eq(asked), answers.owner.eq(port.awaddr[0]), answers.pop.eq(answered),
            Assume(~port.bvalid | (complete != 0)), Assert(~answered | answers.known),
            Assert(channel == (answered & ~answers.oldest)),
            Assert(system == (answered & answers.oldest))]
        for k, master in enumerate(masters):
            m.d.comb += [Assert(~master.bvalid | (port.bvalid & (answers.oldest == k))),
                         Assert(master.bresp == port.bresp)]

        # Reads belong to one of them, until none is under way.
        turn, reads, waits = Signal(), Signal(range(BURSTS + 1)), Signal()
        _, _, asked = taken_of("ar")
        channel, system, came = taken_of("r")
        m.d.sync += [turn.eq(self.system_reads), waits.eq(port.arvalid & ~port.arready),
                     reads.eq(reads + asked - (came & port.rlast))]
        m.d.comb += [
            Assume((turn == self.system_reads) | ((reads == 0) & ~waits)),
            Assume(~port.rvalid | (reads != 0)), Assume(~asked | (reads != BURSTS)),
            Assert(channel == (came & ~self.system_reads)),
            Assert(system == (came & self.system_reads))]
        return m


def test_data_and_answers_find_their_owners(build_root, monkeypatch):
    monkeypatch.setattr(shared, "OUTSTANDING", BURSTS)
    prove(Shared(), build_root / "formal" / "shared")
