# SPDX-License-Identifier: Apache-2.0
"""AXI masters of a channel, against a memory that obeys AXI and is otherwise free.
"""

import pytest
from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from rtl_gen.memory import reader, writer
from rtl_gen.memory.reader import PAGE, Reader
from rtl_gen.memory.writer import Writer
from rtl_gen.spec.config import find
from tests.formal.axi import allowed, stays
from tests.formal.order import Order
from tests.formal.prove import prove

pytestmark = pytest.mark.formal
CONFIG = find("u280")
BEAT = CONFIG.beat_bytes
SIZE = BEAT.bit_length() - 1


#: The writer's own sizes, in place of 16 beats, 63 bursts, and so on; four beats are 4 KiB to it.
SIZES = {"BURST": 2, "PATIENCE": 1, "GATHERED": 3, "QUIET": 1, "OUTSTANDING": 2, "PAGE": 4 * BEAT}


class Reads(wiring.Component):
    """A reader, what it asks for, and what comes."""

    OUTSTANDING, BEATS_BITS = 3, 7
    #: Bits of beat numbers that are compared: 16 KiB.
    NEAR = (4 * PAGE // BEAT).bit_length() - 1

    def __init__(self, *, burst: int):
        self.burst = burst
        super().__init__({
            "base": In(self.NEAR), "address": In(self.NEAR), "beats": In(self.BEATS_BITS),
            "give": In(1), "take": In(1), "abort": In(1), "arready": In(1), "rvalid": In(1),
            "rlast": In(1), "rdata": In(8 * BEAT)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = Reader(BEAT, burst=self.burst, outstanding=self.OUTSTANDING)
        port, job = dut.axi, dut.job
        m.d.comb += [
            dut.base.eq(self.base << SIZE), job.p.address.eq(self.address),
            job.p.beats.eq(self.beats), job.valid.eq(self.give), dut.o.ready.eq(self.take),
            dut.abort.eq(self.abort), port.arready.eq(self.arready),
            port.rvalid.eq(self.rvalid), port.rlast.eq(self.rlast), port.rdata.eq(self.rdata)]
        number, beats = port.araddr[SIZE:SIZE + self.NEAR], port.arlen + 1

        m.d.comb += [Assert(stays(m, port, "ar", "addr", "len", "size", "burst", "id")),
                     Assert(allowed(port, "ar", beat_bytes=BEAT, burst=self.burst))]

        # What is asked for are the runs, one after another, without gaps.
        taken, shown, news = Signal(), Signal(), Signal()
        at, left = Signal(self.NEAR), Signal(self.BEATS_BITS)
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
            Assume(~port.rvalid | (under_way != 0)),
            Assert(under_way + port.arvalid <= self.OUTSTANDING),
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


class Writes(wiring.Component):
    """A writer, what it is given, and what it writes.

    One of the beats that are given, any one, is marked: its data are 1 and all others 0.

    Parameters
    ----------
    promise : str
        Which of its promises is to be proved.
    """

    #: Bits of beat numbers that are compared.
    NEAR = 2
    PROMISES = ("axi", "data", "order", "place", "room", "writing")

    def __init__(self, promise: str):
        self.promise = promise
        super().__init__({
            "base": In(self.NEAR), "address": In(self.NEAR), "give": In(1), "choose": In(1),
            "flush": In(1), "awready": In(1), "wready": In(1), "bvalid": In(1)})

    def elaborate(self, platform):
        m = Module()
        burst, outstanding = SIZES["BURST"], SIZES["OUTSTANDING"]
        m.submodules.dut = dut = Writer(CONFIG)
        port, taken = dut.axi, Signal()
        marked, mark = Signal(), Signal()
        m.d.comb += [
            dut.base.eq(self.base << SIZE), dut.flush.eq(self.flush), dut.i.valid.eq(self.give),
            dut.i.p.address.eq(self.address), dut.i.p.data.eq(mark),
            taken.eq(dut.i.valid & dut.i.ready), mark.eq(taken & self.choose & ~marked),
            port.awready.eq(self.awready), port.wready.eq(self.wready), port.bvalid.eq(self.bvalid)]
        m.d.sync += marked.eq(marked | mark)
        base, begun = Signal(self.NEAR), Signal()
        m.d.sync += [base.eq(self.base), begun.eq(1)]
        m.d.comb += Assume(~begun | (base == self.base))

        # Data follow their address, bursts are answered in order, after their data.
        number, beats = port.awaddr[SIZE:SIZE + self.NEAR], port.awlen + 1
        at, left = Signal(self.NEAR), Signal(range(burst + 1))
        unanswered, complete = Signal(range(outstanding + 2)), Signal(range(outstanding + 2))
        asked, sent, ends, answered = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            asked.eq(port.awvalid & port.awready), sent.eq(port.wvalid & port.wready),
            ends.eq(sent & port.wlast), answered.eq(port.bvalid & port.bready),
            Assume(~port.bvalid | (complete != 0))]
        with m.If(asked):
            m.d.sync += [at.eq(number), left.eq(beats)]
        with m.Elif(sent):
            m.d.sync += [at.eq(at + 1), left.eq(left - 1)]
        m.d.sync += [unanswered.eq(unanswered + asked - answered),
                     complete.eq(complete + ends - answered)]

        # How many beats are on their way, and where the marked one belongs.
        inside, place = Signal(range(2 * burst + 2)), Signal(self.NEAR)
        m.d.sync += inside.eq(inside + taken - sent)
        with m.If(mark):
            m.d.sync += place.eq(self.base + self.address)

        if self.promise == "order":
            m.submodules.order = order = Order(most=2 * burst + 1)
            m.d.comb += [order.choose.eq(self.choose), order.push.eq(taken), order.pop.eq(sent),
                         order.shown.eq(port.wvalid), order.out.eq(port.wdata[0])]
        if self.promise == "axi":
            m.d.comb += [
                Assert(stays(m, port, "aw", "addr", "len", "size", "burst", "id")),
                Assert(stays(m, port, "w", "data", "last", "strb")),
                Assert(allowed(port, "aw", beat_bytes=BEAT, burst=burst, page=SIZES["PAGE"]))]
        if self.promise == "data":      # without a pause
            m.d.comb += [Assert(~asked | (left == 0)), Assert(port.wvalid == (left != 0)),
                         Assert(~port.wvalid | ((port.wlast == (left == 1)) & port.wstrb.all()))]
        if self.promise == "place":
            m.d.comb += Assert(~(sent & port.wdata[0]) | (at == place))
        if self.promise == "room":
            m.d.comb += Assert(unanswered <= outstanding)
        if self.promise == "writing":
            m.d.comb += Assert(dut.writing | ((inside == 0) & (unanswered == 0)))
        return m


@pytest.mark.parametrize("burst", [8, PAGE // BEAT])
def test_runs_are_read(build_root, monkeypatch, burst):
    monkeypatch.setattr(reader, "BEATS_BITS", Reads.BEATS_BITS)
    prove(Reads(burst=burst), build_root / "formal" / f"reads_{burst}")


@pytest.mark.parametrize("promise", Writes.PROMISES)
def test_beats_are_written(build_root, monkeypatch, promise):
    for name, value in SIZES.items():
        monkeypatch.setattr(writer, name, value)
    prove(Writes(promise), build_root / "formal" / f"writes_{promise}")
