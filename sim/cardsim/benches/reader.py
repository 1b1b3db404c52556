# SPDX-License-Identifier: Apache-2.0
"""The HBM reader: runs of beats over AXI4, protocol and data."""

import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from cocotb.utils import get_sim_time

from .axi import DECERR, EXOKAY, OKAY, PAGE, SLVERR, Burst, Reads
from .run import parameters
from .streams import CASES, STALLS, collect, compare, drive, exchange, pack, reset, watch

#: Cycles of the memory from request to answer.
LATENCY = 20
#: ns of a clock of :func:`reset`.
PERIOD = 2

Run = tuple[int, int]       # first beat, beats


class Memory:
    """Random content at a random place, and what runs of beats are to give."""

    def __init__(self, dut: Any, seed: str, *, stall: float, late: bool = False,
                 **options: Any) -> None:
        self.rng = random.Random(seed)
        self.beat_bytes, self.burst = parameters()["beat_bytes"], parameters()["burst"]
        #: Bursts of the longest run: more than may be under way.
        self.most = parameters()["outstanding"] + 8
        self.room = PAGE // self.beat_bytes * (self.most + 8)
        self.content = self.rng.randbytes(self.room * self.beat_bytes)
        # Beat 0 need be no multiple of a burst or a page; the content begins at beat `origin`.
        self.base = self.beat_bytes * self.rng.getrandbits(56)
        self.origin = self.rng.randrange((1 << 32) - self.room)
        dut.base.value, dut.abort.value = self.base, 0
        self.reads = Reads(
            dut, "m_axi", content=self.content, base=self.base + self.origin * self.beat_bytes,
            beat_bytes=self.beat_bytes, latency=LATENCY, stall=stall, late=late, seed=seed,
            **options)

    def runs(self, count: int) -> list[Run]:
        """Random runs, among them empty ones and some of many bursts, of some 1,500 beats."""
        found: list[Run] = []
        left = 1500
        while len(found) < count and left > 0:
            beats = self.rng.choice([0, 1, self.burst, self.burst + 1,
                                     self.rng.randrange(1, 4 * self.burst + 2)])
            found.append((self.origin + self.rng.randrange(self.room - beats), beats))
            left -= beats
        return found

    def data(self, runs: list[Run]) -> list[tuple[int, int]]:
        """Payloads of the beats of ``runs``."""
        return [(int.from_bytes(self.content[at:at + self.beat_bytes], "little"), 0)
                for first, beats in runs
                for at in range((first - self.origin) * self.beat_bytes,
                                (first - self.origin + beats) * self.beat_bytes, self.beat_bytes)]

    def bursts(self, runs: list[Run]) -> list[Burst]:
        """Bursts that end at multiples of the longest one, and where their run ends."""
        found, size = [], self.burst * self.beat_bytes
        for first, beats in runs:
            at = self.base + first * self.beat_bytes
            end = at + beats * self.beat_bytes
            while at < end:
                next_at = min(end, (at // size + 1) * size)
                found.append(Burst(at, (next_at - at) // self.beat_bytes))
                at = next_at
        return found


def jobs(runs: list[Run]) -> list[tuple[int, int]]:
    """Payloads of the jobs."""
    return [(pack([(first, 32), (beats, 25)]), 0) for first, beats in runs]


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize((("stall", "hold"), CASES), ("late", [False, True]))
async def runs_equal_the_memory(dut: Any, stall: float, hold: float, late: bool) -> None:
    seed = f"reader {stall} {hold} {late}"
    memory = Memory(dut, seed, stall=stall, late=late)
    await reset(dut)
    beats = watch(dut, "beat")
    runs = memory.runs(40)
    expected = memory.data(runs)
    got = await exchange(dut, {"s_axis_job": jobs(runs)}, {"m_axis_o": len(expected)}, stall, seed,
                         hold=hold)
    compare(got["m_axis_o"], expected, lambda pair: f"{pair[0]:#x}")
    compare(memory.reads.bursts, memory.bursts(runs))
    assert memory.reads.most <= parameters()["outstanding"]
    await ClockCycles(dut.aclk, 2 * LATENCY)
    assert len(beats) == len(expected)
    assert not dut.reading.value
    assert not dut.error.value


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def a_long_run_flows_without_a_gap(dut: Any) -> None:
    burst, outstanding = parameters()["burst"], parameters()["outstanding"]
    if burst < 2 or burst * (outstanding - 1) < LATENCY + 8:
        return      # the latency cannot be hidden
    memory = Memory(dut, "reader flow", stall=0.0)
    await reset(dut)
    runs = [(memory.origin + first, bursts * burst) for first, bursts in ((5, 7), (3, 8), (9, 5))]
    start = get_sim_time("ns")
    await exchange(dut, {"s_axis_job": jobs(runs)}, {"m_axis_o": 20 * burst}, 0.0, "flow")
    assert (get_sim_time("ns") - start) / PERIOD <= LATENCY + 20 * burst + 10
    assert len(memory.reads.bursts) == len(memory.bursts(runs))


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(code=[OKAY, EXOKAY, SLVERR, DECERR])
async def an_error_is_kept(dut: Any, code: int) -> None:
    seed = f"reader error {code}"
    memory = Memory(dut, seed, stall=0.3)
    beats = memory.burst + 3
    # Apart from each other, the bad beat in the last but one.
    runs = [(memory.origin + beats * place, beats)
            for place in memory.rng.sample(range(memory.room // beats), 4)]
    at = memory.base + (runs[-2][0] + memory.rng.randrange(beats)) * memory.beat_bytes
    memory.reads.response = lambda address: code if address == at else OKAY
    await reset(dut)
    before = memory.data(runs[:-2])
    after = memory.data(runs[-2:])
    cocotb.start_soon(drive(dut, "s_axis_job", jobs(runs), 0.3, seed))
    compare(await collect(dut, "m_axis_o", len(before), 0.3, seed), before)
    assert not dut.error.value
    # The beats of a burst come all the same.
    compare(await collect(dut, "m_axis_o", len(after), 0.3, seed), after)
    await ClockCycles(dut.aclk, 4)
    assert bool(dut.error.value) == (code in (SLVERR, DECERR))


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def an_abort_drops_what_comes(dut: Any, stall: float) -> None:
    seed = f"reader abort {stall}"
    memory = Memory(dut, seed, stall=stall, late=True)
    await reset(dut)
    burst, beats = memory.burst, memory.burst * memory.most
    task = cocotb.start_soon(drive(dut, "s_axis_job", jobs([(memory.origin, beats)]), stall, seed))
    taken = memory.data([(memory.origin, burst)])
    compare(await collect(dut, "m_axis_o", len(taken), stall, seed), taken)
    await task
    asked = len(memory.reads.bursts)
    dut.abort.value = 1
    await RisingEdge(dut.aclk)
    for _ in range(50 * beats):
        await RisingEdge(dut.aclk)
        assert not dut.m_axis_o_tvalid.value
        if not dut.reading.value:
            break
    # The request that waited is answered, too, and then there are no more.
    await ClockCycles(dut.aclk, 4 * LATENCY)
    assert not dut.reading.value
    assert len(memory.reads.bursts) <= asked + 2
    assert memory.reads.beats == sum(one.beats for one in memory.reads.bursts) < beats

    dut.abort.value = dut.aresetn.value = 0
    await ClockCycles(dut.aclk, 2)
    dut.aresetn.value = 1
    runs = memory.runs(10)
    expected = memory.data(runs)
    got = await exchange(dut, {"s_axis_job": jobs(runs)}, {"m_axis_o": len(expected)}, stall, seed)
    compare(got["m_axis_o"], expected)
