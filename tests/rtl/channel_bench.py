# SPDX-License-Identifier: Apache-2.0
"""Streams for one channel, made from the words of the specification, and their consumers."""

import dataclasses
import math
import random

from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.formats import PATTERNS, Pattern
from tests.rtl.test_patterns import choices, expected

LEGAL = {pattern: choices(pattern) for pattern in PATTERNS}


@dataclasses.dataclass
class Job:
    """A stream and what a channel makes of it."""

    pattern: Pattern
    #: Beats of the stream, as integers.
    beats: list[int]
    aux: int
    values: int
    #: Words of each block that starts at a beat.
    blocks: list[list[int]]
    #: Per entry: weights and indices, None where a slot does not serve it.
    entries: list[tuple[list[int], list[int | None]]]


def words_to_beats(words: list[int], beat_bytes: int) -> list[int]:
    """32-bit words as beats, the last filled up with zeros."""
    per = beat_bytes // 4
    return [sum(word << 32 * k for k, word in enumerate(words[at:at + per]))
            for at in range(0, len(words), per)]


def make_job(rng: random.Random, config: CardConfig, pattern: Pattern, values: int,
             blocks: list[int]) -> Job:
    """A job of random blocks of words, then random value beats."""
    width = config.beat_bytes
    words = [[rng.getrandbits(32) for _ in range(size)] for size in blocks]
    beats = [beat for block in words for beat in words_to_beats(block, width)]
    aux, entries = len(beats), []
    for start in range(0, values, 16):
        count = min(16, values - start)
        meta, group = 0, []
        for number in range(count):
            chosen = [rng.choice(LEGAL[pattern]) for _ in range(width // pattern.n)]
            code = sum(code << k * pattern.bits for k, (_, code) in enumerate(chosen))
            meta |= code << number * pattern.units * width // 2 if pattern.units else 0
            weights = [rng.randrange(-127, 128) for _ in range(width)]
            group.append(sum((weight & 255) << 8 * k for k, weight in enumerate(weights)))
            index = expected(pattern, width, [places for places, _ in chosen])
            for entry in range(pattern.entries):
                serves = [pattern.slot(slot)[0] == entry for slot in range(width)]
                entries.append((
                    [w if mine else 0 for w, mine in zip(weights, serves, strict=True)],
                    [i if mine else None for i, mine in zip(index, serves, strict=True)]))
        for _ in range(math.ceil(count * pattern.units / 16)):
            beats.append(meta & (1 << 8 * width) - 1)
            meta >>= 8 * width
        beats += group
    return Job(pattern, beats, aux, values, words, entries)


def place(rng: random.Random, jobs: list[Job], config: CardConfig, room: int) -> tuple[
        list[int], bytearray]:
    """Beat addresses of the jobs, apart from one another, and the memory that holds them."""
    width = config.beat_bytes
    spare = room - sum(len(job.beats) for job in jobs)
    cuts = sorted(rng.randrange(spare) for _ in jobs)
    content, addresses, used = bytearray(rng.randbytes(room * width)), [0] * len(jobs), 0
    for cut, number in zip(cuts, rng.sample(range(len(jobs)), len(jobs)), strict=True):
        addresses[number] = cut + used
        for beat in jobs[number].beats:
            start = (cut + used) * width
            content[start:start + width] = beat.to_bytes(width, "little")
            used += 1
    return addresses, content


def take_entries(dut, jobs: list[Job], config: CardConfig, *, stall: float, seed: str,
                 cycles: list[int] | None = None):
    """Bench: takes all entries of ``jobs`` and compares them; notes when each was there."""
    width = config.beat_bytes
    wanted = [(job.pattern.name, *entry) for job in jobs for entry in job.entries]

    async def bench(ctx):
        rng, done, cycle = random.Random(f"{seed} entries"), 0, 0
        while done < len(wanted):
            level = ctx.get(dut.level)
            assert level <= 2
            take = 0 if rng.random() < stall else rng.randint(1, 2) if stall else 2
            take = min(take, level)
            for k in range(take):
                name, weights, index = wanted[done + k]
                bits = ctx.get(dut.entries[k])
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
        assert ctx.get(dut.level) == 0
    return bench


def take_words(dut, jobs: list[Job], *, stall: float, seed: str, cycles: list[int] | None = None):
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


def give_jobs(dut, jobs: list[Job], addresses: list[int]):
    """Bench: hands over the jobs one after another."""
    async def bench(ctx):
        for job, address in zip(jobs, addresses, strict=True):
            ctx.set(dut.job.payload, {"address": address, "aux": job.aux, "values": job.values,
                                      "pattern": job.pattern.code})
            ctx.set(dut.job.valid, 1)
            await ctx.tick().until(dut.job.ready)
        ctx.set(dut.job.valid, 0)
    return bench
