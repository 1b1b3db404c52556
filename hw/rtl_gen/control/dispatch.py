# SPDX-License-Identifier: Apache-2.0
"""Runs the program: control instructions itself, the others by handing them to their queues."""

import contextlib
import enum

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram, layouts
from ..spec import isa
from ..spec.config import CardConfig
from ..spec.isa import Register
from ..spec.registers import NO_STOP, Error
from .counters import Order
from .flight import ISSUE
from .operands import KEPT, PUT, Operands

_QUEUES = (isa.Queue.MEMORY, isa.Queue.MATMUL, isa.Queue.VECTOR)
_OF_A_RING = (isa.Queue.SEND_PREVIOUS, isa.Queue.SEND_NEXT,
              isa.Queue.RECEIVE_PREVIOUS, isa.Queue.RECEIVE_NEXT)


class Reporter(enum.IntEnum):
    """Who reports that an instruction is done; each does so in order."""

    MEMORY = 0
    BANK = 1        #: the engine, of products that stay in the bank
    EPILOGUE = 2    #: of products that go to the scratchpad
    SOFTMAX = 3     #: of products that go through the softmax
    VECTOR = 4
    SEND_PREVIOUS = 5       #: of cards in a ring
    SEND_NEXT = 6
    RECEIVE_PREVIOUS = 7
    RECEIVE_NEXT = 8


def queues(config: CardConfig) -> tuple[isa.Queue, ...]:
    """The queues of a card's units, in the order of ``Dispatch.jobs``."""
    return _QUEUES + (_OF_A_RING if config.cards > 1 else ())


def reporters(config: CardConfig) -> tuple[Reporter, ...]:
    """Who reports on a card."""
    return tuple(Reporter)[:None if config.cards > 1 else Reporter.SEND_PREVIOUS]


class Owner(enum.IntEnum):
    """Who takes the next run of constants from the channels."""

    EPILOGUE = 0
    MEMORY = 1


class _Slot:
    """A fetched instruction and its judge's start."""

    def __init__(self, number: int):
        self.word = Signal(isa.WORD_BITS, name=f"word_{number}")
        self.pc = Signal(32, name=f"pc_{number}")
        self.begins = Signal(name=f"begins_{number}")


class _Verdict:
    """What one of the judges says; see :class:`Operands`."""

    NAMES = ("valid", "error", "kind", "value", "number", "rows", "beats", "address", "pos",
             "length", "stream", "record")

    def __init__(self, judge: Operands):
        for name in self.NAMES:
            setattr(self, name, Signal.like(getattr(judge, name), name=f"verdict_{name}"))

    def show(self, judge: Operands):
        """Statements that let it be what ``judge`` says."""
        return [getattr(self, name).eq(getattr(judge, name)) for name in self.NAMES]

    def is_kind(self, *names: str):
        """As :meth:`Operands.is_kind`."""
        order = list(isa.FORMATS)
        return Cat(self.kind[order.index(name)] for name in names).any()


