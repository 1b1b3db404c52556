# SPDX-License-Identifier: Apache-2.0
"""SEND and RECEIVE between the scratchpad and two links: random messages, both ways at once."""

import itertools
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from rtl_gen.spec import isa
from rtl_gen.spec.config import CardConfig

from .instructions import config, job, serve
from .streams import CASES, STALLS, Payload, collect, compare, drive, idle, reset, transfers

SIDES = ("previous", "next")
#: Cycles that a case may take.
LIMIT = 100_000
#: As the page says: SEND to its first beat, its last beat to its report, a RECEIVE's last beat to
#: its report.
FIRST, SENT, RECEIVED = 1, 1, 2


def fields(card: CardConfig, rng: random.Random, place: str) -> dict[str, int]:
    """Of a random legal instruction whose words lie from ``place`` on."""
    words, columns = rng.choice((1, 1, 2, 3, 7, 20)), rng.randint(1, card.tokens)
    stride = rng.choice((0, 1, words, words + rng.randrange(9)))
    room = card.scratch_words - words - stride * (columns - 1)
    return {"words": words, "columns": columns, "stride": stride,
            place: rng.choice((0, room, rng.randrange(room + 1))),
            "signal": rng.getrandbits(isa.COUNTERS)}


def places(values: dict[str, int], place: str) -> list[int]:
    """Scratchpad words of an instruction, in the order of its message."""
    return [values[place] + token * values["stride"] + word
            for token in range(values["columns"]) for word in range(values["words"])]


def beats(word: int, size: int, count: int) -> list[int]:
    """A word's low bytes first."""
    return [word >> 8 * size * k & (1 << 8 * size) - 1 for k in range(count)]


class Work:
    """Random instructions, and what comes of them.

    Attributes
    ----------
    sends, receives : list of payloads
        Jobs.
    given : dict
        Beats for each side.
    taken : dict
        Beats that each side brings.
    written : list of int
        Payloads of ``write``.
    ends : two lists of (signal, beats or words until then)
        Of every SEND, with the beats of both sides, and of every RECEIVE.
    """

    def __init__(self, card: CardConfig, rng: random.Random, count: int,
                 memory: list[int]) -> None:
        size, per_word = card.beat_bytes, card.word_bytes // card.beat_bytes
        self.sends: list[Payload] = []
        self.receives: list[Payload] = []
        self.given: dict[str, list[Payload]] = {side: [] for side in SIDES}
        self.taken: dict[str, list[Payload]] = {side: [] for side in SIDES}
        self.written: list[int] = []
        self.ends: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = ([], [])
        for _ in range(count):
            values = fields(card, rng, "src")
            sides = rng.choice((("previous",), ("next",), SIDES))
            self.sends.append(job(isa.encode("SEND", **values, **dict.fromkeys(sides, 1))))
            message = [beat for at in places(values, "src")
                       for beat in beats(memory[at], size, per_word)]
            for side in sides:
                self.given[side] += self._marked(message)
            self.ends[0].append((values["signal"], *(len(self.given[side]) for side in SIDES)))

            values, source = fields(card, rng, "dst"), rng.randrange(2)
            self.receives.append(job(isa.encode("RECEIVE", **values, source=source)))
            words = [rng.getrandbits(8 * card.word_bytes) for _ in places(values, "dst")]
            self.taken[SIDES[source]] += self._marked(
                [beat for word in words for beat in beats(word, size, per_word)])
            self.written += [at | word << 16
                             for at, word in zip(places(values, "dst"), words, strict=True)]
            self.ends[1].append((values["signal"], len(self.written)))

    def _marked(self, message: list[int]) -> list[Payload]:
        return [(beat, int(k == len(message) - 1)) for k, beat in enumerate(message)]


