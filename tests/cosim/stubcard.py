# SPDX-License-Identifier: Apache-2.0
"""Control with units that only pass time, behind the pins of a card.

What happens is logged into HBM: each logger has a channel of its own, from ``LOG`` on, and writes
records of 16 words.  Word 0 is the kind of event plus one, word 1 the cycle.
"""

from amaranth import Cat, Const, DomainRenamer, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from rtl_gen import emit
from rtl_gen.card.shared import SharedPort
from rtl_gen.card.shell import CONTROL, Shell, channel_prefix
from rtl_gen.common import Queue, axi, layouts
from rtl_gen.control import Control, Reporter
from rtl_gen.control.packer import Packer
from rtl_gen.control.port import SystemPort
from rtl_gen.spec import isa
from rtl_gen.spec.config import CardConfig

COMMIT = 0xC0FFEE11
#: Who reports on a card alone.
REPORTERS = tuple(Reporter)[:Reporter.SEND_PREVIOUS]
#: Byte offset of the logs in their channels, and words of an event.
LOG, EVENT_WORDS = 1 << 20, 16
#: Channels of the loggers.
UNITS, STREAMS, OWNERS, GRANTS = (1, 2, 3), 4, 5, 6
#: A scalar operation with this operand never ends.
STUCK = 0xDEAD0000
#: A scalar operation with this operand sets the sticky bits.
STICKY = 0x57EC0000


class Logger(wiring.Component):
    """Writes events to a channel, one behind the other; many may wait, so that nobody waits for
    it."""

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(data.ArrayLayout(32, EVENT_WORDS))), "base": In(64),
            "axi": Out(axi.full(config.beat_bytes))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(self.i.payload.shape(), depth=512)
        m.submodules.packer = packer = Packer(self.config)
        m.submodules.port = port = SystemPort(self.config)
        connect(m, wiring.flipped(self.i), queue.i)
        connect(m, port.axi, wiring.flipped(self.axi))
        index, beat = Signal(range(EVENT_WORDS)), Signal(32)
        beats = 4 * EVENT_WORDS // self.config.beat_bytes
        m.d.comb += [
            packer.address.valid.eq(1), packer.address.payload.eq(beat),
            packer.i.valid.eq(queue.o.valid), packer.i.p.word.eq(queue.o.payload[index]),
            packer.i.p.last.eq(index == EVENT_WORDS - 1),
            queue.o.ready.eq(packer.i.ready & packer.i.p.last),
            port.write.valid.eq(packer.o.valid), packer.o.ready.eq(port.write.ready),
            port.write.p.data.eq(packer.o.p.data),
            port.write.p.address.eq(
                self.base + LOG + packer.o.p.address * self.config.beat_bytes)]
        with m.If(packer.i.valid & packer.i.ready):
            m.d.sync += index.eq(index + 1)
            with m.If(packer.i.p.last):
                m.d.sync += beat.eq(beat + beats)
        return m


class StubUnit(wiring.Component):
    """Takes a job, waits, reports.  Writers of HBM keep ``writing`` up for a while longer."""

    def __init__(self, seed: int):
        self.seed = seed
        super().__init__({
            "job": In(stream.Signature(layouts.JOB)), "time": In(32),
            "log": Out(stream.Signature(data.ArrayLayout(32, EVENT_WORDS))),
            "done": Out(data.ArrayLayout(layouts.DONE, len(REPORTERS))), "writing": Out(1),
            "sampled": Out(data.StructLayout({"valid": 1, "token": 20})),
            "record": Out(stream.Signature(data.StructLayout({"word": 32, "last": 1}))),
            "sticky": Out(1)})

    def elaborate(self, platform):
        m = Module()
        noise = Signal(32, init=self.seed)
        m.d.sync += noise.eq(Cat(noise[31] ^ noise[21] ^ noise[1] ^ noise[0], noise))
        job = Signal(layouts.JOB)
        head, matmul, scalar, sample = (
            layouts.view(name, job.word) for name in ("NOP", "MATMUL", "SCALAR", "SAMPLE"))
        is_kind = lambda name: head.opcode == isa.FORMATS[name][0]  # noqa: E731
        left, tail, index = Signal(8), Signal(8), Signal(4)
        writes, reporter = Signal(), Signal(len(REPORTERS))
        m.d.comb += [
            writes.eq(is_kind("STORE") | (is_kind("MATMUL") & matmul.merge.any())),
            reporter.eq(1 << Reporter.VECTOR)]
        with m.If(is_kind("LOAD") | is_kind("STORE")):
            m.d.comb += reporter.eq(1 << Reporter.MEMORY)
        with m.If(is_kind("MATMUL")):
            m.d.comb += reporter.eq(1 << Reporter.BANK)
            with m.If(matmul.last):
                m.d.comb += reporter.eq(1 << Reporter.EPILOGUE)
                with m.If(matmul.dest != 0):
                    m.d.comb += reporter.eq(1 << Reporter.SOFTMAX)
        event = lambda kind, *words: Cat(Const(kind + 1, 32), self.time, *words)   # noqa: E731
        m.d.comb += self.writing.eq(tail != 0)
        with m.If(tail != 0):
            m.d.sync += tail.eq(tail - 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.job.ready.eq(noise[3]), self.log.valid.eq(0)]
                with m.If(self.job.valid & self.job.ready):
                    m.d.sync += [job.eq(self.job.payload), left.eq(noise[4:9]), index.eq(0)]
                    m.next = "START"
            with m.State("START"):
                m.d.comb += [self.log.valid.eq(1), self.log.p.eq(event(0, job))]
                with m.If(self.log.ready):
                    m.next = "WORK"
                    with m.If(is_kind("SAMPLE") & sample.last):
                        m.next = "RECORD"
                    with m.If(is_kind("SCALAR") & (scalar.imm == STUCK)):
                        m.next = "STUCK"
            with m.State("RECORD"):
                words = [sampled(job.step), 0, 0, 0, job.target, job.target_valid, job.step,
                         job.pos]
                m.d.comb += [self.record.valid.eq(noise[5]), self.record.p.last.eq(index == 7)]
                with m.Switch(index):
                    for k, word in enumerate(words):
                        with m.Case(k):
                            m.d.comb += self.record.p.word.eq(word)
                with m.If(self.record.valid & self.record.ready):
                    m.d.sync += index.eq(index + 1)
                    with m.If(self.record.p.last):
                        m.d.comb += [self.sampled.valid.eq(1),
                                     self.sampled.token.eq(sampled(job.step))]
                        m.next = "WORK"
            with m.State("WORK"):
                m.d.sync += left.eq(left - 1)
                m.d.comb += self.sticky.eq(is_kind("SCALAR") & (scalar.imm == STICKY))
                with m.If(left == 0):
                    m.next = "DONE"
                    with m.If(writes):
                        m.d.sync += tail.eq(noise[10:17])
            with m.State("DONE"):
                for number in REPORTERS:
                    m.d.comb += [self.done[number].valid.eq(reporter[number]),
                                 self.done[number].signal.eq(head.signal)]
                m.next = "REPORT"
            with m.State("REPORT"):
                # The report was a cycle ago; the next job cannot start before this one is logged.
                m.d.comb += [self.log.valid.eq(1), self.log.p.eq(event(1, job))]
                with m.If(self.log.ready):
                    m.next = "TAIL"
            with m.State("TAIL"):
                with m.If(tail == 0):
                    m.next = "IDLE"
                    with m.If(writes):
                        m.next = "WRITTEN"
            with m.State("WRITTEN"):
                m.d.comb += [self.log.valid.eq(1), self.log.p.eq(event(2, job))]
                with m.If(self.log.ready):
                    m.next = "IDLE"
            with m.State("STUCK"):
                pass
        return m


