# SPDX-License-Identifier: Apache-2.0
"""Units that only pass time, for control: they take jobs, write, sample and report."""

import collections
import enum
import random
from typing import Any, NamedTuple

import cocotb
from cocotb.triggers import RisingEdge

from rtl_gen.spec import isa
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.isa import Queue

from .control_model import QUEUES, Job, Outcome, defined
from .instructions import JOB
from .streams import HEAVY, pack, unpack

#: A scalar operation with this operand never ends.
STUCK = 0xDEAD0000
#: Cycles from an instruction's end until a unit's last beat shows in ``writing``, at most.
LATE = 4
#: Bits of the fields of ``stream``.
STREAM = (32, 20, 23, 4)


class Reporter(enum.IntEnum):
    """Who reports that an instruction is done, in the order of the port ``done``."""

    MEMORY = 0
    BANK = 1
    EPILOGUE = 2
    SOFTMAX = 3
    VECTOR = 4


class Event(NamedTuple):
    """In ``cycle`` an instruction takes the counters ``takes``, or gives the counters ``gives``."""

    cycle: float
    takes: int
    gives: int


def token(step: int) -> int:
    """What is sampled in a step."""
    return step * 7 + 3 & 0x3F


class Port:
    """Takes what a stream offers, which must stay until it is taken."""

    def __init__(self, dut: Any, name: str, hold: float, seed: str) -> None:
        self.name, self.hold, self.rng = name, hold, random.Random(f"{seed} {name}")
        self.tdata, self.tvalid, self.tready = (
            getattr(dut, f"{name}_{part}") for part in ("tdata", "tvalid", "tready"))
        self.held: int | None = None
        self.ready = False

    def step(self) -> tuple[int | None, int | None]:
        """What is offered for the first time, and what was taken, at this edge."""
        new = taken = None
        if self.tvalid.value:
            offered = int(self.tdata.value)
            if self.held is None:
                self.held = new = offered
            assert offered == self.held, f"{self.name} changed its mind: {self.held:#x}"
            if self.ready:
                taken, self.held = offered, None
        else:
            assert self.held is None, f"{self.name} changed its mind: {self.held:#x}, then nothing"
        # Where stalls are heavy, only what waits already is taken.
        ready = self.rng.random() >= self.hold and (self.hold < HEAVY or self.held is not None)
        if ready != self.ready:
            self.ready = ready
            self.tready.value = int(ready)
        return new, taken