class Dispatch(wiring.Component):
    """Fetches, judges, and lets go, one instruction after another.

    Instructions are fetched and judged ahead of the one that is let go, up to the next control
    instruction: that may change what later ones mean.

    An illegal instruction is reported when all before it have finished (``drained``), and so is one
    that waits for what no earlier instruction signals.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    start, entry : ``In``
        Pulse: run from instruction ``entry``.
    stop : ``In(1)``
        Abandon the program.
    halted : ``Out(1)``
        Pulse: HALT, and all before it is finished.
    fault : ``Out({valid: 1, code: 8})``
        Pulse: the instruction at ``pc`` cannot be done.
    pc : ``Out(32)``
    instructions, given, results, result_beats, stops : ``In``
        From the command record; fixed while the program runs.
    sampled : ``In(32)``
        The sampler's last token.
    program, token, preset : ``In({en, addr, data})``
        Writes to program memory, to the given tokens, and to the registers; only while nothing
        runs.
    look : ``In(1)``, look_pc : ``In(32)``, word : ``Out(256)``
        Two cycles after ``look``, while nothing runs: the word at ``look_pc``; zero beyond the
        program.
    step : ``Out(32)``
        Register STEP.
    jobs : array of ``Out(stream.Signature(layouts.JOB))``
        Instructions for the queues, in the order of :func:`queues`.
    stream : ``Out(stream.Signature(layouts.stream_job))``
        What all channels are to read.
    owner : ``Out(stream.Signature(1))``
        For each instruction with constants, whose they are (:class:`Owner`).
    record : ``Out(stream.Signature(32))``
        For each SAMPLE that ends a row of logits, the beat address of its result record.
    issue : ``Out(ISSUE)``, issued : ``Out(reporters)``, room : ``In(reporters)``
        The instruction that is being let go, and who will report it.
    drained : ``In(1)``
        Everything let go has finished, and no write is without its answer.
    waits : ``Out(1)``
        It waits for one of the two.
    written : ``In(1)``
        No instruction that writes HBM is unfinished, and no write is without its answer.
    request, wait, grant : to ``Counters``, for control instructions
    done : ``Out(layouts.DONE)``
        A control instruction has been carried out.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        #: It waits for earlier writes; for room: the pin `events` shows them.
        self.fenced, self.crowded = Signal(), Signal()
        write = lambda depth, shape: data.StructLayout({    # noqa: E731
            "en": 1, "addr": range(depth), "data": shape})
        reports = len(reporters(config))
        super().__init__({
            "start": In(1), "entry": In(32), "stop": In(1),
            "halted": Out(1), "fault": Out(data.StructLayout({"valid": 1, "code": 8})),
            "pc": Out(32),
            "instructions": In(17), "given": In(32), "results": In(32), "result_beats": In(32),
            "stops": In(data.ArrayLayout(unsigned(32), 4)), "sampled": In(32),
            "program": In(write(config.program_words, isa.WORD_BITS)),
            "token": In(write(config.context, 32)), "preset": In(PUT),
            "look": In(1), "look_pc": In(32), "word": Out(isa.WORD_BITS),
            "step": Out(32),
            "jobs": Out(stream.Signature(layouts.JOB)).array(len(queues(config))),
            "stream": Out(stream.Signature(layouts.stream_job(config))),
            "owner": Out(stream.Signature(1)), "record": Out(stream.Signature(32)),
            "issue": Out(ISSUE), "issued": Out(reports), "room": In(reports),
            "drained": In(1), "written": In(1), "waits": Out(1),
            "request": Out(1), "wait": Out(isa.COUNTERS), "grant": In(1),
            "done": Out(layouts.DONE)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.program = program = Ram(
            isa.WORD_BITS, depth=config.program_words, apart=1)
        m.submodules.tokens = tokens = Ram(32, depth=config.context)
        judges = [Operands(config) for _ in range(config.judges)]
        m.submodules += judges
        m.submodules.order = order = Order()
        m.d.comb += [
            program.write_en.eq(self.program.en), program.write_addr.eq(self.program.addr),
            program.write_data.eq(self.program.data),
            tokens.write_en.eq(self.token.en), tokens.write_addr.eq(self.token.addr),
            tokens.write_data.eq(self.token.data)]

        slots = [_Slot(k) for k in range(config.judges)]
        head, tail, count = (Signal(range(config.judges)), Signal(range(config.judges)),
                             Signal(range(config.judges + 1)))
        fetch_pc = Signal(32)
        operands = _Verdict(judges[0])
        word, pc, sequence = Signal(isa.WORD_BITS), self.pc, Signal(16)
        looking = Signal()      # the slot at `head` has a word, and its judge has begun
        with m.Switch(head):
            for k, (slot, judge) in enumerate(zip(slots, judges, strict=True)):
                with m.Case(k):
                    m.d.comb += [word.eq(slot.word), pc.eq(slot.pc), *operands.show(judge),
                                 looking.eq((count != 0) & ~slot.begins)]
        header = layouts.view("NOP", word)
        kind = operands.is_kind
        registers = {number: Signal(32, name=f"r{number}") for number in KEPT}
        put = Signal(PUT)
        m.d.comb += [
            self.step.eq(registers[Register.STEP]),
            order.clear.eq(self.start), order.wait.eq(header.wait), order.signal.eq(header.signal),
            self.wait.eq(header.wait)]
        for slot, judge in zip(slots, judges, strict=True):
            m.d.comb += [
                judge.word.eq(slot.word), judge.pc.eq(slot.pc), judge.start.eq(slot.begins),
                judge.put.eq(put), judge.kept.as_value().eq(Cat(*registers.values())),
                judge.instructions.eq(self.instructions),
                judge.results.eq(self.results), judge.result_beats.eq(self.result_beats),
                judge.given.eq(self.given)]
            m.d.sync += slot.begins.eq(0)

        # The token that follows the current one; a GIVEN reads another at its time.
        following = Signal(32)
        is_given = Signal()
        m.d.comb += [following.eq(registers[Register.STEP] + 1), tokens.read_en.eq(1),
                     tokens.read_addr.eq(Mux(kind("GIVEN"), operands.number, following))]
        m.d.sync += is_given.eq(following < self.given)

        # Whatever is written goes to the memories of all judges, and to the register that is
        # kept, if it is one.
        with m.If(put.en):
            with m.Switch(put.addr):
                for k, register in registers.items():
                    with m.Case(k):
                        m.d.sync += register.eq(put.data)

        def write_register(index, value):
            m.d.comb += [put.en.eq(1), put.addr.eq(index), put.data.eq(value)]

        with m.If(self.preset.en):
            write_register(self.preset.addr, self.preset.data)

        # What an instruction needs before it can be let go, and what it takes along.
        queue = {name: isa.FORMATS[name][1] for name in isa.FORMATS}
        of = lambda wanted: [name for name in queue if queue[name] == wanted]   # noqa: E731
        matmul, load, sample = (layouts.view(name, word) for name in ("MATMUL", "LOAD", "SAMPLE"))
        job = Signal(layouts.JOB)
        m.d.comb += [
            job.word.eq(word), job.rows.eq(operands.rows), job.beats.eq(operands.beats),
            job.address.eq(operands.address), job.pos.eq(operands.pos),
            job.len.eq(operands.length), job.step.eq(registers[Register.STEP]),
            job.target.eq(tokens.read_data), job.target_valid.eq(is_given),
            job.sequence.eq(sequence)]
        streams, owns = Signal(), Signal()
        fence, writes, records = Signal(), Signal(), Signal()
        reporter = Signal(len(reporters(config)))
        m.d.comb += [
            owns.eq(operands.stream.aux != 0),
            streams.eq(kind("MATMUL") | (kind("LOAD") & owns)),
            fence.eq(Mux(kind("MATMUL"), matmul.fence, kind("LOAD") & load.fence)),
            writes.eq(kind("STORE") | (kind("MATMUL") & matmul.merge.any()) | records),
            records.eq(kind("SAMPLE") & sample.last),
            reporter[Reporter.MEMORY].eq(kind(*of(isa.Queue.MEMORY))),
            reporter[Reporter.VECTOR].eq(kind(*of(isa.Queue.VECTOR))),
            reporter[Reporter.BANK].eq(kind("MATMUL") & ~matmul.last),
            reporter[Reporter.EPILOGUE].eq(kind("MATMUL") & matmul.last & (matmul.dest == 0)),
            reporter[Reporter.SOFTMAX].eq(kind("MATMUL") & matmul.last & (matmul.dest != 0)),
            self.issue.pc.eq(pc), self.issue.sequence.eq(sequence), self.issue.writes.eq(writes)]
        if config.cards > 1:
            m.d.comb += [reporter[Reporter[one.name]].eq(kind(*of(one))) for one in _OF_A_RING]

        # Every receiver must have room, then all receive in one cycle.
        ready, written = Signal(), Signal()
        go = Signal()
        into = [kind(*of(wanted)) for wanted in queues(config)]
        takers = [*zip(self.jobs, into, strict=True),
                  (self.stream, streams), (self.owner, owns & streams), (self.record, records)]
        # Who they are is known in JUDGE; choosing among the judges then takes no time in ISSUE.
        wanted, reports, fenced = Signal(len(takers)), Signal.like(reporter), Signal()
        m.d.sync += [wanted.eq(Cat(wants for _, wants in takers)), reports.eq(reporter),
                     fenced.eq(fence)]
        m.d.comb += [
            self.stream.payload.eq(operands.stream), self.record.payload.eq(operands.record),
            self.owner.payload.eq(Mux(kind("LOAD"), Owner.MEMORY, Owner.EPILOGUE)),
            ready.eq(((wanted & ~Cat(port.ready for port, _ in takers)) == 0)
                     & ((reports & ~self.room) == 0)
                     & written),
            written.eq(~fenced | self.written),
            self.issued.eq(Mux(go, reports, 0))]
        m.d.comb += [port.payload.eq(job) for port in self.jobs]
        m.d.comb += [port.valid.eq(go & wants)
                     for (port, _), wants in zip(takers, wanted, strict=True)]

        # Fetch: words go to the judges in turn.
        pop, resume, idle = Signal(), Signal(), Signal()
        taken = Signal()        # a word comes out of program memory into the slot at `tail`
        outside = Signal()
        m.d.comb += [
            program.read_addr.eq(Mux(idle, self.look_pc, fetch_pc)),
            self.word.eq(Mux(outside, 0, program.read_data))]
        with m.If(idle):
            m.d.comb += program.read_en.eq(self.look)
        m.d.sync += count.eq(count + taken - pop)
        with m.If(pop):
            m.d.sync += head.eq(head + 1)
        with m.FSM(name="fetch"):
            with m.State("READ"):
                with m.If(~idle & (count != config.judges)):
                    m.d.comb += program.read_en.eq(1)
                    m.next = "TAKE"
            with m.State("TAKE"):
                m.d.comb += taken.eq(1)
                m.d.sync += [fetch_pc.eq(fetch_pc + 1), tail.eq(tail + 1)]
                with m.Switch(tail):
                    for k, slot in enumerate(slots):
                        with m.Case(k):
                            m.d.sync += [slot.word.eq(program.read_data), slot.pc.eq(fetch_pc),
                                         slot.begins.eq(1)]
                m.next = "READ"
                with m.Switch(program.read_data[:8]):
                    with m.Case(*(isa.FORMATS[name][0] for name in of(isa.Queue.CONTROL))):
                        m.next = "HOLD"
            with m.State("HOLD"):
                with m.If(resume | idle):
                    m.next = "READ"

        code = Signal(8)

        @contextlib.contextmanager
        def state(name):
            with m.State(name):
                yield
                with m.If(self.stop):
                    m.next = "IDLE"

        with m.FSM(name="go"):
            with m.State("IDLE"):
                m.d.comb += idle.eq(1)
                m.d.sync += [head.eq(0), tail.eq(0), count.eq(0)]
                with m.If(self.start):
                    m.d.sync += [fetch_pc.eq(self.entry), sequence.eq(0)]
                    m.next = "LOOK"
                with m.If(self.look):
                    m.d.sync += outside.eq(self.look_pc >= self.instructions)
            with state("LOOK"):
                # `order` sees the word in this cycle and answers in the next.
                with m.If(looking):
                    m.next = "JUDGE"
            with state("JUDGE"):
                with m.If(operands.valid):
                    m.d.sync += code.eq(operands.error)
                    with m.If(operands.error != Error.NONE):
                        m.next = "DRAIN"
                    with m.Elif(order.starved):
                        m.d.sync += code.eq(Error.WATCHDOG)
                        m.next = "DRAIN"
                    with m.Elif(kind(*of(isa.Queue.CONTROL))):
                        m.next = "WAIT"
                    with m.Else():
                        m.next = "ISSUE"
            with state("ISSUE"):
                m.d.comb += [self.fenced.eq(~written), self.crowded.eq(written & ~ready),
                             self.waits.eq(self.fenced)]
                with m.If(ready):
                    m.d.comb += [go.eq(1), order.apply.eq(1)]
                    m.d.sync += sequence.eq(sequence + 1)
                    with m.If(order.full):
                        m.d.sync += code.eq(Error.COUNTER_OVERFLOW)
                        m.next = "DRAIN"
                    with m.Else():
                        m.d.comb += pop.eq(1)
                        m.next = "LOOK"
            with state("WAIT"):
                m.d.comb += self.request.eq(1)
                with m.If(self.grant):
                    m.next = "CARRY OUT"
                    with m.If(kind("HALT")):
                        m.next = "DRAIN"
            with state("CARRY OUT"):
                m.d.comb += [order.apply.eq(1), self.done.valid.eq(1)]
                m.d.sync += [sequence.eq(sequence + 1), fetch_pc.eq(pc + 1)]
                self._carry_out(m, word, operands, registers, write_register, tokens.read_data,
                                following, is_given, fetch_pc)
                with m.If(order.full):
                    m.d.sync += code.eq(Error.COUNTER_OVERFLOW)
                    m.next = "DRAIN"
                with m.Else():
                    m.d.comb += [pop.eq(1), resume.eq(1)]
                    m.next = "LOOK"
            with state("DRAIN"):
                m.d.comb += self.waits.eq(1)
                with m.If(self.drained):
                    final = Mux((code == Error.NONE) & order.full, Error.COUNTER_OVERFLOW, code)
                    m.d.comb += [
                        self.halted.eq(final == Error.NONE), self.done.valid.eq(code == Error.NONE),
                        self.fault.valid.eq(final != Error.NONE), self.fault.code.eq(final)]
                    m.next = "IDLE"
        m.d.comb += self.done.signal.eq(header.signal)
        return m

    def _carry_out(self, m, word, operands, registers, write_register, given, following, is_given,
                   pc):
        """What the control instructions do, besides going to the next one."""
        addi, shri, takes, loop, goes = (
            layouts.view(name, word) for name in ("ADDI", "SHRI", "GIVEN", "LOOP", "NEXT"))
        less, left = Signal(32), Signal(32)
        m.d.comb += [less.eq(operands.value - 1), left.eq(registers[Register.LEFT] - 1)]
        with m.If(operands.is_kind("ADDI")):
            write_register(addi.rd, operands.value + addi.imm)
        with m.If(operands.is_kind("SHRI")):
            write_register(shri.rd, operands.value >> shri.imm)
        with m.If(operands.is_kind("GIVEN")):
            write_register(takes.rd, given)
        with m.If(operands.is_kind("LOOP")):
            write_register(loop.rd, less)
            # Register ZERO is always zero.
            with m.If((operands.value != 1) & (loop.rd != 0)):
                m.d.sync += pc.eq(loop.target)
        with m.If(operands.is_kind("NEXT")):
            for register in (Register.POS, Register.LEN):
                m.d.sync += registers[register].eq(registers[register] + 1)
            stops = Signal()
            m.d.comb += stops.eq(~is_given & Cat(
                (stop == self.sampled) & (stop != NO_STOP) for stop in self.stops).any())
            m.d.sync += [
                registers[Register.STEP].eq(following), registers[Register.LEFT].eq(left),
                registers[Register.TOKEN].eq(Mux(is_given, given, self.sampled))]
            with m.If((registers[Register.LEFT] != 1) & ~stops):
                m.d.sync += pc.eq(goes.target)
