# SPDX-License-Identifier: Apache-2.0
"""Dependency counters against plain integers: who may start, and what can never start."""

import random

import pytest

from rtl_gen.control.counters import Counters, Order
from rtl_gen.spec.isa import COUNTER_MAX, COUNTERS
from tests.rtl.bench import simulate

REQUESTERS, REPORTERS = 4, 5


def some(rng: random.Random, most: int, among: range = range(COUNTERS)) -> int:
    """A mask of up to so many counters."""
    return sum(1 << k for k in rng.sample(among, rng.randint(0, most)))


def members(mask: int) -> list[int]:
    return [k for k in range(COUNTERS) if mask >> k & 1]


@pytest.mark.parametrize("busy", [0.15, 0.6])
def test_only_what_was_signalled_starts(busy):
    dut = Counters(requesters=REQUESTERS, reporters=REPORTERS)
    seen = {"granted": 0, "held": 0, "passed over": 0, "several": 0}

    async def bench(ctx):
        rng = random.Random(f"counters {busy}")
        counts, waiting = [0] * COUNTERS, [None] * REQUESTERS
        for cycle in range(3000):
            # A request stays until it is granted.
            for k in range(REQUESTERS):
                if waiting[k] is None and rng.random() < 0.5:
                    waiting[k] = some(rng, 2)
                ctx.set(dut.wait[k], waiting[k] or rng.getrandbits(COUNTERS))
                if waiting[k] == 0:
                    ctx.set(dut.wait[k], 0)
            ctx.set(dut.request, sum((mask is not None) << k for k, mask in enumerate(waiting)))
            gained = [0] * COUNTERS
            for k in range(REPORTERS):
                signal, valid = some(rng, 2), rng.random() < busy
                if any(counts[c] + gained[c] >= COUNTER_MAX for c in members(signal)):
                    valid = False
                ctx.set(dut.done[k], {"valid": valid, "signal": signal})
                for c in members(signal) if valid else ():
                    gained[c] += 1
            clear = cycle % 500 == 499
            ctx.set(dut.clear, clear)

            able = [k for k, mask in enumerate(waiting)
                    if mask is not None and all(counts[c] for c in members(mask))]
            assert ctx.get(dut.grant) == (1 << able[0] if able else 0), f"cycle {cycle}"
            await ctx.tick()
            seen["granted"] += bool(able)
            seen["passed over"] += len(able) > 1
            seen["held"] += any(mask is not None and k not in able
                                for k, mask in enumerate(waiting))
            seen["several"] += max(gained) > 1
            if able:
                for c in members(waiting[able[0]]):
                    counts[c] -= 1
                waiting[able[0]] = None
            counts = [0] * COUNTERS if clear else [
                count + more for count, more in zip(counts, gained, strict=True)]

    simulate(dut, bench, timeout=4000, wave="counters")
    assert min(seen.values()) > 20, seen


def test_what_no_earlier_instruction_signals_is_known_at_dispatch():
    dut = Order()
    seen = {"starved": 0, "full": 0, "applied": 0}

    async def bench(ctx):
        rng = random.Random("order")
        counts = [0] * COUNTERS
        for number in range(4000):
            # More signals than waits up to the maximum of a few counters, then the other way round.
            rising, few = number % 2000 < 1000, range(6, 10)
            wait, signal = some(rng, 1 if rising else 3, few), some(rng, 4 if rising else 1, few)
            ctx.set(dut.wait, wait)
            ctx.set(dut.signal, signal)
            await ctx.tick()
            starved = any(not counts[c] for c in members(wait))
            # What is waited for and signalled stays as it is.
            full = any(counts[c] == COUNTER_MAX for c in members(signal & ~wait))
            assert (ctx.get(dut.starved), ctx.get(dut.full)) == (starved, full), f"word {number}"
            seen["starved"] += starved
            seen["full"] += full
            if starved or full:
                continue
            seen["applied"] += 1
            ctx.set(dut.apply, 1)
            await ctx.tick()
            ctx.set(dut.apply, 0)
            for c in members(signal):
                counts[c] += 1
            for c in members(wait):
                counts[c] -= 1
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        ctx.set(dut.wait, 1 << 6)
        await ctx.tick()
        assert ctx.get(dut.starved) == 1

    simulate(dut, bench, timeout=10_000, wave="order")
    assert min(seen.values()) > 20, seen
