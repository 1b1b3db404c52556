# SPDX-License-Identifier: Apache-2.0
"""A whole channel against AXI4 memory: every pattern, constants, writes, errors."""

import dataclasses
import math
import random

import pytest
from amaranth import ResetInserter, Signal

from cardsim.benches.channel_streams import Stream, make_stream, place
from rtl_gen.memory import channel, writer
from rtl_gen.memory.channel import BURST, OUTSTANDING, Channel
from rtl_gen.memory.splitter import Splitter
from rtl_gen.spec.config import SMALL, TINY, U280
from rtl_gen.spec.formats import PATTERNS, meta_beats
from tests.rtl.axi_memory import AxiMemory
from tests.rtl.bench import simulate
from tests.rtl.channel_bench import give_jobs, take_entries, take_words

#: As small as it may be: queues fill and wrap.
CRAMPED = dataclasses.replace(TINY, fifo_beats=16, aux_beats=16)
#: Beats of two words, of which metadata are not whole bytes.
SHORT = dataclasses.replace(TINY, name="short", beat_bytes=8, fifo_beats=16, aux_beats=16)
SHALLOW = dataclasses.replace(SMALL, fifo_beats=32, aux_beats=16)
WIDE = dataclasses.replace(U280, fifo_beats=32, aux_beats=16)


