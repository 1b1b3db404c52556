# SPDX-License-Identifier: Apache-2.0
"""Reciprocals and square roots against cardsim.numerics, bit for bit, with stalls on both sides."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from cardsim import numerics as nx
from rtl_gen.fp32 import Divide, Root
from tests.rtl.fp32_bench import PERIOD, is_nonfinite, singles

REFERENCE = {Root.RCP: nx.rcp, Root.SQRT: nx.sqrt, Root.RSQRT: nx.rsqrt}


def run(jobs, *, stall, seed):
    """Results of (op, bits) jobs, and the cycles of each from operand to result."""
    dut = Divide()
    results, cycles = [], []

    async def feed(ctx):
        rng = random.Random(seed + "feed")
        for op, a in jobs:
            while rng.random() < stall:
                await ctx.tick()
            ctx.set(dut.i.payload, {"op": op, "a": a})
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)
            ctx.set(dut.i.payload, {"op": Root.SQRT, "a": rng.getrandbits(32)})

    async def take(ctx):
        rng = random.Random(seed + "take")
        for _ in jobs:
            count = 0
            while not ctx.get(dut.o.valid):
                await ctx.tick()
                count += 1
            cycles.append(count)
            first = ctx.get(dut.o.p.value), ctx.get(dut.o.p.nonfinite)
            while rng.random() < stall:
                await ctx.tick()
                assert ctx.get(dut.o.valid)
                assert (ctx.get(dut.o.p.value), ctx.get(dut.o.p.nonfinite)) == first
            ctx.set(dut.o.ready, 1)
            await ctx.tick()
            ctx.set(dut.o.ready, 0)
            results.append(first)

    async def watchdog(ctx):
        await ctx.delay(PERIOD * 200 * len(jobs))
        raise TimeoutError("no result")

    sim = Simulator(dut)
    sim.add_clock(PERIOD)
    sim.add_testbench(feed)
    sim.add_testbench(take)
    sim.add_testbench(watchdog, background=True)
    sim.run()
    return results, cycles


def expect(op, a):
    value = np.array([a], np.uint32)
    result = nx.bits(REFERENCE[op](nx.from_bits(value)))
    parts = [value, result]
    if op is Root.RSQRT:
        parts.append(nx.bits(nx.sqrt(nx.from_bits(value))))
    return int(result[0]), int(is_nonfinite(*parts)[0])


@pytest.mark.parametrize("op", list(Root))
@pytest.mark.parametrize(("stall", "count"), [(0.0, 60), (0.7, 10)])
def test_one_operand(op, stall, count):
    seed = f"{op} {stall}"
    rng = random.Random(seed)
    operands = [int(a) for a in singles(seed, count)]
    # Roots need positive numbers; squares and the neighbours of squares have the close calls.
    operands += [int(nx.bits(np.float32(rng.getrandbits(12) ** 2 + k))) for _ in range(count // 8)
                 for k in (-1, 0, 1)]
    operands += [a & 0x7FFF_FFFF for a in operands]
    results, _ = run([(op, a) for a in operands], stall=stall, seed=seed)
    for a, found in zip(operands, results, strict=True):
        assert found == expect(op, a), f"{op.name} of {a:#010x}"


def test_operations_in_any_order():
    rng = random.Random("mixed")
    jobs = [(rng.choice(list(Root)), int(a)) for a in singles("mixed", 60)]
    results, _ = run(jobs, stall=0.3, seed="mixed")
    assert results == [expect(op, a) for op, a in jobs]


@pytest.mark.parametrize(("op", "latency"), [
    (Root.RCP, Divide.LATENCY), (Root.SQRT, Divide.LATENCY), (Root.RSQRT, 2 * Divide.LATENCY - 1)])
def test_latency_is_the_published_one(op, latency):
    _, cycles = run([(op, 0x4049_0FDB)] * 3, stall=0, seed="")
    assert cycles[0] == latency