class Units:
    """All units, clock by clock, and a log of one command.

    Several instructions are under way at once, one for each reporter.

    Parameters
    ----------
    dut : handle
    config : CardConfig
    stall, hold : float
        Chance in a cycle that result records, and that takers, hold back.
    seed : str
    eventful : bool
        Show random events and sticky bits while instructions are under way.
    """

    def __init__(self, dut: Any, config: CardConfig, stall: float, hold: float, seed: str, *,
                 eventful: bool = True) -> None:
        self.dut, self.stall, self.eventful = dut, stall, eventful
        self.rng, self.cycle = random.Random(seed), 0
        self.beat_bits = config.channels.bit_length()
        self.most = config.channels
        self.ports = {name: Port(dut, f"m_axis_{name}", hold, seed)
                      for name in ("jobs_0", "jobs_1", "jobs_2", "stream", "owner")}
        for name in ("done", "sampled", "events", "nonfinite", "out_of_range", "reading", "writing",
                     "read_error", "write_error"):
            getattr(dut, name).value = 0
        self.forget()
        cocotb.start_soon(self._run())

    def forget(self) -> None:
        """All is as after a reset; begin the log anew."""
        self.jobs: dict[Queue, list[dict[str, int]]] = {queue: [] for queue in QUEUES}
        self.streams: list[tuple[int, ...]] = []
        self.owners: list[int] = []
        #: Cycles in which streams were offered.
        self.offered: list[int] = []
        self.order: list[Event] = []
        #: (cycle, place in program order) of every job offered.
        self.starts: list[tuple[int, int]] = []
        #: Last cycle in which a writer had beats under way, by its place in program order.
        self.written: dict[int, int] = {}
        #: Words of result records, by step.
        self.records: dict[int, list[int]] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.sticky = 0
        self._stop()

    def _stop(self) -> None:
        """As ``reset_units`` leaves the units."""
        for port in self.ports.values():
            port.held = None
        self.work: dict[Reporter, collections.deque[Job]] = {
            one: collections.deque() for one in Reporter}
        self.left = dict.fromkeys(Reporter, 0)
        #: First and last cycles of writes.
        self.writes: list[tuple[int, int]] = []
        self.words: list[int] = []
        self.sending = False
        self.shown: dict[str, int] = {}
        self.dut.s_axis_record_tvalid.value = 0

    def show(self, name: str, value: int) -> None:
        """Drive a port, if it does not have the value already."""
        if self.shown.get(name) != value:
            self.shown[name] = value
            getattr(self.dut, name).value = value

    async def _run(self) -> None:
        dut = self.dut
        while True:
            await RisingEdge(dut.aclk)
            self.cycle += 1
            if dut.reset_units.value or not dut.aresetn.value:
                self._stop()
                self.show("done", 0)
                self.show("sampled", 0)
                continue
            for number, queue in enumerate(QUEUES):
                self._take(queue, *self.ports[f"jobs_{number}"].step())
            new, taken = self.ports["stream"].step()
            if new is not None:
                self.offered.append(self.cycle)
            if taken is not None:
                self.streams.append(tuple(unpack(taken, STREAM)))
            _, owner = self.ports["owner"].step()
            if owner is not None:
                self.owners.append(owner)
            self._work()
            self._happen()

    def _take(self, queue: Queue, new: int | None, taken: int | None) -> None:
        """A job is offered, and taken."""
        if new is not None:
            job = dict(zip(JOB, unpack(new, list(JOB.values())), strict=True))
            self.order.append(Event(self.cycle, isa.decode(job["word"])[1]["wait"], 0))
            self.starts.append((self.cycle, job["sequence"]))
        if taken is not None:
            job = dict(zip(JOB, unpack(taken, list(JOB.values())), strict=True))
            self.jobs[queue].append(job)
            name, fields = isa.decode(job["word"])
            match name:
                case "LOAD" | "STORE":
                    reporter = Reporter.MEMORY
                case "MATMUL" if not fields["last"]:
                    reporter = Reporter.BANK
                case "MATMUL":
                    reporter = Reporter.SOFTMAX if fields["dest"] else Reporter.EPILOGUE
                case _:
                    reporter = Reporter.VECTOR
            if not self.work[reporter]:
                self._begin(reporter, job)
            self.work[reporter].append(job)

    def _begin(self, reporter: Reporter, job: Job) -> None:
        self.left[reporter] = self.rng.randrange(32)
        name, fields = isa.decode(job["word"])
        if name == "SAMPLE" and fields["last"]:
            self.words = [self.rng.getrandbits(32) for _ in range(self.rng.randint(1, 8))]
            self.records[job["step"]] = list(self.words)

    def _work(self) -> None:
        """A cycle of work for every reporter; the first of each may end."""
        done = sampled = 0
        # So that many report in the same cycle.
        closed = self.rng.random() < 0.7
        self._send()
        for reporter, jobs in self.work.items():
            if not jobs:
                continue
            name, fields = isa.decode(jobs[0]["word"])
            if (reporter == Reporter.VECTOR and self.words) or fields.get("imm") == STUCK:
                continue
            self.left[reporter] -= 1
            if self.left[reporter] >= 0 or closed:
                continue
            job = jobs.popleft()
            done |= (1 | fields["signal"] << 1) << (1 + isa.COUNTERS) * reporter
            self.order.append(Event(self.cycle, 0, fields["signal"]))
            if name == "SAMPLE" and fields["last"]:
                sampled = 1 | token(job["step"]) << 1
            if name == "STORE" or fields.get("merge"):
                first = self.cycle + self.rng.randrange(LATE)
                last = first + self.rng.choice((0, self.rng.randrange(100)))
                self.writes.append((first, last))
                self.written[job["sequence"]] = last
            if jobs:
                self._begin(reporter, jobs[0])
        self.writes = [(first, last) for first, last in self.writes if last >= self.cycle]
        self.show("writing", int(any(first <= self.cycle for first, _ in self.writes)))
        self.show("done", done)
        self.show("sampled", sampled)

    def _send(self) -> None:
        """The words of a result record, one after another."""
        dut = self.dut
        if self.sending:
            if not dut.s_axis_record_tready.value:
                return
            self.words.pop(0)
        self.sending = bool(self.words) and self.rng.random() >= self.stall
        dut.s_axis_record_tvalid.value = int(self.sending)
        if self.sending:
            dut.s_axis_record_tdata.value = self.words[0]
            dut.s_axis_record_tlast.value = int(len(self.words) == 1)

    def _happen(self) -> None:
        """Beats move, the engine waits, numbers overflow, while an instruction is under way."""
        rng, busy = self.rng, self.eventful and any(self.work.values())
        reads, writes, entries, weights, rows = (
            (rng.randint(0, self.most), rng.randint(0, self.most), rng.randrange(3),
             rng.randrange(2), rng.randrange(2)) if busy and rng.random() < 0.3 else (0,) * 5)
        self.counts.update({
            "read_beats": reads, "write_beats": writes, "engine_beats": entries,
            "engine_cycles": int(entries > 0), "stall_weights": int(not entries and weights),
            "stall_epilogue": int(not entries and not weights and rows)})
        self.show("events", pack([(reads, self.beat_bits), (writes, self.beat_bits), (entries, 2),
                                  (weights, 1), (rows, 1)]))
        sticky = 1 << rng.randrange(2) if busy and rng.random() < 0.003 else 0
        self.sticky |= sticky
        self.show("nonfinite", sticky & 1)
        self.show("out_of_range", sticky >> 1)

    def check(self, expected: Outcome) -> None:
        """Every port gave what the model says; nothing came too early."""
        for queue, wanted in expected.jobs.items():
            assert len(self.jobs[queue]) == len(wanted), f"{queue.name}: jobs"
            for job, one in zip(self.jobs[queue], wanted, strict=True):
                fields = defined(one)
                found = {name: job[name] for name in fields}
                assert found == fields, f"{isa.decode(one['word'])[0]}: {found}, not {fields}"
        assert self.streams == expected.streams
        assert self.owners == expected.owners
        writers = [self.written[place] for place in sorted(self.written)]
        for cycle, before in zip(self.offered, expected.fences, strict=True):
            assert all(last < cycle for last in writers[:before]), "a fenced read came too early"
        self._check_counters(expected)

    def _check_counters(self, expected: Outcome) -> None:
        # Dispatch cannot be seen: at the earliest its instructions signal at once, and at the
        # latest they have waited when a later job starts.
        later = [(min((cycle for cycle, job in self.starts if job > place), default=float("inf")),
                  wait, signal) for place, wait, signal in expected.control]
        events = [*self.order, *(Event(-1, 0, signal) for _, _, signal in later),
                  *(Event(cycle, wait, 0) for cycle, wait, _ in later if cycle != float("inf"))]
        counters = [0] * isa.COUNTERS
        # A report counts from the next cycle on.
        for cycle, takes, gives in sorted(events, key=lambda event: (event.cycle, event.gives > 0)):
            for number in range(isa.COUNTERS):
                counters[number] += (gives >> number & 1) - (takes >> number & 1)
                assert counters[number] >= 0, f"started without counter {number}, cycle {cycle}"
