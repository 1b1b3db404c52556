# SPDX-License-Identifier: Apache-2.0
"""The compiled products against plain Python integers, straight from packed streams."""

import dataclasses
import math

import numpy as np
import pytest

from cardsim.functional import kernels, sums
from cardsim.functional.memory import Memory
from cardsim.functional.state import PlaneWriter, State
from cardsim.functional.weights import BELOW, BESIDE, Plan, Stream, Weights
from heddle.pack.patterns import pack_stream
from rtl_gen.spec.config import SMALL, TINY, U280
from rtl_gen.spec.formats import PATTERNS, stream_beats

#: Some beats have half a unit of metadata.
SHORT = dataclasses.replace(TINY, name="short", beat_bytes=8)
CONFIGS = pytest.mark.parametrize("config", [TINY, SHORT, SMALL, U280], ids=lambda c: c.name)
#: The largest magnitude of an activation.
MOST = 32639


def generator(request):
    return np.random.default_rng([ord(c) for c in request.node.name])


def sparse(rng, rows, inputs, pattern):
    """Weights within ±127; about half of the groups hold as many as the pattern allows."""
    w = rng.choice([-127, 127, 1, -1, 90], (rows, inputs))
    if pattern.m > 1:
        groups = w.reshape(rows, -1, pattern.m)
        rank = rng.random(groups.shape).argsort(-1).argsort(-1)
        groups[rank >= rng.choice([0, 1, pattern.n, pattern.n], groups.shape[:2])[..., None]] = 0
    return w.astype(np.int8)


def exact(weights, x, levels, width):
    """[tokens, rows], in Python integers."""
    scaled = x.astype(object) * (1 << np.repeat(levels, width, axis=1).astype(object))
    return scaled @ weights.astype(object).T


def put(memory, address, beats):
    for channel, stream in enumerate(beats):
        memory.write(channel * memory.config.channel_bytes + address * memory.config.beat_bytes,
                     np.ascontiguousarray(stream))


def product(plan, x, levels, lanes):
    out = np.zeros((len(x), plan.rows * lanes), np.int64)
    kernels.multiply(*plan.arguments, x, levels, out)
    return out


