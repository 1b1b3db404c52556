# SPDX-License-Identifier: Apache-2.0
"""SENDs and RECEIVEs between the scratchpad and two links: random messages, all ways at once."""

import itertools
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from rtl_gen.spec import isa
from rtl_gen.spec.config import CardConfig

from .instructions import config, job, serve
from .streams import CASES, STALLS, Payload, collect, compare, drive, idle, reset, transfers

#: The previous card, the next.
SIDES = range(2)
#: Cycles that a case may take.
LIMIT = 100_000
#: Messages whose pace is measured.
COUNT = 6
#: Port of the jobs and instructions, by what reports: SENDs of both sides, then RECEIVEs.
JOBS = tuple((f"s_axis_{what}_{side}", names[side]) for what, names in (
    ("send", isa.SENDS), ("receive", isa.RECEIVES)) for side in SIDES)
#: As the page says: SEND to its first beat, its last beat to its report, a RECEIVE's last beat to
#: its report.
FIRST, SENT, RECEIVED = 1, 1, 2


def fields(card: CardConfig, rng: random.Random, place: str, within: range) -> dict[str, int]:
    """Of a random legal instruction whose words lie from ``place`` on, within some."""
    words, columns = rng.choice((1, 1, 2, 3, 7, 20)), rng.randint(1, card.tokens)
    stride = rng.choice((0, 1, words, words + rng.randrange(9)))
    room = len(within) - words - stride * (columns - 1)
    return {"words": words, "columns": columns, "stride": stride,
            place: within.start + rng.choice((0, room, rng.randrange(room + 1))),
            "signal": rng.getrandbits(isa.COUNTERS)}


def places(values: dict[str, int], place: str) -> list[int]:
    """Scratchpad words of an instruction, in the order of its message."""
    return [values[place] + token * values["stride"] + word
            for token in range(values["columns"]) for word in range(values["words"])]


def beats(word: int, size: int, count: int) -> list[int]:
    """A word's low bytes first."""
    return [word >> 8 * size * k & (1 << 8 * size) - 1 for k in range(count)]


def marked(message: list[int]) -> list[Payload]:
    """Beats with their ``last``."""
    return [(beat, int(k == len(message) - 1)) for k, beat in enumerate(message)]


class Work:
    """Random instructions, and what comes of them.

    RECEIVEs of each side write their own half of the scratchpad, so that what was written says
    whose it is.

    Attributes
    ----------
    jobs : four lists of payloads
        In the order of :data:`JOBS`.
    given, taken : lists by side
        Beats for each side; beats that each side brings.
    written : two lists of int
        Payloads of ``write``, by side.
    ends : four lists of (signal, beats or words until then)
        Of every instruction, in the order of :data:`JOBS`.
    """

    def __init__(self, card: CardConfig, rng: random.Random, count: int,
                 memory: list[int]) -> None:
        size, per_word = card.beat_bytes, card.word_bytes // card.beat_bytes
        half = card.scratch_words // 2
        self.jobs: list[list[Payload]] = [[] for _ in JOBS]
        self.given: list[list[Payload]] = [[] for _ in SIDES]
        self.taken: list[list[Payload]] = [[] for _ in SIDES]
        self.written: list[list[int]] = [[] for _ in SIDES]
        self.ends: list[list[tuple[int, int]]] = [[] for _ in JOBS]
        for side in SIDES:
            for _ in range(count):
                values = fields(card, rng, "src", range(card.scratch_words))
                self.jobs[side].append(job(isa.encode(isa.SENDS[side], **values)))
                self.given[side] += marked([beat for at in places(values, "src")
                                            for beat in beats(memory[at], size, per_word)])
                self.ends[side].append((values["signal"], len(self.given[side])))

                values = fields(card, rng, "dst", range(side * half, side * half + half))
                self.jobs[2 + side].append(job(isa.encode(isa.RECEIVES[side], **values)))
                words = [rng.getrandbits(8 * card.word_bytes) for _ in places(values, "dst")]
                self.taken[side] += marked(
                    [beat for word in words for beat in beats(word, size, per_word)])
                self.written[side] += [
                    at | word << 16 for at, word in zip(places(values, "dst"), words, strict=True)]
                self.ends[2 + side].append((values["signal"], len(self.written[side])))