def sampled(step):
    """The token that the stand-in for the sampler samples in a step."""
    return (step * 7 + 3) & 0x3F


class StubCard(Shell):
    """Control, loggers, and units that pass time; at least 8 channels."""

    def elaborate(self, platform):
        m = Module()
        config = self.config
        control = Control(config, commit=COMMIT)
        m.submodules.control = DomainRenamer("shell")(control)
        shared = SharedPort(config)
        m.submodules.shared = DomainRenamer("shell")(shared)
        self.clock(m, control.reset_units)
        self.join(m, CONTROL, wiring.flipped(control.bus))
        connect(m, control.axi, shared.system)
        self.join(m, channel_prefix(0), shared.axi)
        time = Signal(32)
        m.d.shell += time.eq(time + 1)
        m.d.comb += [self.interrupt.eq(control.interrupt),
                     shared.system_reads.eq(control.system_reads)]

        loggers = {}
        for channel in (*UNITS, STREAMS, OWNERS, GRANTS):
            logger = Logger(config)
            m.submodules[f"logger_{channel}"] = DomainRenamer("shell")(logger)
            m.d.comb += logger.base.eq(control.base[channel])
            self.join(m, channel_prefix(channel), logger.axi)
            loggers[channel] = logger.i

        writing, sticky = [], []
        for k in range(len(control.jobs)):
            m.submodules[f"unit_{k}"] = unit = StubUnit(0x1234567 * (k + 1))
            connect(m, control.jobs[k], unit.job)
            connect(m, unit.log, loggers[UNITS[k]])
            m.d.comb += unit.time.eq(time)
            writing.append(unit.writing)
            sticky.append(unit.sticky)
            mine = {0: (Reporter.MEMORY,), 2: (Reporter.VECTOR,)}.get(
                k, (Reporter.BANK, Reporter.EPILOGUE, Reporter.SOFTMAX))
            m.d.comb += [control.done[number].eq(unit.done[number]) for number in mine]
        m.d.comb += [control.sampled.eq(unit.sampled), control.writing.eq(Cat(*writing).any()),
                     control.nonfinite.eq(Cat(*sticky).any()),
                     control.out_of_range.eq(Cat(*sticky).any())]
        connect(m, unit.record, control.record)

        for port, channel in ((control.stream, STREAMS), (control.owner, OWNERS)):
            log = loggers[channel]
            payload = Cat(port.payload)
            if port is control.stream:
                payload = Cat(*(Cat(port.payload[name], Signal(32))[:32] for name, _ in
                                port.payload.shape()))
            m.d.comb += [log.valid.eq(port.valid), port.ready.eq(log.ready),
                         log.p.eq(Cat(Const(1, 32), time, payload))]
        # What control instructions take from the counters, and give.
        queues, log = control.queues, loggers[GRANTS]
        m.d.comb += [
            log.valid.eq(queues.grant | queues.here.valid),
            log.p.eq(Cat(Const(1, 32), time, Cat(queues.wait, Signal(32 - isa.COUNTERS)),
                         queues.grant, Signal(31), queues.here.signal,
                         Signal(32 - isa.COUNTERS), queues.here.valid))]
        return m


def modules(config: CardConfig, events: bool) -> dict[str, str]:
    """Verilog of the stand-in, in the form of ``rtl_gen.emit.card``."""
    return emit.convert(StubCard(config, events=events), "stubcard", clocked=True)
