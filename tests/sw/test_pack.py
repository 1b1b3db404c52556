# SPDX-License-Identifier: Apache-2.0
"""Packing of N:M weights into lane streams."""

import dataclasses
import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heddle.pack.patterns import pack_stream, row_beats, unpack_stream
from rtl_gen.spec import config as cards
from rtl_gen.spec.formats import DENSE, PATTERNS, Pattern, parse, stored_as, stream_beats

#: Beats so short that metadata of one are not whole bytes; all patterns.
SHORT = dataclasses.replace(cards.TINY, name="short", beat_bytes=8)
CONFIGS = [cards.TINY, SHORT, cards.SMALL, cards.U280]
SPARSE = [pattern for pattern in PATTERNS if pattern.m > 1]
CHOICES = [(n, m) for m in (4, 8, 16) for n in range(m + 1)]


def sparse_weights(rng: np.random.Generator, rows: int, inputs: int, n: int, m: int,
                   fill: float = 1.0) -> np.ndarray:
    """Random weights, at most ``n`` nonzeros in each group of ``m``, of which ``fill`` are used."""
    wide = math.ceil(inputs / m) * m
    rank = rng.random((rows, wide // m, m)).argsort(axis=2).argsort(axis=2)
    values = rng.integers(-127, 128, (rows, wide // m, m))
    kept = (rank < n) & (rng.random(values.shape) < fill)
    return np.where(kept, values, 0).reshape(rows, wide)[:, :inputs].astype(np.int8)


def bits_of(beats: np.ndarray, start: int, count: int) -> int:
    """``count`` bits from bit ``start`` of consecutive beats, little endian; slow and plain."""
    return int.from_bytes(beats.tobytes(), "little") >> start & (1 << count) - 1


def read_lane(lane: np.ndarray, rows: int, beats: int, constants: int, pattern: Pattern,
              width: int) -> tuple[np.ndarray, list[list[int]]]:
    """Dense rows and constants of one channel, slot by slot from the words of the specification."""
    head = math.ceil(4 * rows * constants / width)
    records = [[bits_of(lane[:head], 32 * (r * constants + k), 32) for k in range(constants)]
               for r in range(rows)]
    dense = np.zeros((rows, beats * width * pattern.ratio), np.int8)
    at, unit_bits = head, width // 2
    for first in range(0, rows * beats, 16):
        size = min(16, rows * beats - first)
        meta = lane[at:at + math.ceil(size * pattern.units / 16)]
        at += len(meta)
        for v in range(size):
            row, k = divmod(first + v, beats)
            values = lane[at].view(np.int8)
            at += 1
            code = bits_of(meta, v * pattern.units * unit_bits, pattern.units * unit_bits)
            for group in range(width // pattern.n):
                number = code >> group * pattern.bits & (1 << pattern.bits) - 1
                match pattern.coding:
                    case "choice":
                        places = list(itertools.combinations(range(pattern.m), pattern.n))[number]
                    case "bitmap":
                        places = [i for i in range(pattern.m) if number >> i & 1]
                    case "positions":
                        places = [number >> 4 * i & 15 for i in range(pattern.n)]
                    case "none":
                        places = [0]
                assert len(places) == pattern.n
                assert list(places) == sorted(places)
                for ordinal, place in enumerate(places):
                    slot = group * pattern.n + ordinal
                    entry, wide_group, within = pattern.slot(slot)
                    if pattern.m == 1:
                        base = slot
                    else:
                        # `within` counts the slots of the 16-wide group; N of them share a group.
                        base = 16 * wide_group + within // pattern.n * pattern.m
                    start = (k * pattern.entries + entry) * 4 * width \
                        if pattern.ratio > 4 else k * width * pattern.ratio
                    dense[row, start + base + place] += values[slot]
    assert at == len(lane)
    return dense, records


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
@pytest.mark.parametrize("config", CONFIGS[:3], ids=lambda config: config.name)
def test_streams_follow_the_specification(pattern, config):
    rng = np.random.default_rng([ord(c) for c in f"{pattern.name} {config.name}"])
    rows, inputs, constants = 5 * config.channels - 1, 3 * config.beat_bytes * pattern.ratio - 5, 3
    weights = sparse_weights(rng, rows, inputs, pattern.n, pattern.m)
    aux = rng.integers(0, 1 << 32, (rows, constants), np.uint32)
    stream = pack_stream(weights, pattern, config, aux)
    beats = row_beats(inputs, pattern, config)
    assert beats == 3
    assert stream.shape[1] == sum(stream_beats(5, constants, beats, pattern, config.beat_bytes))
    for lane in range(config.channels):
        dense, records = read_lane(stream[lane], 5, beats, constants, pattern, config.beat_bytes)
        mine = range(lane, rows, config.channels)
        assert np.array_equal(dense[:len(mine), :inputs], weights[lane::config.channels])
        assert not dense[:, inputs:].any()
        assert not dense[len(mine):].any()
        assert records[:len(mine)] == aux[lane::config.channels].tolist()
        assert not any(map(any, records[len(mine):]))


@settings(max_examples=200)
@given(choice=st.sampled_from(CHOICES), config=st.sampled_from(CONFIGS),
       rows=st.integers(1, 80), inputs=st.integers(1, 700), constants=st.integers(0, 3),
       fill=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 1 << 32))
def test_any_weights_come_back(choice, config, rows, inputs, constants, fill, seed):
    rng, pattern = np.random.default_rng(seed), stored_as(*choice)
    weights = sparse_weights(rng, rows, inputs, *choice, fill)
    aux = rng.integers(0, 1 << 32, (rows, constants), np.uint32) if constants else None
    stream = pack_stream(weights, pattern, config, aux)
    found, words = unpack_stream(stream, rows, inputs, pattern, config, constants)
    assert np.array_equal(found, weights)
    assert aux is None or np.array_equal(words, aux)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_any_number_of_beats_comes_back(pattern):
    rng = np.random.default_rng(7)
    for beats in range(1, 36):
        inputs = beats * SHORT.beat_bytes * pattern.ratio
        weights = sparse_weights(rng, 4, inputs, pattern.n, pattern.m)
        stream = pack_stream(weights, pattern, SHORT)
        for lane in range(4):
            dense, _ = read_lane(stream[lane], 1, beats, 0, pattern, SHORT.beat_bytes)
            assert np.array_equal(dense, weights[lane:lane + 1])
        assert np.array_equal(unpack_stream(stream, 4, inputs, pattern, SHORT)[0], weights)


@given(rows=st.integers(1, 40), inputs=st.integers(1, 300), seed=st.integers(0, 1 << 32))
def test_k_outer_streams_come_back(rows, inputs, seed):
    weights = np.random.default_rng(seed).integers(-127, 128, (rows, inputs)).astype(np.int8)
    stream = pack_stream(weights, DENSE, cards.TINY, k_outer=True)
    assert np.array_equal(
        unpack_stream(stream, rows, inputs, DENSE, cards.TINY, k_outer=True)[0], weights)
    # Channel 0, second beat: the second lane row's first inputs.
    if rows > 4:
        assert np.array_equal(stream[0, 1].view(np.int8)[:inputs], weights[4, :16])


def test_codes_are_legal_where_groups_are_short():
    """Bitmaps have exactly N ones and choices exist, whatever is stored: the card relies on it."""
    for pattern in SPARSE:
        stream = pack_stream(np.zeros((4, 1), np.int8), pattern, cards.TINY)
        assert stream.any(axis=2)[:, 0].all() == (pattern.coding != "choice"), pattern.name
        read_lane(stream[0], 1, 1, 0, pattern, cards.TINY.beat_bytes)


@pytest.mark.parametrize("pattern", SPARSE, ids=lambda pattern: pattern.name)
def test_weights_beyond_the_pattern_are_refused(pattern):
    weights = np.zeros((9, 10 * pattern.m), np.int8)
    weights[:, pattern.m:pattern.m + pattern.n] = 1
    pack_stream(weights, pattern, cards.TINY)
    weights[7, 3 * pattern.m:3 * pattern.m + pattern.n + 1] = -1
    with pytest.raises(ValueError, match=(
            rf"weights must be {pattern.name}: row 7, group 3 must have at most {pattern.n} "
            rf"nonzeros, not {pattern.n + 1}")):
        pack_stream(weights, pattern, cards.TINY)


def test_other_arrays_are_refused():
    with pytest.raises(ValueError, match=r"weights must be an int8 array .* not int16 \(2, 2\)"):
        pack_stream(np.zeros((2, 2), np.int16), DENSE, cards.TINY)
    with pytest.raises(ValueError, match=r"aux must be .* of 2 rows, not uint32 \(3, 1\)"):
        pack_stream(np.zeros((2, 2), np.int8), DENSE, cards.TINY, np.zeros((3, 1), np.uint32))
    with pytest.raises(ValueError, match=r"stream must .* \(4, 1, 16\), not \(4, 2, 16\)"):
        unpack_stream(np.zeros((4, 2, 16), np.uint8), 2, 2, DENSE, cards.TINY)


def test_bytes_of_one_beat():
    """2:4 on the smallest card, by hand."""
    weights = np.zeros((1, 32), np.int8)
    weights[0, [1, 3]] = 5, -6          # choice 4 of (0,1) (0,2) (0,3) (1,2) (1,3) (2,3)
    weights[0, [6, 7]] = 7, 8           # choice 5
    weights[0, 8] = 9                   # with one zero kept: choice 0
    meta, values = pack_stream(weights, stored_as(*parse("2:4")), cards.TINY)[0]
    assert meta.tolist() == [4 | 5 << 3, *[0] * 15]
    assert values.view(np.int8).tolist() == [5, -6, 7, 8, 9, *[0] * 11]


def test_a_large_model_packs_in_seconds(record_property):
    """One of its matrices; the time is linear in the weights."""
    weights = sparse_weights(np.random.default_rng(1), 3072, 768, 2, 4)
    start = time.process_time()
    pack_stream(weights, stored_as(2, 4), cards.U280)
    spent = (time.process_time() - start) / weights.size * 124e6
    record_property("seconds", spent)
    assert spent < 60
