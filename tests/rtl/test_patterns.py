# SPDX-License-Identifier: Apache-2.0
"""Position metadata in gateware, against the tables of the patterns themselves."""

import dataclasses
import itertools
import random

import pytest
from amaranth.sim import Simulator

from cardsim.benches.channel_streams import choices, expected
from rtl_gen.memory.decode import Decoder, EightOfSixteen
from rtl_gen.spec.config import CONFIGS, SMALL, TINY
from rtl_gen.spec.formats import PATTERNS
from tests.rtl.bench import simulate

FOURS = dataclasses.replace(TINY, name="fours", group_sizes=(4,))
OTHERS = dataclasses.replace(TINY, name="others", group_sizes=(8, 16))


def test_every_bitmap_of_eight_in_sixteen():
    dut = EightOfSixteen()
    seen = []

    async def bench(ctx):
        for places in itertools.combinations(range(16), 8):
            ctx.set(dut.bits, sum(1 << place for place in places))
            await ctx.delay(1e-9)
            bits = ctx.get(dut.index.as_value())
            assert [bits >> 4 * k & 15 for k in range(8)] == [
                place % 8 + 8 * (place == k + 8) for k, place in enumerate(places)]
            seen.append(places)
    sim = Simulator(dut)
    sim.add_testbench(bench)
    sim.run()
    assert len(seen) == 12870


@pytest.mark.parametrize("config", [TINY, SMALL, FOURS, OTHERS], ids=lambda config: config.name)
def test_all_patterns_in_any_order(config):
    """A beat a cycle; each has its metadata anywhere in its beat, and rubbish around them."""
    width, dut = config.beat_bytes, Decoder(config)
    unit_bits = width // 2
    seed = f"patterns {config.name}"
    rng = random.Random(seed)
    built = [pattern for pattern in PATTERNS if pattern.m in (1, *config.group_sizes)]
    legal = {pattern: choices(pattern) for pattern in built}
    beats = []
    for number in range(400):
        pattern = built[number % len(built)] if number < 200 else rng.choice(built)
        groups = [rng.choice(legal[pattern]) for _ in range(width // pattern.n)]
        code = sum(number << k * pattern.bits for k, (_, number) in enumerate(groups))
        unit = pattern.units * rng.randrange(16)
        line = rng.getrandbits(32 * unit_bits)
        line &= ~(((1 << pattern.units * unit_bits) - 1) << unit % 16 * unit_bits)
        line |= code << unit % 16 * unit_bits
        # What lies beyond the beat is the beginning of the next one.
        quads = [line >> 4 * unit_bits * q & (1 << 4 * unit_bits) - 1 for q in range(8)]
        first = unit % 16 // 4
        beats.append((pattern, unit % 16,
                      [quads[q + 4 * (q < first)] for q in range(4)],
                      expected(pattern, width, [places for places, _ in groups])))
    found = []

    async def give(ctx):
        for pattern, unit, quads, _ in beats:
            ctx.set(dut.valid, 1)
            ctx.set(dut.pattern, pattern.code)
            ctx.set(dut.unit, unit)
            ctx.set(dut.quads, quads)
            await ctx.tick()
        ctx.set(dut.valid, 0)
        await ctx.tick().repeat(Decoder.LATENCY + 1)

    async def take(ctx):
        found.clear()
        for cycle in range(len(beats) + Decoder.LATENCY + 1):
            _, _, done, bits = await ctx.tick().sample(dut.done, dut.index.as_value())
            assert done == (Decoder.LATENCY <= cycle < len(beats) + Decoder.LATENCY)
            if done:
                found.append([bits >> 4 * slot & 15 for slot in range(width)])
    simulate(dut, give, take, timeout=1000, wave=seed)
    for (pattern, unit, _, wanted), got in zip(beats, found, strict=True):
        assert got == wanted, f"{pattern.name} at unit {unit}"


@pytest.mark.parametrize("config", CONFIGS.values(), ids=lambda config: config.name)
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_metadata_of_a_beat_fits_what_is_read(pattern, config):
    """The decoder reads two quads of units, finely aligned up to six units only."""
    for value in range(16):
        start = value * pattern.units % 16
        assert start % 4 + pattern.units <= 8
        assert pattern.units <= 5 or start % 2 == 0
        assert pattern.units <= 6 or start % 4 == 0
    assert config.beat_bytes // pattern.n * pattern.bits == pattern.units * config.beat_bytes // 2
