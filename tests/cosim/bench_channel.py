# SPDX-License-Identifier: Apache-2.0
"""cocotb bench: a channel against the AXI4 memory of cocotbext-axi."""

import itertools
import logging
import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiBus, AxiRam

from rtl_gen.spec.config import TINY
from rtl_gen.spec.formats import PATTERNS
from tests.rtl.channel_bench import make_job, place

BASE = 3 << 32
ROOM = 4000     # beats


def stalls(seed: str, probability: float):
    """Pauses of an AXI channel."""
    rng = random.Random(seed)
    return (rng.random() < probability for _ in itertools.count())


def start(dut, stall: float) -> AxiRam:
    """Clock, reset levels and memory."""
    logging.getLogger(f"cocotb.{dut._name}.axi").setLevel(logging.WARNING)
    Clock(dut.clk, 4, unit="ns").start()
    for name in ("job__valid", "write__valid", "take", "word_take", "word_skip", "drain"):
        getattr(dut, name).value = 0
    dut.base.value = BASE
    dut.rst.value = 1
    memory = AxiRam(AxiBus.from_prefix(dut, "axi", bus_separator="__"), dut.clk, dut.rst,
                    size=ROOM * TINY.beat_bytes * 2)
    if stall:
        for channel in (memory.read_if.ar_channel, memory.read_if.r_channel,
                        memory.write_if.aw_channel, memory.write_if.w_channel,
                        memory.write_if.b_channel):
            channel.set_pause_generator(stalls(f"{channel} {stall}", stall))
    return memory


@cocotb.test(timeout_time=400, timeout_unit="us")
@cocotb.parametrize(stall=[0.0, 0.4])
async def streams_of_every_pattern(dut, stall):
    rng = random.Random(f"cosim {stall}")
    jobs = [make_job(rng, TINY, pattern, rng.choice([1, 16, 37]), [rng.randrange(1, 20)])
            for pattern in rng.sample(PATTERNS * 2, 20)]
    addresses, content = place(rng, jobs, TINY, ROOM)
    memory = start(dut, stall)
    # The memory sees the low bits of addresses only.
    offset = BASE % memory.size
    memory.write(offset, bytes(content))
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await RisingEdge(dut.clk)

    async def give():
        for job, address in zip(jobs, addresses, strict=True):
            dut.job__payload.value = (
                address | job.aux << 32 | job.values << 52 | job.pattern.code << 75)
            dut.job__valid.value = 1
            await RisingEdge(dut.clk)
            while not dut.job__ready.value:
                await RisingEdge(dut.clk)
        dut.job__valid.value = 0

    async def words():
        rng = random.Random("words")
        for job in jobs:
            for block in job.blocks:
                done = 0
                while done < len(block):
                    # Outputs are read half a cycle after the edge that changes them.
                    await cocotb.triggers.FallingEdge(dut.clk)
                    take = min(int(dut.word_level.value), len(block) - done, rng.randint(0, 3))
                    bits = int(dut.words.value)
                    assert [bits >> 32 * k & 0xFFFFFFFF for k in range(take)] == block[
                        done:done + take]
                    done += take
                    dut.word_take.value = take
                    dut.word_skip.value = done == len(block)
        await cocotb.triggers.FallingEdge(dut.clk)
        dut.word_take.value = dut.word_skip.value = 0

    async def entries():
        rng, width = random.Random("entries"), TINY.beat_bytes
        wanted = [entry for job in jobs for entry in job.entries]
        done = 0
        while done < len(wanted):
            await cocotb.triggers.FallingEdge(dut.clk)
            take = min(int(dut.level.value), rng.randint(0, 2))
            for k in range(take):
                bits = int((dut.entries__0, dut.entries__1)[k].value)
                weights, index = wanted[done + k]
                assert [(bits >> 8 * s & 255 ^ 128) - 128 for s in range(width)] == weights
                assert all(number in (None, bits >> 8 * width + 4 * s & 15)
                           for s, number in enumerate(index))
            done += take
            dut.take.value = take
        await cocotb.triggers.FallingEdge(dut.clk)
        dut.take.value = 0

    for task in [cocotb.start_soon(part()) for part in (give, words, entries)]:
        await task


@cocotb.test(timeout_time=400, timeout_unit="us")
@cocotb.parametrize(stall=[0.0, 0.4])
async def writes_arrive(dut, stall):
    rng, width = random.Random(f"writes {stall}"), TINY.beat_bytes
    memory = start(dut, stall)
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    wanted: dict[int, int] = {}
    for _ in range(30):
        first = rng.randrange(ROOM - 40)
        for beat in range(first, first + rng.choice([1, 3, 40])):
            wanted[beat] = rng.getrandbits(8 * width)
            dut.write__payload.value = beat | wanted[beat] << 32
            dut.write__valid.value = 1
            await RisingEdge(dut.clk)
            while not dut.write__ready.value:
                await RisingEdge(dut.clk)
        dut.write__valid.value = 0
    await ClockCycles(dut.clk, 2)
    while dut.writing.value:
        await RisingEdge(dut.clk)
    assert not dut.write_error.value
    for beat, value in wanted.items():
        found = memory.read((BASE + beat * width) % memory.size, width)
        assert int.from_bytes(found, "little") == value, f"beat {beat}"


assert os.environ.get("COCOTB_TOPLEVEL") is not None, "run by tests/cosim/test_channel.py"
