# SPDX-License-Identifier: Apache-2.0
"""Streams for one channel, made from the words of the specification."""

import dataclasses
import functools
import itertools
import math
import random

from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.formats import Pattern, index

#: Positions that a group keeps, in ascending order.
Places = tuple[int, ...]


@dataclasses.dataclass
class Stream:
    """What one job reads, and what a channel makes of it."""

    pattern: Pattern
    #: Beats in memory, as integers.
    beats: list[int]
    #: Beats of constants, and value beats.
    aux: int
    values: int
    #: Words of each block that starts at a beat.
    blocks: list[list[int]]
    #: Per entry: weights and indices, None where a slot does not serve it.
    entries: list[tuple[list[int], list[int | None]]]


@functools.cache
def choices(pattern: Pattern) -> list[tuple[Places, int]]:
    """Every choice of positions in a group, with its code."""
    known = list(itertools.combinations(range(pattern.m), pattern.n))
    match pattern.coding:
        case "choice":
            return [(places, number) for number, places in enumerate(known)]
        case "bitmap":
            return [(places, sum(1 << p for p in places)) for places in known]
        case "positions":
            return [(places, sum(p << 4 * k for k, p in enumerate(places))) for places in known]
        case _:
            return [((0,), 0)]


def expected(pattern: Pattern, width: int, groups: list[Places]) -> list[int]:
    """The index of every slot, for the positions that each group keeps."""
    if pattern.m == 1:
        return [slot % 4 for slot in range(width)]
    result = []
    for slot in range(width):
        _, _, ordinal = pattern.slot(slot)
        place = ordinal // pattern.n * pattern.m + groups[slot // pattern.n][slot % pattern.n]
        result.append(index(pattern, slot, place))
    return result


def words_to_beats(words: list[int], beat_bytes: int) -> list[int]:
    """32-bit words as beats, the last filled up with zeros."""
    per = beat_bytes // 4
    return [sum(word << 32 * k for k, word in enumerate(words[at:at + per]))
            for at in range(0, len(words), per)]


def make_stream(rng: random.Random, config: CardConfig, pattern: Pattern, values: int,
                blocks: list[int]) -> Stream:
    """Random blocks of so many words, then random value beats with their metadata."""
    width = config.beat_bytes
    words = [[rng.getrandbits(32) for _ in range(size)] for size in blocks]
    beats = [beat for block in words for beat in words_to_beats(block, width)]
    aux = len(beats)
    entries: list[tuple[list[int], list[int | None]]] = []
    for start in range(0, values, 16):
        count = min(16, values - start)
        meta, group = 0, []
        for number in range(count):
            chosen = [rng.choice(choices(pattern)) for _ in range(width // pattern.n)]
            code = sum(code << k * pattern.bits for k, (_, code) in enumerate(chosen))
            meta |= code << number * pattern.units * width // 2 if pattern.units else 0
            weights = [rng.randrange(-127, 128) for _ in range(width)]
            group.append(sum((weight & 255) << 8 * k for k, weight in enumerate(weights)))
            indices = expected(pattern, width, [places for places, _ in chosen])
            for entry in range(pattern.entries):
                serves = [pattern.slot(slot)[0] == entry for slot in range(width)]
                entries.append((
                    [w if mine else 0 for w, mine in zip(weights, serves, strict=True)],
                    [i if mine else None for i, mine in zip(indices, serves, strict=True)]))
        for _ in range(math.ceil(count * pattern.units / 16)):
            beats.append(meta & (1 << 8 * width) - 1)
            meta >>= 8 * width
        beats += group
    return Stream(pattern, beats, aux, values, words, entries)


def place(rng: random.Random, streams: list[Stream], config: CardConfig, room: int) -> tuple[
        list[int], bytearray]:
    """Beat addresses of the streams, apart from one another, and the memory that holds them."""
    width = config.beat_bytes
    spare = room - sum(len(one.beats) for one in streams)
    cuts = sorted(rng.randrange(spare) for _ in streams)
    content, addresses, used = bytearray(rng.randbytes(room * width)), [0] * len(streams), 0
    for cut, number in zip(cuts, rng.sample(range(len(streams)), len(streams)), strict=True):
        addresses[number] = cut + used
        for beat in streams[number].beats:
            start = (cut + used) * width
            content[start:start + width] = beat.to_bytes(width, "little")
            used += 1
    return addresses, content
