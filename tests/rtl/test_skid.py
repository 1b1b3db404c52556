# SPDX-License-Identifier: Apache-2.0
"""The skid buffer: nothing lost, no cycle lost, and ``ready`` from a register."""

import random

import pytest

from rtl_gen.common import Skid
from tests.rtl.bench import collect, feed, obeys_stream_rules, simulate


@pytest.mark.parametrize(("give", "take"), [(0, 0), (0, 0.5), (0.5, 0), (0.3, 0.3), (0.9, 0.1)])
def test_payloads_come_through_in_order(give, take):
    seed = f"skid {give} {take}"
    rng = random.Random(seed)
    payloads = [rng.randrange(256) for _ in range(300)]
    dut, found = Skid(8), []
    simulate(dut, feed(dut.i, payloads, stall=give, seed=seed),
             collect(dut.o, len(payloads), found, stall=take, seed=seed), timeout=20_000,
             monitors=(obeys_stream_rules(dut.o),), wave=seed)
    assert found == payloads


def test_it_takes_no_cycle_and_ready_does_not_follow_at_once():
    dut = Skid(8)

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.o.ready, 1)
        for payload in range(5):
            ctx.set(dut.i.payload, payload)
            assert ctx.get(dut.i.ready)
            assert ctx.get(dut.o.valid)
            assert ctx.get(dut.o.payload) == payload
            await ctx.tick()
        # Held up: told only in the next cycle, and what came meanwhile is kept.
        ctx.set(dut.o.ready, 0)
        ctx.set(dut.i.payload, 5)
        assert ctx.get(dut.i.ready)
        await ctx.tick()
        ctx.set(dut.i.payload, 6)
        for ready in (0, 0, 1):
            ctx.set(dut.o.ready, ready)
            assert not ctx.get(dut.i.ready)
            assert ctx.get(dut.o.payload) == 5
            await ctx.tick()
        assert ctx.get(dut.i.ready)
        assert ctx.get(dut.o.payload) == 6
    simulate(dut, bench, timeout=100)