@pytest.mark.parametrize(("config", "stall", "number"), [
    (CRAMPED, 0.0, 30), (CRAMPED, 0.4, 30), (SHORT, 0.0, 30), (SHORT, 0.4, 30),
    (SHALLOW, 0.0, 20), (SHALLOW, 0.4, 20), (WIDE, 0.2, 10),
], ids=lambda value: getattr(value, "name", str(value)))
def test_entries_and_constants_of_random_jobs(config, stall, number):
    seed = f"channel {config.name} {stall}"
    rng = random.Random(seed)
    jobs = []
    for pattern in rng.sample(PATTERNS * (number // 10), number):
        # No values, a few, exactly some supergroups, an incomplete one.
        values = rng.choice([0, 1, 2, 15, 16, 17, 32, rng.randrange(1, 60)])
        values = rng.choice([2, 17, 19]) if config == WIDE else values
        most = config.aux_beats * config.beat_bytes // 4
        blocks = rng.choice([[], [1], [most], [rng.randrange(1, most)],
                             [rng.randrange(1, 12) for _ in range(rng.randrange(1, 8))]])
        jobs.append(make_stream(rng, config, pattern, values, blocks))
    addresses, content = place(rng, jobs, config, 4000)
    base = 7 << 34 | 5 * config.beat_bytes
    dut = Channel(config)
    memory = AxiMemory(dut.axi, beat_bytes=config.beat_bytes, content=content, base=base,
                       stall=stall, seed=seed)

    async def settings(ctx):
        ctx.set(dut.base, base)
    simulate(dut, settings, give_jobs(dut, jobs, addresses),
             take_entries(dut, jobs, config, stall=stall, seed=seed),
             take_words(dut, jobs, stall=stall, seed=seed),
             monitors=[memory.bench], timeout=30000, wave=seed)
    assert len(memory.read_cycles) == sum(len(job.beats) for job in jobs)
    # Nothing but what was asked for, in the longest bursts.
    assert [(burst.address, burst.beats) for burst in memory.reads] == [
        (base + beat * config.beat_bytes, count)
        for job, address in zip(jobs, addresses, strict=True)
        for beat, count in bursts(address, len(job.beats), BURST, base // config.beat_bytes)]


def bursts(address: int, beats: int, longest: int, base: int) -> list[tuple[int, int]]:
    """The bursts of a run of beats."""
    result = []
    while beats:
        count = min(beats, longest - (base + address) % longest)
        result.append((address, count))
        address, beats = address + count, beats - count
    return result


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_a_beat_a_cycle(pattern):
    """With fast memory every cycle brings a beat; patterns beyond ratio 4 take an entry a cycle."""
    config, seed = TINY, f"throughput {pattern.name}"
    rng = random.Random(seed)
    count, values = 3, 64
    jobs = [make_stream(rng, config, pattern, values, [12]) for _ in range(count)]
    addresses, content = place(rng, jobs, config, 3000)
    dut = Channel(config)
    memory = AxiMemory(dut.axi, beat_bytes=16, content=content, seed=seed, latency=30)
    cycles: list[int] = []
    simulate(dut, give_jobs(dut, jobs, addresses),
             take_entries(dut, jobs, config, stall=0, seed=seed, cycles=cycles),
             take_words(dut, jobs, stall=0, seed=seed), monitors=[memory.bench], timeout=5000)
    total = count * (3 + meta_beats(values, pattern) + values)
    spread = memory.read_cycles[-1] - memory.read_cycles[0] + 1
    if pattern.ratio <= 4:
        assert spread == total, "beats must come in every cycle"
    else:
        busy = count * values * (pattern.entries - 1)
        assert total + busy - pattern.entries <= spread <= total + busy + count
    # The first entry after the first value beat was taken.
    first = memory.read_cycles[3 + pattern.units]
    assert cycles[0] - first == Channel.ENTRY_LATENCY
    assert Channel.ENTRY_LATENCY == Splitter.LATENCY + 2 == 9


def test_latencies_are_as_published():
    config = TINY
    rng = random.Random("latency")
    jobs = [make_stream(rng, config, PATTERNS[0], 0, [4])]
    dut = Channel(config)
    memory = AxiMemory(dut.axi, beat_bytes=16, content=place(rng, jobs, config, 300)[1], latency=5)
    memory.content[:16] = jobs[0].beats[0].to_bytes(16, "little")
    words: list[int] = []
    simulate(dut, give_jobs(dut, jobs, [0]), take_words(dut, jobs, stall=0, seed="", cycles=words),
             monitors=[memory.bench], timeout=200)
    assert memory.reads[0].cycle == Channel.ADDRESS_LATENCY
    assert words[0] - memory.read_cycles[0] == Channel.CONSTANT_LATENCY


def test_reads_run_ahead_across_jobs():
    """Nobody takes anything: addresses of many small jobs go out all the same."""
    config = TINY
    rng = random.Random("ahead")
    jobs = [make_stream(rng, config, PATTERNS[0], 2, []) for _ in range(40)]
    addresses, content = place(rng, jobs, config, 1000)
    dut = Channel(config)
    memory = AxiMemory(dut.axi, beat_bytes=16, content=content, latency=400)

    async def wait(ctx):
        await ctx.tick().repeat(350)
        assert ctx.get(dut.reading)
        assert memory.most_under_way == OUTSTANDING
    simulate(dut, give_jobs(dut, jobs, addresses), wait,
             take_entries(dut, jobs, config, stall=0, seed=""), monitors=[memory.bench],
             timeout=2000)


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_writes_arrive_in_order(stall):
    config, seed = TINY, f"writes {stall}"
    rng = random.Random(seed)
    beats: list[tuple[int, int]] = []
    while len(beats) < 400:
        start = rng.randrange(1024 - 60)
        beats += [(start + k, rng.getrandbits(128)) for k in range(rng.choice([1, 1, 2, 16, 40]))]
    dut, base = Channel(config), 3 << 40 | 48
    memory = AxiMemory(dut.axi, beat_bytes=16, content=bytearray(1024 * 16), base=base, stall=stall,
                       seed=seed)
    wanted = bytearray(1024 * 16)
    for address, value in beats:
        wanted[16 * address:16 * address + 16] = value.to_bytes(16, "little")

    async def feed(ctx):
        rng = random.Random(f"{seed} feed")
        ctx.set(dut.base, base)
        for address, value in beats:
            while rng.random() < stall / 2:
                await ctx.tick()
            ctx.set(dut.write.payload, {"address": address, "data": value})
            ctx.set(dut.write.valid, 1)
            await ctx.tick().until(dut.write.ready)
            ctx.set(dut.write.valid, 0)
            assert ctx.get(dut.writing), "from the cycle after the one that takes a beat"
        while ctx.get(dut.writing):
            await ctx.tick()
        assert memory.content == wanted
    simulate(dut, feed, monitors=[memory.bench], timeout=20000, wave=seed)
    assert sum(burst.beats for burst in memory.writes) == len(beats)
    if not stall:
        runs = sum(1 for a, b in zip([(-9, 0), *beats], beats, strict=False) if b[0] != a[0] + 1)
        full = sum(math.ceil(burst.beats / 16) for burst in memory.writes)
        assert full == len(memory.writes) < runs + len(beats) / 8
        assert max(burst.beats for burst in memory.writes) == 16


@pytest.mark.parametrize("flush", [0, 1])
def test_who_waits_for_writes_need_not_wait_for_more_of_them(flush):
    dut = Channel(TINY)
    memory = AxiMemory(dut.axi, beat_bytes=16, content=bytearray(1600))

    async def feed(ctx):
        ctx.set(dut.write.payload, {"address": 3, "data": 1})
        ctx.set(dut.write.valid, 1)
        await ctx.tick().until(dut.write.ready)
        ctx.set(dut.write.valid, 0)
        cycles = 0
        while ctx.get(dut.writing):
            await ctx.tick()
            cycles += 1
            ctx.set(dut.flush, flush and cycles == 20)     # of a cycle only
        latency = cycles - (20 if flush else writer.QUIET)
        assert 0 < latency < 16
    simulate(dut, feed, monitors=[memory.bench], timeout=1000)
    assert memory.content[48:64] == (1).to_bytes(16, "little")


def test_an_error_of_a_read_is_kept():
    config = TINY
    rng = random.Random("read error")
    jobs = [make_stream(rng, config, PATTERNS[0], 100, [])]
    dut = Channel(config)
    addresses, content = place(rng, jobs, config, 400)
    memory = AxiMemory(dut.axi, beat_bytes=16, content=content, bad=range(64 * 16, 65 * 16))
    jobs_before = [Stream(PATTERNS[0], [], 0, 0, [], [])]      # an empty job does nothing

    async def check(ctx):
        await ctx.tick().repeat(400)
        assert ctx.get(dut.read_error) == 1
        assert ctx.get(dut.write_error) == 0
    addresses = [0]
    memory.content[:1600] = b"".join(beat.to_bytes(16, "little") for beat in jobs[0].beats)
    simulate(dut, give_jobs(dut, jobs_before + jobs, [7, *addresses]), check,
             take_entries(dut, jobs, config, stall=0, seed=""), monitors=[memory.bench],
             timeout=1000)
    assert len(memory.reads) == 2


def test_an_error_of_a_write_is_kept():
    dut = Channel(TINY)
    memory = AxiMemory(dut.axi, beat_bytes=16, content=bytearray(1600), bad=range(160, 176))

    async def feed(ctx):
        for address in (3, 10):
            ctx.set(dut.write.payload, {"address": address, "data": 1})
            ctx.set(dut.write.valid, 1)
            await ctx.tick().until(dut.write.ready)
            ctx.set(dut.write.valid, 0)
            await ctx.tick().until(~dut.writing)
            await ctx.tick()
            assert ctx.get(dut.write_error) == (address == 10)
        assert ctx.get(dut.read_error) == 0
    simulate(dut, feed, monitors=[memory.bench], timeout=1000)


def test_after_an_abort_and_a_reset_the_channel_is_new(monkeypatch):
    # So few that some are still to be asked for when the abort comes.
    monkeypatch.setattr(channel, "OUTSTANDING", 2)
    config = CRAMPED
    rng = random.Random("abort")
    lost = [make_stream(rng, config, PATTERNS[1], 300, [64])]
    jobs = [make_stream(rng, config, PATTERNS[2], 40, [9])]
    addresses, content = place(rng, lost + jobs, config, 1000)
    dut, reset = Channel(config), Signal()
    memory = AxiMemory(dut.axi, beat_bytes=16, content=content, stall=0.3, latency=40)

    async def bench(ctx):
        await give_jobs(dut, lost, addresses[:1])(ctx)
        await ctx.tick().repeat(150)            # the constants' queue is full, and nobody takes
        ctx.set(dut.write.payload, {"address": 5, "data": 6})
        ctx.set(dut.write.valid, 1)
        await ctx.tick().until(dut.write.ready)
        ctx.set(dut.write.valid, 0)
        ctx.set(dut.drain, 1)
        await ctx.tick()
        asked = len(memory.reads) + ctx.get(dut.axi.arvalid)
        for _ in range(1000):
            await ctx.tick()
            if not ctx.get(dut.reading | dut.writing):
                break
        else:
            raise AssertionError("reads and writes must end")
        await ctx.tick()
        assert len(memory.reads) == asked, "no burst may be asked for after an abort"
        assert sum(burst.beats for burst in memory.reads) == len(memory.read_cycles)
        assert memory.content[80] == 6
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        ctx.set(dut.drain, 0)
        await give_jobs(dut, jobs, addresses[1:])(ctx)
        await take_words(dut, jobs, stall=0, seed="")(ctx)
        await take_entries(dut, jobs, config, stall=0, seed="")(ctx)
    simulate(ResetInserter(reset)(dut), bench, monitors=[memory.bench], timeout=5000)