class Bench:
    """The unit with its scratchpad, and what it reports."""

    def __init__(self, dut: Any, seed: str) -> None:
        self.dut, self.card, self.rng = dut, config(), random.Random(seed)
        self.words = [self.rng.getrandbits(8 * self.card.word_bytes)
                      for _ in range(self.card.scratch_words)]
        self.memory = np.array([list(word.to_bytes(self.card.word_bytes, "little"))
                                for word in self.words], np.uint8)
        self.ends: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = ([], [])

    async def begin(self) -> None:
        """Reset, and watch."""
        dut = self.dut
        await reset(dut)
        serve(dut, "read", self.memory)
        given = [transfers(dut, f"m_axis_o_{side}") for side in range(2)]
        written = transfers(dut, "m_axis_write")
        self.logs = (*given, written)

        async def watch() -> None:
            while True:
                # What is done was over in an earlier cycle.
                counts = [len(log) for log in self.logs]
                await RisingEdge(dut.aclk)
                done = int(dut.done.value)
                if done & 1:
                    self.ends[0].append((done >> 1 & (1 << isa.COUNTERS) - 1, *counts[:2]))
                if done >> 1 + isa.COUNTERS & 1:
                    signal = done >> 2 + isa.COUNTERS & (1 << isa.COUNTERS) - 1
                    self.ends[1].append((signal, counts[2]))
        cocotb.start_soon(watch())

    def work(self, count: int) -> Work:
        """Random instructions on what is in the scratchpad; the logs begin anew."""
        for log in self.logs:
            log.clear()
        for ends in self.ends:
            ends.clear()
        return Work(self.card, self.rng, count, self.words)

    def start(self, work: Work, stall: float, hold: float, seed: str) -> tuple[Any, Any]:
        """Tasks of what the unit takes and of what it gives."""
        sends = {"s_axis_send": work.sends, "s_axis_receive": work.receives,
                 **{f"s_axis_i_{k}": work.taken[side] for k, side in enumerate(SIDES)}}
        takes = {"m_axis_write": len(work.written),
                 **{f"m_axis_o_{k}": len(work.given[side]) for k, side in enumerate(SIDES)}}
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
        for k, side in enumerate(SIDES):
            compare(got[f"m_axis_o_{k}"], work.given[side])
            assert not getattr(self.dut, f"m_axis_o_{k}_tvalid").value
        compare([payload for payload, _ in got["m_axis_write"]], work.written)
        for found, wanted in zip(self.ends, work.ends, strict=True):
            # In order, and not before all of it is over; others may have begun by then.
            compare([signal for signal, *_ in found], [signal for signal, *_ in wanted])
            for (_, *counts), (_, *least) in zip(found, wanted, strict=True):
                assert all(a >= b for a, b in zip(counts, least, strict=True))
        assert not self.dut.wrong.value


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
        jobs = [job(isa.encode("RECEIVE", **values, source=side))] * 2
        drivers = [cocotb.start_soon(drive(dut, name, payloads, stall, f"{seed} {name} {number}"))
                   for name, payloads in (("s_axis_receive", jobs),
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
        assert not bench.ends[1], "the message was not received"
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


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def a_beat_moves_in_every_cycle(dut: Any) -> None:
    """Messages one behind the other, without a gap, and the latencies of the page."""
    bench = Bench(dut, "exchange pace")
    await bench.begin()
    card, per_word = bench.card, bench.card.word_bytes // bench.card.beat_bytes
    count, words, columns = 6, 5, 2
    total = count * words * columns * per_word
    values = {"words": words, "columns": columns, "stride": 6}
    send, receive = (job(isa.encode(name, **values, **more)) for name, more in (
        ("SEND", {"previous": 1, "next": 1, "signal": 1}), ("RECEIVE", {"signal": 1})))
    message = [(bench.rng.getrandbits(8 * card.beat_bytes), int(k == total // count - 1))
               for k in range(total // count)]
    for port in ("m_axis_o_0", "m_axis_o_1", "m_axis_write"):
        getattr(dut, f"{port}_tready").value = 1
    log: dict[str, list[int]] = {name: [] for name in (
        "send", "receive", "o", "i", "sent", "received", "waits", "moves")}

    async def watch() -> None:
        valid = {"send": dut.s_axis_send_tvalid, "receive": dut.s_axis_receive_tvalid,
                 "waits": dut.waits, "moves": dut.moves}
        for cycle in itertools.count():
            await RisingEdge(dut.aclk)
            seen = {name: bool(port.value) for name, port in valid.items()}
            seen |= {"o": bool(dut.m_axis_o_0_tvalid.value & dut.m_axis_o_1_tvalid.value),
                     "i": bool(dut.s_axis_i_0_tvalid.value & dut.s_axis_i_0_tready.value),
                     "sent": bool(int(dut.done.value) & 1),
                     "received": bool(int(dut.done.value) >> 1 + isa.COUNTERS & 1)}
            for name, high in seen.items():
                if high:
                    log[name].append(cycle)
    cocotb.start_soon(watch())
    for name, payloads in (("s_axis_send", [send] * count), ("s_axis_receive", [receive] * count)):
        cocotb.start_soon(drive(dut, name, payloads, 0.0, name))
    await ClockCycles(dut.aclk, 20)
    assert len(log["waits"]) >= 15, "a RECEIVE waits"
    await drive(dut, "s_axis_i_0", message * count, 0.0, "i")
    await ClockCycles(dut.aclk, 20 + total)
    for name in ("o", "i"):
        assert log[name] == list(range(log[name][0], log[name][0] + total)), f"gaps in {name}"
    assert log["o"][0] - log["send"][0] == FIRST
    last = total // count - 1
    for number in range(count):
        at = number * (last + 1) + last
        assert log["sent"][number] - log["o"][at] == SENT
        assert log["received"][number] - log["i"][at] == RECEIVED
    assert log["waits"][-1] < log["i"][0]
    assert set(log["moves"]) == {*log["o"], *log["i"]}