class Bench:
    """The unit with its scratchpad, and what it reports."""

    def __init__(self, dut: Any, seed: str) -> None:
        self.dut, self.card, self.rng = dut, config(), random.Random(seed)
        self.words = [self.rng.getrandbits(8 * self.card.word_bytes)
                      for _ in range(self.card.scratch_words)]
        self.memory = np.array([list(word.to_bytes(self.card.word_bytes, "little"))
                                for word in self.words], np.uint8)
        self.ends: list[list[tuple[int, int]]] = [[] for _ in JOBS]
        #: Words of each side written.
        self.written = [0, 0]

    def side(self, written: int) -> int:
        """Whose a payload of ``write`` is."""
        return int((written & 0xFFFF) >= self.card.scratch_words // 2)

    async def begin(self) -> None:
        """Reset, and watch."""
        dut = self.dut
        await reset(dut)
        serve(dut, "read", self.memory)
        given = [transfers(dut, f"m_axis_o_{side}") for side in SIDES]
        written = transfers(dut, "m_axis_write")
        self.logs = (*given, written)

        async def watch() -> None:
            while True:
                # What is done was over in an earlier cycle.
                for word in written:
                    self.written[self.side(word)] += 1
                written.clear()
                counts = [*(len(log) for log in given), *self.written]
                await RisingEdge(dut.aclk)
                for ends, done, count in zip(self.ends, reports(dut), counts, strict=True):
                    if done & 1:
                        ends.append((done >> 1, count))
        cocotb.start_soon(watch())

    def work(self, count: int) -> Work:
        """Random instructions on what is in the scratchpad; the logs begin anew."""
        for log in self.logs:
            log.clear()
        self.written[:] = 0, 0
        for ends in self.ends:
            ends.clear()
        return Work(self.card, self.rng, count, self.words)

    def start(self, work: Work, stall: float, hold: float, seed: str) -> tuple[Any, Any]:
        """Tasks of what the unit takes and of what it gives."""
        sends = {**{port: jobs for (port, _), jobs in zip(JOBS, work.jobs, strict=True)},
                 **{f"s_axis_i_{side}": work.taken[side] for side in SIDES}}
        takes = {"m_axis_write": sum(len(words) for words in work.written),
                 **{f"m_axis_o_{side}": len(work.given[side]) for side in SIDES}}
        return ([cocotb.start_soon(drive(self.dut, name, payloads, stall, f"{seed} {name}"))
                 for name, payloads in sends.items()],
                {name: cocotb.start_soon(collect(
                    self.dut, name, count, hold, f"{seed} {name}", LIMIT))
                 for name, count in takes.items()})

    async def run(self, work: Work, stall: float, hold: float, seed: str) -> None:
        """All instructions, held against what is to come of them."""
        _, takes = self.start(work, stall, hold, seed)
        got = {name: await task for name, task in takes.items()}
        await ClockCycles(self.dut.aclk, 10)
        written = [payload for payload, _ in got["m_axis_write"]]
        for side in SIDES:
            compare(got[f"m_axis_o_{side}"], work.given[side])
            assert not getattr(self.dut, f"m_axis_o_{side}_tvalid").value
            compare([word for word in written if self.side(word) == side], work.written[side])
        for found, wanted in zip(self.ends, work.ends, strict=True):
            # In order, and not before all of it is over; others may have begun by then.
            compare([signal for signal, _ in found], [signal for signal, _ in wanted])
            for (_, count), (_, least) in zip(found, wanted, strict=True):
                assert count >= least
        assert not self.dut.wrong.value


def reports(dut: Any) -> list[int]:
    """What ``done`` says of each of :data:`JOBS`: valid, above it the signals."""
    done, width = int(dut.done.value), 1 + isa.COUNTERS
    return [done >> k * width & (1 << width) - 1 for k in range(len(JOBS))]


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize((("stall", "hold"), CASES))
async def messages_equal_the_reference(dut: Any, stall: float, hold: float) -> None:
    seed = f"exchange {stall} {hold}"
    bench = Bench(dut, seed)
    await bench.begin()
    for count in (100, 30):
        await bench.run(bench.work(count), stall, hold, f"{seed} {count}")


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(change=[-1, 1], side=[0, 1], stall=[0.0, 0.3])
async def another_length_is_noticed(dut: Any, change: int, side: int, stall: float) -> None:
    seed = f"exchange {change} {side} {stall}"
    bench = Bench(dut, seed)
    await bench.begin()
    card, rng = bench.card, bench.rng
    for number in range(6):
        bench.work(0)
        values = {"dst": 3, "words": rng.randint(2, 6), "columns": rng.randint(1, card.tokens),
                  "stride": 9}
        length = len(places(values, "dst")) * (card.word_bytes // card.beat_bytes)
        # Shorter or longer by a beat, or by more.
        count = max(1, length + change * rng.choice((1, 1, 3)))
        message = [(rng.getrandbits(8 * card.beat_bytes), int(k == count - 1))
                   for k in range(count)]
        jobs = [job(isa.encode(isa.RECEIVES[side], **values))] * 2
        drivers = [cocotb.start_soon(drive(dut, name, payloads, stall, f"{seed} {name} {number}"))
                   for name, payloads in ((f"s_axis_receive_{side}", jobs),
                                          (f"s_axis_i_{side}", message + message))]
        dut.m_axis_write_tready.value = 1
        for _ in range(500):
            await RisingEdge(dut.aclk)
            if dut.wrong.value:
                break
        assert dut.wrong.value
        assert int(dut.side.value) == side
        await ClockCycles(dut.aclk, 40)
        assert dut.wrong.value, "it stays"
        assert not dut.waits.value
        assert not bench.ends[2 + side], "the message was not received"
        for driver in drivers:
            driver.cancel()
        idle(dut)
        dut.aresetn.value = 0
        await ClockCycles(dut.aclk, 2)
        dut.aresetn.value = 1
        await bench.run(bench.work(5), stall, stall, f"{seed} {number} anew")


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def a_reset_makes_it_as_new(dut: Any, stall: float) -> None:
    seed = f"exchange reset {stall}"
    bench = Bench(dut, seed)
    await bench.begin()
    cut = 0
    for number in range(20):
        work = bench.work(4)
        gives, takes = bench.start(work, stall, stall, f"{seed} {number}")
        await ClockCycles(dut.aclk, bench.rng.randrange(4, int(80 / (1.1 - stall))))
        cut += any(len(found) < len(wanted)
                   for found, wanted in zip(bench.ends, work.ends, strict=True))
        for task in (*gives, *takes.values()):
            task.cancel()
        idle(dut)
        dut.aresetn.value = 0
        await ClockCycles(dut.aclk, 2)
        dut.aresetn.value = 1
        await bench.run(bench.work(2), stall, stall, f"{seed} {number} anew")
    assert cut, "a reset must have come before the end of the work"


async def pace(dut: Any, sides: Sequence[int]) -> tuple[dict[str, list[int]], int]:
    """Messages of some sides one behind the other: cycles of what happens, by name and side, and
    beats of a message."""
    bench = Bench(dut, f"exchange pace {sides}")
    await bench.begin()
    card, per_word = bench.card, bench.card.word_bytes // bench.card.beat_bytes
    words, columns = 5, 2
    length = words * columns * per_word
    values = {"words": words, "columns": columns, "stride": 6, "signal": 1}
    message = marked([bench.rng.getrandbits(8 * card.beat_bytes) for _ in range(length)])
    log: dict[str, list[int]] = defaultdict(list)
    dut.m_axis_write_tready.value = 1
    for side in SIDES:
        getattr(dut, f"m_axis_o_{side}_tready").value = 1

    async def watch() -> None:
        for cycle in itertools.count():
            await RisingEdge(dut.aclk)
            seen = {"waits": dut.waits.value, "moves": dut.moves.value}
            for k, (done, (port, _)) in enumerate(zip(reports(dut), JOBS, strict=True)):
                side, what = k % 2, ("sent", "received")[k // 2]
                seen |= {f"{what} {side}": done & 1,
                         f"{port[7:-2]} {side}": getattr(dut, f"{port}_tvalid").value}
            for side in SIDES:
                taken, ready = (getattr(dut, f"s_axis_i_{side}_{part}").value
                                for part in ("tvalid", "tready"))
                seen |= {f"o {side}": getattr(dut, f"m_axis_o_{side}_tvalid").value,
                         f"i {side}": int(taken) & int(ready)}
            for name, high in seen.items():
                if int(high):
                    log[name].append(cycle)
    cocotb.start_soon(watch())
    for port, name in JOBS:
        if int(port[-1]) in sides:
            place = "src" if name in isa.SENDS else "dst"
            jobs = [job(isa.encode(name, **values, **{place: 0}))] * COUNT
            cocotb.start_soon(drive(dut, port, jobs, 0.0, name))
    await ClockCycles(dut.aclk, 20)
    assert len(log["waits"]) >= 15, "a RECEIVE waits"
    drivers = [cocotb.start_soon(drive(dut, f"s_axis_i_{side}", message * COUNT, 0.0, "i"))
               for side in sides]
    for driver in drivers:
        await driver
    await ClockCycles(dut.aclk, 20 + COUNT * length * len(sides))
    return log, length


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(side=SIDES)
async def a_beat_moves_in_every_cycle(dut: Any, side: int) -> None:
    """Messages of a side one behind the other, without a gap, and the latencies of the page."""
    log, length = await pace(dut, [side])
    total = COUNT * length
    for name in (f"o {side}", f"i {side}"):
        assert log[name] == list(range(log[name][0], log[name][0] + total)), f"gaps in {name}"
    assert log[f"o {side}"][0] - log[f"send {side}"][0] == FIRST
    for number in range(COUNT):
        at = (number + 1) * length - 1
        assert log[f"sent {side}"][number] - log[f"o {side}"][at] == SENT
        assert log[f"received {side}"][number] - log[f"i {side}"][at] == RECEIVED
    assert log["waits"][-1] < log[f"i {side}"][0]
    assert set(log["moves"]) == {*log[f"o {side}"], *log[f"i {side}"]}


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def both_sides_move_in_every_cycle(dut: Any) -> None:
    """Where a word is two beats or more, both sides send and receive a beat a cycle; where it is
    one, they take turns."""
    log, length = await pace(dut, SIDES)
    card = config()
    turns = 2 if card.word_bytes == card.beat_bytes else 1
    for name in (f"{what} {side}" for what in "oi" for side in SIDES):
        found = log[name]
        assert len(found) == COUNT * length
        # The side that does not begin is a cycle later; from there on nothing is lost.
        assert found[-1] - found[0] <= turns * (len(found) - 1) + 1, name
    for what in "oi":
        first, second = (log[f"{what} {side}"] for side in SIDES)
        assert abs(first[0] - second[0]) <= 1
        assert abs(first[-1] - second[-1]) <= 1, "neither side goes before the other"
