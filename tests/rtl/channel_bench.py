# SPDX-License-Identifier: Apache-2.0
"""Consumers of a channel's entries and words, and what gives it its jobs."""

import random

from cardsim.benches.channel_streams import Stream
from rtl_gen.spec.config import CardConfig


def take_entries(dut, jobs: list[Stream], config: CardConfig, *, stall: float, seed: str,
                 cycles: list[int] | None = None):
    """Bench: takes all entries of ``jobs`` and compares them; notes when each was there."""
    width = config.beat_bytes
    wanted = [(job.pattern.name, *entry) for job in jobs for entry in job.entries]

    async def bench(ctx):
        rng, done, cycle = random.Random(f"{seed} entries"), 0, 0
        while done < len(wanted):
            some = ctx.get(dut.some)
            assert some in (0, 1, 3)
            take = 0 if rng.random() < stall else rng.randint(1, 2) if stall else 2
            take = min(take, some.bit_count())
            for k in range(take):
                name, weights, index = wanted[done + k]
                bits = ctx.get(dut.entries[k ^ ctx.get(dut.swap)])
                found = [(bits >> 8 * slot & 255 ^ 128) - 128 for slot in range(width)]
                assert found == weights, f"entry {done + k}, {name}"
                places = bits >> 8 * width
                for slot, number in enumerate(index):
                    assert number in (None, places >> 4 * slot & 15), \
                        f"entry {done + k}, {name}, slot {slot}"
                if cycles is not None:
                    cycles.append(cycle)
            ctx.set(dut.take, take)
            await ctx.tick()
            done += take
            cycle += 1
        ctx.set(dut.take, 0)
        await ctx.tick()
        assert ctx.get(dut.some) == 0
    return bench


def take_words(dut, jobs: list[Stream], *, stall: float, seed: str,
               cycles: list[int] | None = None):
    """Bench: takes all words of ``jobs``, skipping at the end of each block, and compares them."""
    async def bench(ctx):
        rng, cycle = random.Random(f"{seed} words"), 0
        for job in jobs:
            for block in job.blocks:
                done = 0
                while done < len(block):
                    level = ctx.get(dut.word_level)
                    most = min(level, len(block) - done)
                    take = 0 if rng.random() < stall else rng.randint(0, most) if stall else most
                    for k in range(take):
                        assert ctx.get(dut.words[k]) == block[done + k]
                        if cycles is not None:
                            cycles.append(cycle)
                    done += take
                    ctx.set(dut.word_take, take)
                    # The end may be known with the last words or only later.
                    now = done == len(block) and rng.random() >= stall / 2
                    ctx.set(dut.word_skip, now)
                    await ctx.tick()
                    cycle += 1
                if not now:
                    ctx.set(dut.word_take, 0)
                    ctx.set(dut.word_skip, 1)
                    await ctx.tick()
                    cycle += 1
                ctx.set(dut.word_take, 0)
                ctx.set(dut.word_skip, 0)
        for _ in range(40):
            await ctx.tick()
            assert ctx.get(dut.word_level) == 0
    return bench


def give_jobs(dut, jobs: list[Stream], addresses: list[int]):
    """Bench: hands over the jobs one after another."""
    async def bench(ctx):
        for job, address in zip(jobs, addresses, strict=True):
            ctx.set(dut.job.payload, {"address": address, "aux": job.aux, "values": job.values,
                                      "pattern": job.pattern.code})
            ctx.set(dut.job.valid, 1)
            await ctx.tick().until(dut.job.ready)
        ctx.set(dut.job.valid, 0)
    return bench
