# SPDX-License-Identifier: Apache-2.0
"""Control's own AXI ports: the master that reads programs and writes records, and the slave that
the host talks to.

Against a memory and a host that obey AXI and are otherwise free.
"""

import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from rtl_gen.common.axi import OKAY
from rtl_gen.control import port as system
from rtl_gen.control.port import SystemPort
from rtl_gen.control.registers import ADDRESS_BITS, SLVERR, Registers
from rtl_gen.spec import registers as spec
from rtl_gen.spec.config import find
from tests.formal.axi import allowed, stays
from tests.formal.prove import prove

pytestmark = pytest.mark.formal
CONFIG = find("tiny")
BEAT = CONFIG.beat_bytes
SIZE = BEAT.bit_length() - 1
#: The port's own sizes, in place of 16 beats, 15 writes and a million words; eight beats are 4 KiB.
SIZES = {"BURST": 4, "OUTSTANDING": 3, "WORDS_BITS": 5}
BURST = ("addr", "len", "size", "burst", "id")


class Master(wiring.Component):
    """Control's port, what it is told to do, and memory.

    Parameters
    ----------
    promise : str
        Which of its promises is to be proved.
    """

    #: Bits of beat numbers that are compared, and of a length in words.
    NEAR, WORDS_BITS = 4, SIZES["WORDS_BITS"]
    PROMISES = ("axi", "reads", "writes")

    def __init__(self, promise: str):
        self.promise = promise
        super().__init__({name: In(1) for name in (
            "read", "take", "write", "arready", "rvalid", "rlast", "awready", "wready", "bvalid")}
            | {"place": In(self.NEAR), "words": In(self.WORDS_BITS), "mark": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = SystemPort(CONFIG)
        port, burst = dut.axi, SIZES["BURST"]
        m.d.comb += [
            dut.read.valid.eq(self.read), dut.read.p.address.eq(self.place << SIZE),
            dut.read.p.words.eq(self.words), Assume(self.words != 0),
            dut.words.ready.eq(self.take), dut.write.valid.eq(self.write),
            dut.write.p.address.eq(self.place << SIZE), dut.write.p.data.eq(self.place),
            port.arready.eq(self.arready), port.rvalid.eq(self.rvalid),
            port.rlast.eq(self.rlast), port.awready.eq(self.awready),
            port.wready.eq(self.wready), port.bvalid.eq(self.bvalid)]

        # Bursts come after they were asked for.
        asked, came, coming = Signal(), Signal(), Signal(range(burst + 1))
        m.d.comb += [
            asked.eq(port.arvalid & port.arready), came.eq(port.rvalid & port.rready),
            Assume(~port.rvalid | (coming != 0)), Assume(port.rlast == (coming == 1))]
        m.d.sync += coming.eq(Mux(asked, port.arlen + 1, coming - came))
        # Answers come after address and data.
        addressed, sent, answered = Signal(), Signal(), Signal()
        unanswered = [Signal(range(6), name=f"unanswered_{name}") for name in ("aw", "w")]
        m.d.comb += [
            addressed.eq(port.awvalid & port.awready), sent.eq(port.wvalid & port.wready),
            answered.eq(port.bvalid & port.bready),
            Assume(~port.bvalid | ((unanswered[0] != 0) & (unanswered[1] != 0)))]
        m.d.sync += [unanswered[0].eq(unanswered[0] + addressed - answered),
                     unanswered[1].eq(unanswered[1] + sent - answered)]

        if self.promise == "axi":
            m.d.comb += [
                Assert(stays(m, port, "ar", *BURST)), Assert(stays(m, port, "aw", *BURST)),
                Assert(stays(m, port, "w", "data", "strb", "last")),
                Assert(allowed(port, "ar", beat_bytes=BEAT, burst=burst, page=2 * burst * BEAT)),
                Assert(allowed(port, "aw", beat_bytes=BEAT, burst=1))]
        if self.promise == "reads":
            # One burst at a time, one after another without gaps, as many beats as hold the words.
            taken, shown, at = Signal(), Signal(), Signal(self.NEAR)
            beats, left = Signal(self.WORDS_BITS), Signal(self.WORDS_BITS)
            m.d.comb += [taken.eq(dut.read.valid & dut.read.ready),
                         Assert(~port.arvalid | (coming == 0))]
            m.d.sync += shown.eq(port.arvalid & ~port.arready)
            with m.If(port.arvalid & ~shown):
                m.d.comb += [Assert(port.araddr[SIZE:SIZE + self.NEAR] == at),
                             Assert(port.arlen < beats)]
                m.d.sync += [at.eq(at + port.arlen + 1), beats.eq(beats - port.arlen - 1)]
            # As many words come out as were asked for, each after its beat.
            per_beat, inside = BEAT // 4, Signal(range(BEAT // 4 + 1))
            given = dut.words.valid & dut.words.ready
            m.d.comb += [Assert(dut.reading == (left != 0)), Assert(dut.read.ready == (left == 0)),
                         Assert(dut.words.valid == (inside != 0))]
            with m.If(taken):
                m.d.comb += [Assert(beats == 0), Assert(coming == 0), Assert(inside == 0)]
                m.d.sync += [at.eq(self.place), left.eq(self.words),
                             beats.eq((self.words + (per_beat - 1)) // per_beat)]
            with m.Elif(given):
                m.d.sync += left.eq(left - 1)
            with m.If(came):
                m.d.comb += Assert(inside == 0)
                m.d.sync += inside.eq(Mux(left < per_beat, left, per_beat))
            with m.Elif(given):
                m.d.sync += inside.eq(inside - 1)
        if self.promise == "writes":
            # Each write has one address and one datum, its own, and is told of until answered.
            given, some = Signal(), Signal(range(6))
            waits, place = Signal(2), Signal(self.NEAR)
            m.d.comb += [
                given.eq(dut.write.valid & dut.write.ready), Assert(dut.writing == (some != 0)),
                Assert(some <= SIZES["OUTSTANDING"]),
                Assert(Cat(port.awvalid, port.wvalid) == waits), Assert(~given | (waits == 0)),
                Assert(~port.awvalid | (port.awaddr == place << SIZE)),
                Assert(~port.wvalid | (port.wdata == place))]
            m.d.sync += [some.eq(some + given - answered),
                         waits.eq(Mux(given, 3, waits & ~Cat(addressed, sent)))]
            with m.If(given):
                m.d.sync += place.eq(self.place)
        return m


class Slave(wiring.Component):
    """The registers, and a host.

    Each write is answered once, after its address and data, and each read once, in order; what is
    offered stays until it is taken.  The address of commands is watched as one register.
    """

    def __init__(self):
        self.dut = Registers(CONFIG)
        super().__init__({name: In(1) for name in (
            "awvalid", "wvalid", "bready", "arvalid", "rready", "finish")} | {
            "awaddr": In(ADDRESS_BITS), "araddr": In(ADDRESS_BITS), "wdata": In(32),
            "wstrb": In(4)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        bus, place = dut.bus, spec.CONTROL["command_low"]
        m.d.comb += [getattr(bus, name).eq(getattr(self, name)) for name in (
            "awvalid", "wvalid", "bready", "arvalid", "rready", "awaddr", "araddr", "wdata",
            "wstrb")]
        m.d.comb += [dut.finish.eq(self.finish), Assume(~self.finish | dut.running)]
        taken = {channel: getattr(bus, f"{channel}valid") & getattr(bus, f"{channel}ready")
                 for channel in ("aw", "w", "b", "ar", "r")}
        counts = {}
        for channel, happens in taken.items():
            counts[channel] = Signal(3, name=f"count_{channel}")
            m.d.sync += counts[channel].eq(counts[channel] + happens)
        ahead = {name: Signal(3, name=f"ahead_{name}") for name in ("aw", "w", "ar")}
        m.d.comb += [
            *(ahead[name].eq(counts[name] - counts[answer])
              for name, answer in (("aw", "b"), ("w", "b"), ("ar", "r"))),
            Assert(stays(m, bus, "b", "resp")), Assert(stays(m, bus, "r", "data", "resp")),
            *(Assert(count <= 2) for count in ahead.values()),
            Assert(~bus.bvalid | ((ahead["aw"] != 0) & (ahead["w"] != 0))),
            Assert(~bus.rvalid | (ahead["ar"] == 1)), Assert(ahead["ar"] <= 1)]

        # Nothing waits for ever: an answer is there two cycles after all of its question.
        for name, questions, answer in (("write", ("aw", "w"), "b"), ("read", ("ar",), "r")):
            late = Signal(range(3), name=f"late_{name}")
            whole = Cat(ahead[question] != 0 for question in questions).all()
            m.d.sync += late.eq(Mux(whole & ~getattr(bus, f"{answer}valid"), late + 1, 0))
            m.d.comb += Assert(late != 2)

        # A command begins once for each that the host starts, and ends once.
        running = Signal()
        m.d.comb += [Assert(~dut.start | dut.running), Assert(dut.running == (running | dut.start))]
        m.d.sync += running.eq((running | dut.start) & ~dut.finish)
        # A write replaces the bytes that it says, unless a command runs; else they stay.
        before, was, answered = Signal(32), Signal(), Signal()
        address, value, strobe = Signal(ADDRESS_BITS), Signal(32), Signal(4)
        m.d.sync += [before.eq(dut.command[:32]), was.eq(dut.running), answered.eq(bus.bvalid)]
        with m.If(taken["aw"]):
            m.d.sync += address.eq(bus.awaddr)
        with m.If(taken["w"]):
            m.d.sync += [value.eq(bus.wdata), strobe.eq(bus.wstrb)]
        new = Signal()
        m.d.comb += new.eq(bus.bvalid & ~answered & (address == place))
        for k in range(4):
            kept, given = before.word_select(k, 8), value.word_select(k, 8)
            m.d.comb += Assert(dut.command.word_select(k, 8) == Mux(
                new & ~was & strobe[k], given, kept))
        with m.If(new):
            m.d.comb += Assert(bus.bresp == Mux(was, SLVERR, OKAY))
        wanted = Signal(ADDRESS_BITS)
        with m.If(taken["ar"]):
            m.d.sync += wanted.eq(bus.araddr)
        known = Signal()
        m.d.sync += known.eq(bus.rvalid)
        with m.If(bus.rvalid & ~known):
            m.d.comb += [Assert((wanted != place) | (bus.rdata == before)),
                         Assert((wanted[:2] == 0) | (bus.rresp == SLVERR)),
                         Assert((wanted != place) | (bus.rresp == OKAY))]
        return m


@pytest.mark.parametrize("promise", Master.PROMISES)
def test_control_reads_and_writes(build_root, monkeypatch, promise):
    for name, value in SIZES.items():
        monkeypatch.setattr(system, name, value)
    prove(Master(promise), build_root / "formal" / f"control_{promise}")


def test_the_host_is_answered(build_root):
    prove(Slave(), build_root / "formal" / "registers")