@CONFIGS
@pytest.mark.parametrize("k_outer", [0, 1])
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
def test_every_pattern(pattern, k_outer, config, request):
    """With and without row constants before it, and value beats behind the last supergroup."""
    rng, width, lanes = generator(request), config.beat_bytes, config.channels
    memory = Memory(config)
    for tokens, rows, beats, constants in ((1, 3, 1, 0), (2, 7, 5, 2), (4, 16, 2, 1)):
        inputs = beats * width * pattern.ratio
        weights = sparse(rng, rows * lanes, inputs, pattern)
        aux = rng.integers(1 << 32, size=(rows * lanes, constants), dtype=np.uint32)
        put(memory, 5, pack_stream(weights, pattern, config, aux if constants else None,
                                   k_outer=bool(k_outer)))
        stream = Stream(5, rows, beats, pattern.code, False, bool(k_outer),
                        ("scale", "bias")[:constants])
        plan = Plan(memory, (stream,))
        x = rng.integers(-MOST, MOST + 1, (tokens, inputs)).astype(np.int16)
        # One level for what one entry covers; neighbours are often equal.
        entry = min(pattern.ratio, 4)
        levels = np.repeat(rng.choice([0, 0, 0, 5, 20], (tokens, plan.blocks // entry)), entry, 1)
        found = product(plan, x, levels, lanes)
        assert (found == exact(weights, x, levels, width)).all()


@CONFIGS
@pytest.mark.parametrize("k_outer", [0, 1])
def test_weights_of_two_digits(k_outer, config, request):
    rng, width, lanes = generator(request), config.beat_bytes, config.channels
    memory, rows, beats = Memory(config), 5, 3
    digits = rng.integers(-128, 128, (lanes, rows, beats, 2, width)).astype(np.int8)
    digits[:, 0] = -128
    digits[:, 1] = 127
    order = digits.swapaxes(1, 2) if k_outer else digits
    put(memory, 9, order.reshape(lanes, -1))
    plan = Plan(memory, (Stream(9, rows, beats, 0, True, bool(k_outer)),))
    x = rng.choice([-MOST, MOST], (2, beats * width)).astype(np.int16)
    levels = rng.integers(0, 20, (2, beats))
    wide = digits[:, :, :, 0].astype(int) * 256 + digits[:, :, :, 1]
    weights = wide.swapaxes(0, 1).reshape(rows * lanes, -1)
    assert (product(plan, x, levels, lanes) == exact(weights, x, levels, width)).all()


@CONFIGS
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sums_fit(sign, config):
    """Rows of −128 against activations of −32,768, the least that 16 bits hold, and of 32,639:
    runs of the greatest length come within an eighth of 32 bits."""
    memory, width, lanes = Memory(config), config.beat_bytes, config.channels
    beats = 4 * kernels.RUN // width
    memory.bytes[:, :beats * width] = 0x80
    plan = Plan(memory, (Stream(0, 1, beats, 0, False, False),))
    value = -32768 if sign == 1 else MOST
    x = np.full((1, beats * width), value, np.int16)
    found = product(plan, x, np.zeros((1, beats), np.int64), lanes)
    assert (found == -128 * value * beats * width).all()
    assert kernels.RUN % width == 0
    assert 0.85 * 2**31 < 128 * 32768 * kernels.RUN < 2**31


def test_two_values_of_one_position_add_up(request):
    """Metadata of four bits each may name a position twice."""
    rng, pattern = generator(request), next(p for p in PATTERNS if p.coding == "positions")
    assert (pattern.n, pattern.m) == (4, 16)
    _, notes, values = stream_beats(1, 0, 1, pattern, 16)
    memory = Memory(TINY)
    stream = rng.integers(0, 256, (4, notes + values, 16)).astype(np.uint8)
    stream[:, notes:] &= 31
    put(memory, 0, stream)
    places = np.stack([stream[:, 0, :8] & 15, stream[:, 0, :8] >> 4], -1).reshape(4, 4, 4)
    # Four slots of a beat share a 16-wide group.
    weights = np.zeros((4, 64), int)
    for lane in range(4):
        for group in range(4):
            for k in range(4):
                weights[lane, 16 * group + places[lane, group, k]] += stream[
                    lane, notes, 4 * group + k]
    plan = Plan(memory, (Stream(0, 1, 1, pattern.code, False, False),))
    x = rng.integers(-99, 99, (1, 64)).astype(np.int16)
    levels = np.zeros((1, 4), np.int64)
    assert (product(plan, x, levels, 4) == exact(weights, x, levels, 16)).all()


@pytest.mark.parametrize("joined", [BELOW, BESIDE])
def test_streams_that_are_one_matrix(joined, request):
    rng, memory = generator(request), Memory(TINY)
    parts = [sparse(rng, 12, 64, PATTERNS[1]) for _ in range(3)]
    streams = []
    for k, part in enumerate(parts):
        put(memory, 100 * k, pack_stream(part, PATTERNS[1], TINY))
        streams.append(Stream(100 * k, 3, 2, 1, False, False))
    weights = np.concatenate(parts, joined - 1)
    plan = Plan(memory, tuple(streams), joined)
    x = rng.integers(-MOST, MOST + 1, (2, weights.shape[1])).astype(np.int16)
    levels = np.repeat(rng.integers(0, 9, (2, plan.blocks // 2)), 2, 1)
    assert (product(plan, x, levels, 4) == exact(weights, x, levels, 16)).all()


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
def test_blocks_without_weights_are_found(pattern, request):
    """Those behind the last weight are not even read: planes may end before."""
    rng, memory, beats = generator(request), Memory(SMALL), 8
    covered = 32 * pattern.ratio
    weights = sparse(rng, 24, beats * covered, pattern)
    weights[:, 5 * covered:] = weights[:, covered:2 * covered] = 0
    weights[17, covered + 3] = -1
    put(memory, 0, pack_stream(weights, pattern, SMALL))
    found = Weights(memory, (Stream(0, 3, beats, pattern.code, False, False),))
    used = weights.reshape(24, -1, 32).any(axis=(0, 2))
    assert (found.used.ravel() == used[:found.used.size]).all()
    assert not used[found.used.size:].any()
    assert found.used[-1].any()
    assert found.plan.blocks == found.used.size <= 5 * pattern.ratio


def planes(config, rng, tokens, digits, exponents, *, zero=()):
    """A state with random slices of one block, and what they hold [tokens, elements]."""
    state, width = State(config), config.beat_bytes
    blocks = len(exponents[0])
    q = rng.choice([-MOST, MOST, 0, 3] if digits == 2 else [-127, 127, 0, 3],
                   (tokens, blocks, width))
    q[:, list(zero)] = 0
    for token in range(tokens):
        writer = PlaneWriter(state, 0, 1, blocks, digits=digits - 1, two_beat=0, token=token,
                             base=-30)
        writer.put(q[token].astype(np.float32), exponents[token])
    return state, q.reshape(tokens, -1)


@CONFIGS
@pytest.mark.parametrize(("tokens", "digits"), [(1, 1), (4, 1), (1, 2), (2, 2)])
def test_activations_are_put_together(tokens, digits, config, request):
    """Blocks of zeros and blocks without weights do not count for the unit."""
    rng = generator(request)
    exponents = np.tile([-30, 1, -9, -4, 1, -29], (tokens, 1))
    exponents[-1, 2] = -11
    state, q = planes(config, rng, tokens, digits, exponents.tolist(), zero=[5])
    used = np.array([False, *[True] * 5])
    x = np.full(q.shape, 77, np.int16)
    levels = np.full((tokens, 6), 77, np.int64)
    unit, total = kernels.spread(state.planes, state.exponents, used, 0, digits, x, levels)
    width = config.beat_bytes
    q[:, :width] = 0
    assert (x == q).all()
    assert unit == -11
    expected = np.where([0, 1, 1, 1, 1, 0], exponents + 11, 0)
    assert (levels == expected).all()
    scaled = np.abs(q.astype(object)) * (1 << np.repeat(expected, width, 1).astype(object))
    assert total == scaled.sum(1).max()


@pytest.mark.parametrize("far", [10, 16, 27, 31])
@pytest.mark.parametrize("wide", [False, True], ids=["int8", "int16"])
@CONFIGS
def test_sums_are_exact_however_far_exponents_lie_apart(config, wide, far, request):
    """The three ways: FP64, integers of 64 bits, and each exponent for itself."""
    rng, memory, width, lanes = generator(request), Memory(config), config.beat_bytes, \
        config.channels
    blocks = 32
    raw = np.full((lanes, blocks * width << wide), 0x7F, np.uint8)
    raw[1:] = rng.integers(0, 256, raw[1:].shape)
    put(memory, 0, raw)
    exponents = np.full((1, blocks), -30 + far)
    exponents[0, ::4] = -30
    state, q = planes(config, rng, 1, 2, exponents.tolist())
    stream = Stream(0, 1, blocks, 0, wide, False)
    found = sums.multiply(Plan(memory, (stream,)), state, np.ones(blocks, np.bool_), 0, 2, 1)
    weights = raw.view(np.int8).astype(int)
    if wide:
        weights = weights.reshape(lanes, blocks, 2, width)
        weights = (weights[:, :, 0] * 256 + weights[:, :, 1]).reshape(lanes, -1)
    expected = exact(weights, q, exponents + 30, width)
    assert (found.integers(-30) == expected).all()
    assert found.bound >= math.ldexp(float(abs(expected).max()), -30)


@pytest.mark.parametrize("far", [10, 31])
def test_bounds_choose_the_way(far, request, monkeypatch):
    """Integers of 64 bits are not relied on beyond the bound."""
    calls = []
    multiply = kernels.multiply
    monkeypatch.setattr(kernels, "multiply", lambda *a: (calls.append(a[6].max()), multiply(*a)))
    memory = Memory(U280)
    memory.bytes[:, :2048] = 0x81
    state, q = planes(U280, generator(request), 1, 2, [[-30] * 16 + [-30 + far] * 16])
    largest = 128 * (np.abs(q).astype(object)[0] @ ([1] * 1024 + [1 << far] * 1024))
    assert (largest < 2**62) == (far == 10)
    sums.multiply(Plan(memory, (Stream(0, 1, 32, 0, False, False),)), state,
                  np.ones(32, np.bool_), 0, 2, 1)
    assert calls == ([10] if far == 10 else [0, 0])
