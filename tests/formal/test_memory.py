# SPDX-License-Identifier: Apache-2.0
"""AXI masters of a channel, against a memory that obeys AXI and is otherwise free.

Beats of 128 bytes, so that 32 of them fill 4 KiB; addresses are compared to 16 KiB.
"""

import pytest
from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from rtl_gen.memory import reader
from rtl_gen.memory.reader import PAGE, Reader
from tests.formal.prove import prove

pytestmark = pytest.mark.formal
BEAT = 128
SIZE = BEAT.bit_length() - 1
#: Bits of a beat's number within `PAGE`, and of the numbers that are compared.
INSIDE, NEAR = (PAGE // BEAT).bit_length() - 1, (4 * PAGE // BEAT).bit_length() - 1


def stays(m, port, channel: str, *names: str):
    """What is offered on a channel stays until it is taken."""
    valid, ready = getattr(port, f"{channel}valid"), getattr(port, f"{channel}ready")
    waits = Signal(name=f"{channel}_waits")
    m.d.sync += waits.eq(valid & ~ready)
    with m.If(waits):
        m.d.comb += Assert(valid)
    for name in names:
        value = getattr(port, channel + name)
        before = Signal.like(value, name=f"{channel}_{name}_before")
        m.d.sync += before.eq(value)
        with m.If(waits):
            m.d.comb += Assert(value == before)


class Reads(wiring.Component):
    """A reader, what it asks for, and what comes."""

    OUTSTANDING, BEATS_BITS = 3, 7

    def __init__(self, *, burst: int):
        self.burst = burst
        super().__init__({
            "base": In(NEAR), "address": In(NEAR), "beats": In(self.BEATS_BITS), "give": In(1),
            "take": In(1), "abort": In(1), "arready": In(1), "rvalid": In(1), "rlast": In(1), "rdata": In(8 * BEAT)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = Reader(BEAT, burst=self.burst, outstanding=self.OUTSTANDING)
        port, job = dut.axi, dut.job
        m.d.comb += [
            dut.base.eq(self.base << SIZE), job.p.address.eq(self.address),
            job.p.beats.eq(self.beats), job.valid.eq(self.give), dut.o.ready.eq(self.take),
            dut.abort.eq(self.abort), port.arready.eq(self.arready),
            port.rvalid.eq(self.rvalid), port.rlast.eq(self.rlast), port.rdata.eq(self.rdata)]
        number, beats = port.araddr[SIZE:SIZE + NEAR], port.arlen + 1

        stays(m, port, "ar", "addr", "len", "size", "burst", "id")
        with m.If(port.arvalid):
            m.d.comb += [
                Assert(port.araddr[:SIZE] == 0), Assert(beats <= self.burst),
                Assert(port.arsize == SIZE), Assert(port.arburst == 1),
                Assert(number[:INSIDE] + beats <= PAGE // BEAT)]

        # What is asked for are the runs, one after another, without gaps.
        taken, shown, news = Signal(), Signal(), Signal()
        at, left = Signal(NEAR), Signal(self.BEATS_BITS)
        m.d.comb += [taken.eq(job.valid & job.ready), news.eq(port.arvalid & ~shown)]
        m.d.sync += shown.eq(port.arvalid & ~port.arready)
        with m.If(news):
            m.d.comb += [Assert(number == at), Assert(beats <= left)]
            m.d.sync += [at.eq(at + beats), left.eq(left - beats)]
        with m.If(taken):
            m.d.comb += Assert(left == Mux(news, beats, 0))
            m.d.sync += [at.eq(self.base + self.address), left.eq(self.beats)]

        # Bursts are answered after they were asked for.
        asked, came = Signal(), Signal()
        under_way = Signal(range(self.OUTSTANDING + 2))
        m.d.comb += [
            asked.eq(port.arvalid & port.arready),
            came.eq(port.rvalid & port.rready & port.rlast),
            Assume(~port.rvalid | (under_way != 0)), Assert(under_way + port.arvalid <= self.OUTSTANDING),
            Assert(dut.reading == (port.arvalid | (under_way != 0)))]
        m.d.sync += under_way.eq(under_way + asked - came)

        # What comes is handed on; after an abort it is dropped, and nothing new is asked for.
        with m.If(self.abort):
            m.d.comb += [Assert(~dut.o.valid), Assert(port.rready)]
        with m.Else():
            m.d.comb += [Assert(dut.o.valid == port.rvalid), Assert(dut.o.ready == port.rready),
                         Assert(dut.o.payload == port.rdata)]
        aborted = Signal()
        m.d.sync += aborted.eq(self.abort)
        with m.If(aborted):
            m.d.comb += Assert(~news)
        return m


@pytest.mark.parametrize("burst", [8, PAGE // BEAT])
def test_runs_are_read(build_root, monkeypatch, burst):
    monkeypatch.setattr(reader, "BEATS_BITS", Reads.BEATS_BITS)
    prove(Reads(burst=burst), build_root / "formal" / f"reads_{burst}")
