# SPDX-License-Identifier: Apache-2.0
"""Control in Verilator, with memory models and units that only pass time."""

import collections
import dataclasses
import itertools
import random

import numpy as np
import pytest

from cardsim.benches import control_model
from cardsim.benches.control_program import ENDS, HALT, block, program
from cardsim.rtl import Timing, build
from cardsim.rtl.model import Model
from rtl_gen.common import layouts
from rtl_gen.control import queues
from rtl_gen.spec import contract, isa, registers
from rtl_gen.spec.config import TINY
from rtl_gen.spec.registers import COMMAND, FLAG_LOAD, NO_STOP, STATUS, Error
from tests.cosim import stubcard

pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("control")]

CONFIG = dataclasses.replace(TINY, name="stub", channels=8, vector_lanes=8)
BEAT = CONFIG.beat_bytes
#: Beats in channel 0.
RECORD, PROGRAM, TOKENS, STATUS_AT, RESULTS = 0x10, 0x100, 0x3000, 0x3800, 0x4000
LIMIT = 400_000
#: Beats of a status record.
STATUS_BEATS = -(-4 * len(STATUS) // BEAT)


@pytest.fixture(scope="module")
def library():
    patch = pytest.MonkeyPatch()
    patch.setattr(build.emit, "card", stubcard.modules)
    yield build.library(CONFIG, trace=False)
    patch.undo()


class Card:
    """The stand-in card and its logs."""

    def __init__(self, library, **timing):
        self.model = Model(library, CONFIG, Timing(**timing))
        self.forget()
        self.words(0, bytes(RESULTS * BEAT + 0x8000))

    def forget(self):
        """Begin the logs anew, as the stand-in does after a reset."""
        self.read = collections.Counter()
        for channel in range(CONFIG.channels):
            self.model.memory_write(channel * CONFIG.channel_bytes + stubcard.LOG, bytes(1 << 19))

    def words(self, beat, words):
        """Write 32-bit words to channel 0."""
        data = words if isinstance(words, bytes) else np.array(words, "<u4").tobytes()
        self.model.memory_write(beat * BEAT, data)

    def read_words(self, address, count):
        return np.frombuffer(self.model.memory_read(address, 4 * count), "<u4").tolist()

    def load(self, program, /, *, prompt=(), **values):
        """Write a command; its record by names."""
        record = {"magic": registers.COMMAND_MAGIC, "flags": FLAG_LOAD, "program": PROGRAM,
                  "instructions": len(program), "tokens": TOKENS, "given": len(prompt),
                  "status": STATUS_AT, "results": RESULTS, "result_beats": 2,
                  **{f"stop{k}": NO_STOP for k in range(4)}} | values
        record = {name: record.get(name, 0) for name in COMMAND}
        self.words(RECORD, list(record.values()))
        self.words(PROGRAM, [word >> 32 * k & 0xFFFFFFFF for word in program for k in range(8)])
        self.words(TOKENS, prompt)
        self.words(STATUS_AT, [0] * len(STATUS))
        return record

    def run(self, at=RECORD * BEAT):
        """Run to the interrupt; the status window by names."""
        self.model.start(at)
        assert self.model.clock(LIMIT) == "done", self.model.violation
        assert not self.model.violation
        status = dict(zip(STATUS, self.model.acknowledge(), strict=True))
        self.model.clock(40_000)    # what the logs have not written yet
        return status

    def log(self, channel):
        """New events of a logger: (kind, cycle, the rest as an integer)."""
        events = []
        while True:
            place = channel * CONFIG.channel_bytes + stubcard.LOG
            words = self.read_words(
                place + 4 * stubcard.EVENT_WORDS * self.read[channel], stubcard.EVENT_WORDS)
            if not words[0]:
                return events
            self.read[channel] += 1
            events.append((words[0] - 1, words[1],
                           sum(word << 32 * k for k, word in enumerate(words[2:]))))


def check_status(card, status, expected):
    """The window and the record in memory say what the model says."""
    word = sum(status[f"word{k}"] << 32 * k for k in range(8))
    assert (status["error"], status["pc"], word, status["steps"], status["instructions_low"]) == (
        expected.error, expected.pc, expected.word, expected.steps, expected.instructions)
    assert (status["magic"], status["contract"], status["configuration"], status["commit"]) == (
        registers.STATUS_MAGIC, contract.DIGEST, CONFIG.digest, stubcard.COMMIT)
    assert card.read_words(STATUS_AT * BEAT, len(STATUS)) == list(status.values())


@dataclasses.dataclass
class Log:
    """What the units saw in one command."""

    jobs: dict
    #: (cycle, 1 for a report, counters taken, counters given).
    events: list
    #: Cycle in which a writer's data was in memory, by its place in program order.
    written: dict
    streams: list
    owners: list

    @classmethod
    def of(cls, card):
        jobs, events, written = {}, [], {}
        for queue, channel in zip(queues(CONFIG), stubcard.UNITS, strict=True):
            jobs[queue] = []
            for kind, time, bits in card.log(channel):
                job = layouts.JOB.from_bits(bits & (1 << layouts.JOB.size) - 1)
                header = isa.decode(job.word)[1]
                if kind == 0:
                    jobs[queue].append({name: job[name] for name, _ in layouts.JOB})
                    events.append((time - 1, 0, header["wait"], 0))
                elif kind == 1:
                    events.append((time - 1, 1, 0, header["signal"]))
                else:
                    written[job.sequence] = time
        for _, time, bits in card.log(stubcard.GRANTS):
            counters = (1 << isa.COUNTERS) - 1
            wait, granted, signal, done = (
                bits & counters, bits >> 32 & 1, bits >> 64 & counters, bits >> 96 & 1)
            events += [(time, 0, wait, 0)] * granted + [(time, 1, 0, signal)] * done
        streams = [(time, tuple(bits >> 32 * k & 0xFFFFFFFF for k in range(4)))
                   for _, time, bits in card.log(stubcard.STREAMS)]
        return cls(jobs, events, written, streams,
                   [bits & 1 for _, _, bits in card.log(stubcard.OWNERS)])


def check_log(log, expected):
    """Queues got what the model says, nothing started too early, fences held."""
    for queue in queues(CONFIG):
        assert len(log.jobs[queue]) == len(expected.jobs[queue])
        for job, wanted in zip(log.jobs[queue], expected.jobs[queue], strict=True):
            fields = control_model.defined(wanted)
            assert {name: job[name] for name in fields} == fields
    assert [stream for _, stream in log.streams] == expected.streams
    assert log.owners == expected.owners

    counters = [0] * isa.COUNTERS
    # A report counts from the next cycle on.
    for time, _, wait, signal in sorted(log.events, key=lambda event: event[:2]):
        for counter in range(isa.COUNTERS):
            counters[counter] += (signal >> counter & 1) - (wait >> counter & 1)
            assert counters[counter] >= 0, f"started without counter {counter} in cycle {time}"

    order = [log.written[sequence] for sequence in sorted(log.written)]
    for (time, _), writers in zip(log.streams, expected.fences, strict=True):
        assert all(done < time for done in order[:writers]), "a fenced read came too early"


def run_and_check(card, program, /, *, prompt=(), **values):
    """Run a program and hold everything against the model."""
    record = card.load(program, prompt=prompt, **values)
    expected = control_model.run(
        CONFIG, program, record, given=prompt, sample=lambda step: step * 7 + 3 & 0x3F)
    status = card.run()
    check_status(card, status, expected)
    check_log(Log.of(card), expected)
    for place, (token, target, step, pos) in expected.results.items():
        words = card.read_words(place * BEAT, 8)
        assert words[:4] == [token, 0, 0, 0]
        assert words[5:] == [int(target is not None), step, pos]
        assert target in (None, words[4])
    return status, expected


@pytest.mark.parametrize("stall", [0, 200, 700])
def test_random_programs_run_as_the_model_says(library, stall):
    rng = random.Random(f"control {stall}")
    card = Card(library, stall_permille=stall, seed=stall + 1)
    seen = collections.Counter()
    for number in range(4 * len(ENDS)):
        given = [rng.randrange(1, 50) for _ in range(rng.choice((0, 0, 1, 2, 5)))]
        words = program(CONFIG, rng, ENDS[number % len(ENDS)], len(given))
        status, expected = run_and_check(
            card, words, prompt=given, r1=rng.randrange(30), r2=rng.randrange(31),
            r6=rng.randrange(1, 5), r8=rng.randrange(99), r0=77, entry=rng.randrange(2),
            stop0=3 + 7 * rng.randrange(4), stop2=3 + 7 * rng.randrange(4))
        seen[Error(status["error"])] += 1
        seen["fenced"] += sum(map(bool, expected.fences))
        seen["given"] += bool(given)
        seen["steps"] += status["steps"]
    assert min(seen[error] for error in (
        Error.NONE, Error.ILLEGAL_OPCODE, Error.ILLEGAL_OPERAND, Error.ADDRESS_RANGE,
        Error.WATCHDOG, Error.COUNTER_OVERFLOW)) >= 2
    for kind, least in (("fenced", 20), ("given", 10), ("steps", 40)):
        assert seen[kind] >= least, kind


def test_dispatch_keeps_its_rate(library):
    card = Card(library)
    cycles = [run_and_check(card, [isa.encode("NOP")] * count + [HALT])[0]["cycles_low"]
              for count in (100, 200)]
    # Loading takes one cycle for each 32 bits, and the bursts' latency.
    assert (cycles[1] - cycles[0]) / 100 < 8 + 12

    card.load([isa.encode("MATMUL", rows=1, beats=1, columns=1, first=1)] * 12 + [HALT])
    card.run()
    times = [time for time, _ in Log.of(card).streams]
    assert max(b - a for a, b in itertools.pairwise(times)) <= 16


@pytest.mark.parametrize("kind", ["stuck", "starving"])
def test_the_watchdog_names_the_oldest_instruction(library, kind):
    card = Card(library)
    stuck = isa.encode("SCALAR", imm=stubcard.STUCK, signal=2)
    words = [isa.encode("STORE", words=1), isa.encode("SCALAR"), stuck,
             isa.encode("LOAD", words=1, rows=1, wait=2), isa.encode("SCALAR"),
             isa.encode("STORE", words=1), HALT]
    if kind == "starving":      # dispatch itself waits, and what it waits for is older
        words[5:5] = [isa.encode("LOAD", words=1, rows=1, fence=1)]
    card.load(words, watchdog=3000)
    status = card.run()
    assert (status["error"], status["pc"], status["word0"]) == (
        Error.WATCHDOG, 2, stuck & 0xFFFFFFFF)
    assert 3000 < status["cycles_low"] < 4000
    Log.of(card)
    # The units were reset: the next command runs.
    status, _ = run_and_check(card, words[:2] + words[4:])
    assert status["error"] == Error.NONE


def test_a_watchdog_of_zero_is_a_hundred_thousand_cycles(library):
    card = Card(library)
    card.load([isa.encode("SCALAR", imm=stubcard.STUCK), HALT])
    assert 100_000 < card.run()["cycles_low"] < 101_000


def test_an_instruction_that_takes_long_is_no_silence(library):
    card = Card(library)
    words = [isa.encode("ADDI", rd=8, imm=400), isa.encode("NOP"),
             isa.encode("LOOP", rd=8, target=1), HALT]
    card.load(words, watchdog=100)
    assert card.run()["error"] == Error.NONE


def test_what_cannot_be_read_or_written_is_an_error(library):
    good = [isa.encode("SCALAR"), HALT]
    # The program, the given tokens, the record; then a result record and the status record.
    for at, given in ((PROGRAM, ()), (TOKENS, (1,))):
        card = Card(library, read_error_at=at * BEAT)
        card.load(good, prompt=given)
        status = card.run()
        assert (status["error"], status["pc"], status["word0"]) == (Error.AXI_READ, 0, 0)
        assert card.read_words(STATUS_AT * BEAT, len(STATUS)) == list(status.values())
        # What was read badly is not run: the program is gone.
        if at == PROGRAM:
            card.load(good, prompt=given, flags=0)
            assert card.run()["error"] == Error.ILLEGAL_OPCODE
    card = Card(library, read_error_at=RECORD * BEAT)
    card.load(good)
    assert card.run()["error"] == Error.AXI_READ

    sample = isa.encode("SAMPLE", words=1, count=1, first=1, last=1, columns=1)
    card = Card(library, write_error_at=RESULTS * BEAT)
    card.load([sample, HALT])
    status = card.run()
    assert status["error"] == Error.AXI_WRITE
    assert status["pc"] in (0, 1)
    Log.of(card)
    run_and_check(card, [sample, HALT], results=RESULTS + 0x100)
    card = Card(library, write_error_at=STATUS_AT * BEAT)
    card.load(good)
    assert card.run()["error"] == Error.AXI_WRITE


BAD = {
    "magic": {"magic": 1}, "flags": {"flags": 3}, "empty": {"instructions": 0},
    "long": {"instructions": CONFIG.program_words + 1},
    "program": {"program": CONFIG.channel_beats - 3},
    "status": {"status": CONFIG.channel_beats - STATUS_BEATS + 1},
    "given": {"given": CONFIG.context + 1},
    "tokens": {"tokens": CONFIG.channel_beats - 1, "given": 5},
    "far": {"status": 0xFFFFFFFF}}


@pytest.mark.parametrize("case", BAD)
def test_senseless_commands_are_refused(library, case):
    card = Card(library)
    words = [isa.encode("SCALAR"), HALT]
    run_and_check(card, words)
    card.load(words, **BAD[case], r5=99)
    before = card.read_words(STATUS_AT * BEAT, len(STATUS))
    status = card.run()
    assert (status["error"], status["pc"], status["word0"], status["steps"]) == (
        Error.BAD_COMMAND, 0, 0, 0)
    assert card.read_words(STATUS_AT * BEAT, len(STATUS)) == before
    # Nothing was changed: the program is still there.
    record = card.load(words, flags=0, instructions=7)
    expected = control_model.run(CONFIG, words, record, sample=None)
    check_status(card, card.run(), expected)


def test_limits_of_a_command_are_allowed(library):
    card = Card(library)
    last = CONFIG.channel_beats
    words = [isa.encode("SCALAR")] * 3 + [HALT]
    record = card.load(words, status=last - STATUS_BEATS, program=last - 8, tokens=last - 2)
    card.words(last - 8, [word >> 32 * k & 0xFFFFFFFF for word in words for k in range(8)])
    status = card.run()
    check = control_model.run(CONFIG, words, record, sample=None)
    assert (status["error"], status["instructions_low"]) == (Error.NONE, check.instructions)
    given = list(range(1, CONFIG.context + 1))
    run_and_check(Card(library), [isa.encode("NEXT", target=1), HALT], prompt=given, r6=1,
                  r5=CONFIG.context - 2)
    run_and_check(Card(library), [isa.encode("NOP")] * (CONFIG.program_words - 1) + [HALT])


def test_a_record_between_beats_is_refused(library):
    card = Card(library)
    card.load([HALT])
    assert card.run(at=RECORD * BEAT + 4)["error"] == Error.BAD_COMMAND
    assert card.run()["error"] == Error.NONE


def test_sticky_bits_last_for_one_command(library):
    card = Card(library)
    card.load([isa.encode("SCALAR", imm=stubcard.STICKY), HALT])
    assert card.run()["sticky"] == 3
    card.load([isa.encode("SCALAR"), HALT])
    assert card.run()["sticky"] == 0


def test_a_reset_brings_the_card_back_from_any_state(library):
    rng = random.Random("reset")
    card = Card(library, stall_permille=300)
    for _ in range(12):
        card.load(program(CONFIG, rng, "halt"), r6=3, r8=1)
        card.model.start(RECORD * BEAT)
        card.model.clock(rng.randrange(3000))
        card.model.reset()
        card.forget()
        run_and_check(card, [*block(CONFIG, rng, 9), HALT])
