# SPDX-License-Identifier: Apache-2.0
"""The sampler against NumPy: records, sampled tokens and sticky events, bit for bit."""

import dataclasses
import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from cardsim import numerics as nx
from rtl_gen.common import layouts
from rtl_gen.sample import Sampler
from rtl_gen.spec import isa, registers
from rtl_gen.spec.config import SMALL, TINY, ULX3S

CONFIGS = {
    "tiny": dataclasses.replace(TINY, top_k=8),
    "small": dataclasses.replace(SMALL, top_k=16, tokens=2),
    "ulx3s": ULX3S,         # one lane
}


def expected(logits, tokens, k, target, step, position, lanes):
    """The record, written out from docs/numerics.md."""
    order = sorted(range(len(logits)), key=lambda n: (-int(nx.key(logits[n])), tokens[n]))
    run = nx.LogSumExp()
    padded = np.zeros(-(-len(logits) // lanes) * lanes, np.float32)
    padded[:len(logits)] = logits
    run.update(padded.reshape(-1, lanes), len(logits))
    at = [n for n in range(len(logits)) if tokens[n] == target]
    words = [tokens[order[0]], int(nx.bits(logits[order[0]])),
             int(nx.bits(run.m)), int(nx.bits(run.s)),
             registers.NO_TARGET if target is None else target,
             int(nx.bits(logits[at[0]])) if at else 0, step, position]
    for rank in range(k):
        words += ([tokens[order[rank]], int(nx.bits(logits[order[rank]]))] if rank < len(order)
                  else [registers.NO_TARGET, 0])
    return words


def rows(name, config, rng):
    """Rows of logits: (logits by column, k, target)."""
    lanes, k = config.vector_lanes, config.top_k
    normal = lambda n: np.float32([rng.gauss(0, 3) for _ in range(n)])      # noqa: E731
    kinds = {
        "random": [normal(41), normal(lanes), normal(1)],
        "ties": [np.float32([rng.choice([-1, -0.0, 0.0, 2]) for _ in range(50)])],
        "rising": [np.sort(normal(60))],
        # Each word has a new maximum, and nothing else that enters the list.
        "climbing": [np.where(np.arange(60 * lanes) % lanes == 1, np.sort(normal(60 * lanes)),
                              np.float32(-100))],
        "odd": [np.uint32([0x7FC00000, 0x7F800000, 0xFF800000, 0x00000001, 0x80000000, 0x7F7FFFFF,
                           0xFF7FFFFF, 0x3F800000, 0xFFC00000]).view(np.float32),
                np.float32([-np.inf] * 7), np.float32([3.0e38, -3.0e38] * 4)],
    }[name]
    for logits in kinds:
        target = rng.choice([None, rng.randrange(len(logits)), 10**6])
        yield [logits], rng.choice([0, 1, k]), target
    # Several columns, with as many logits each.
    columns = [np.resize(kinds[c % len(kinds)], 21) * (-1) ** (c // len(kinds))
               for c in range(config.tokens)]
    yield columns, rng.choice([0, 3, k]), target


@pytest.mark.parametrize("stall", [0.0, 0.7])
@pytest.mark.parametrize("kind", ["random", "ties", "rising", "climbing", "odd"])
@pytest.mark.parametrize("card", CONFIGS)
def test_records_equal_the_reference(card, kind, stall):
    config = CONFIGS[card]
    lanes, rng = config.vector_lanes, random.Random(f"{card} {kind} {stall}")
    scratch = np.zeros((64, lanes), np.uint32)
    dut = Sampler(config)
    events = []

    async def memory(ctx):
        while True:
            _, _, en, addr = await ctx.tick().sample(dut.read.en, dut.read.addr)
            if en:
                for lane in range(lanes):
                    ctx.set(dut.read.data[lane], int(scratch[addr, lane]))

    async def watch(ctx):
        while True:
            _, _, valid, token, bad = await ctx.tick().sample(
                dut.sampled.valid, dut.sampled.token, dut.nonfinite)
            if valid:
                events.append(token)
            if bad:
                events.append("nonfinite")

    async def watchdog(ctx):
        await ctx.delay(60_000 * 1e-8)
        raise TimeoutError("no end after 60,000 cycles")

    async def run(ctx):
        for number, (columns, k, target) in enumerate(rows(kind, config, rng)):
            events.clear()
            total = len(columns[0])
            base, at, got = rng.randrange(1000), 0, []
            tokens = [base + n for n in range(total)]
            goal = None if target is None else target + base
            while at < total:
                size = min(total - at, lanes * rng.randrange(1, 9))
                words, first, stride = -(-size // lanes), rng.randrange(20), rng.randrange(8, 11)
                scratch[:] = 0x7FC00000         # beyond the blocks: not to be read
                for c, logits in enumerate(columns):
                    block = scratch[first + c * stride:][:words]
                    block.reshape(-1)[:size] = nx.bits(logits[at:at + size])
                last = at + size == total
                word = isa.encode("SAMPLE", a=first, words=words, count=size, token=base + at,
                                  first=at == 0, last=last, k=k, columns=len(columns),
                                  stride=stride, signal=0x8001)
                job = {"word": word, "step": number, "pos": 7, "target": goal or 0,
                       "target_valid": goal is not None}
                ctx.set(dut.job.payload, layouts.JOB.const(job))
                ctx.set(dut.job.valid, 1)
                await ctx.tick().until(dut.job.ready)
                ctx.set(dut.job.valid, 0)
                done, record = False, 8 + 2 * k
                beat = config.beat_bytes // 4
                # Every column's record begins at a beat.
                final = -(-record // beat) * beat * (len(columns) - 1) + record
                while not done:
                    ctx.set(dut.record.ready, rng.random() >= stall)
                    _, _, valid, ready, payload, done, signal = await ctx.tick().sample(
                        dut.record.valid, dut.record.ready, dut.record.p, dut.done.valid,
                        dut.done.signal)
                    if valid and ready:
                        got.append(payload["word"])
                        assert payload["last"] == (len(got) == final)
                assert signal == 0x8001
                at += size
            if len(columns) > 1:
                goal = None
            want, strange = [], False
            for logits in columns:
                want += [0] * (-len(want) % beat)
                one = expected(logits, tokens, k, goal, number, 7, lanes)
                strange |= nx.nonfinite(logits, np.uint32(one[2:4]).view(np.float32))
                want += one
            assert got == want, f"row {number}"
            assert [token for token in events if token != "nonfinite"] == want[:1]
            assert ("nonfinite" in events) == strange

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    for bench in (memory, watch, watchdog):
        sim.add_testbench(bench, background=True)
    sim.add_testbench(run)
    sim.run()
