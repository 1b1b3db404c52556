# SPDX-License-Identifier: Apache-2.0
"""VECTOR, SCALAR, QUANT, NORM, LOAD and STORE on the functional card."""

import math

import numpy as np
import pytest

from cardsim import numerics as nx
from cardsim.functional.arithmetic import RAW
from rtl_gen.spec.config import SMALL, TINY
from rtl_gen.spec.isa import ScalarFn, VectorFn
from tests.sim.bench import Bench, bits

OUT = 0x20000
NAN = 0x7FC00000


def tame(rng, shape):
    return rng.normal(size=shape).astype(np.float32)


def wild(rng, shape):
    """Any bit patterns, and many of the odd ones."""
    odd = np.array([0, 1 << 31, 1, 0x80000001, 0x00800000, 0x7F800000, 0xFF800000, NAN, 0x7F7FFFFF,
                    0x3F800000, 0x42B17217, 0x42B17218, 0xC2AEAC4F, 0xC2AEAC50, 0x0D800000],
                   np.uint32)
    x = rng.integers(0, 1 << 32, shape, dtype=np.uint32)
    return np.where(rng.random(shape) < 0.3, rng.choice(odd, shape), x).view(np.float32)


def small(rng, shape):
    """Products of these are subnormal, and so are some of their differences."""
    return (rng.choice([-1, 1], shape) * 2.0 ** rng.uniform(-100, -40, shape)).astype(np.float32)


KINDS = {"tame": tame, "wild": wild, "small": small}


def golden_vector(fn, a, b, s):
    """Result, or value of the scalar."""
    match fn:
        case VectorFn.COPY:
            return a
        case VectorFn.ADD:
            return nx.add(a, b)
        case VectorFn.SUB:
            return nx.sub(a, b)
        case VectorFn.MUL:
            return nx.mul(a, b)
        case VectorFn.MAX:
            return nx.maximum(a, b)
        case VectorFn.MADD:
            return nx.madd(a, s, b)
        case VectorFn.ADDS:
            return nx.add(a, s)
        case VectorFn.MULS:
            return nx.mul(a, s)
        case VectorFn.EXP:
            return nx.exp(a)
        case VectorFn.GELU_TANH:
            return nx.gelu(a, 0)
        case VectorFn.GELU_ERF:
            return nx.gelu(a, 1)
        case VectorFn.SUM:
            return nx.word_sum(a)
        case VectorFn.MAXIMUM:
            return nx.greatest(a)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fn", VectorFn, ids=lambda fn: fn.name)
def test_vector_functions(fn, kind):
    rng = np.random.default_rng([fn, len(kind)])
    bench = Bench(TINY)
    for words in (1, 2, 33):
        a, b = (KINDS[kind](rng, (words, 4)) for _ in range(2))
        if fn == VectorFn.EXP and kind == "tame":
            a *= 20
        s = KINDS[kind](rng, 1)[0]
        bench.put_words(0, bits(np.concatenate([a, b])))
        status = bench.run(
            ("LOAD", {"address": 0, "rows": 1, "words": 2 * words, "dst": 10}),
            ("SCALAR", {"fn": ScalarFn.SET, "d": 3, "imm": int(bits(s))}),
            ("VECTOR", {"fn": fn, "dst": 100, "a": 10, "b": 10 + words, "words": words, "s": 3}),
            ("STORE", {"address": OUT, "words": words, "src": 100}))
        expected = golden_vector(fn, a, b, s)
        if fn >= VectorFn.SUM:
            assert bits(bench.card.state.scalars[3]) == bits(expected)
        else:
            assert (bits(bench.get_words(OUT, words)) == bits(expected)).all()
        if kind != "wild":
            assert status["sticky"] == 0


def test_zeros_of_both_signs_have_an_order():
    bench = Bench(TINY)
    bench.put_words(0, bits([[-0.0, 0.0, -0.0, -1], [0.0, -0.0, -0.0, -0.0]]))
    bench.run(("LOAD", {"rows": 1, "words": 2}),
              ("VECTOR", {"fn": VectorFn.MAX, "dst": 8, "a": 0, "b": 1, "words": 1}),
              ("VECTOR", {"fn": VectorFn.MAXIMUM, "a": 0, "words": 2, "s": 1}),
              ("STORE", {"address": OUT, "words": 1, "src": 8}))
    assert bits(bench.get_words(OUT, 1)).tolist() == [[0, 0, 1 << 31, 1 << 31]]
    assert bits(bench.card.state.scalars[1]) == 0


@pytest.mark.parametrize(("x", "fn", "raises"), [
    (math.inf, VectorFn.ADD, True), (math.nan, VectorFn.EXP, True), (-math.inf, VectorFn.EXP, True),
    (-math.inf, VectorFn.GELU_ERF, True), (3e38, VectorFn.ADD, True), (100.0, VectorFn.EXP, True),
    (math.inf, VectorFn.COPY, False), (1e-42, VectorFn.ADD, False), (3e38, VectorFn.MAX, False),
])
def test_what_is_not_finite_is_noticed(x, fn, raises):
    bench = Bench(TINY)
    bench.put_words(0, bits(np.full((1, 4), x)))
    program = [("LOAD", {"rows": 1, "words": 1}), ("VECTOR", {"fn": fn, "dst": 4, "words": 1})]
    assert bench.run(*program)["sticky"] == raises
    # Gone with the next command.
    assert bench.run()["sticky"] == 0


@pytest.mark.parametrize(("fn", "golden"), [
    (ScalarFn.SET, lambda a, b: None), (ScalarFn.ADD, nx.add), (ScalarFn.SUB, nx.sub),
    (ScalarFn.MUL, nx.mul), (ScalarFn.MAX, nx.maximum), (ScalarFn.RCP, lambda a, b: nx.rcp(a)),
    (ScalarFn.RSQRT, lambda a, b: nx.rsqrt(a))], ids=lambda fn: getattr(fn, "name", ""))
def test_scalar_functions(fn, golden):
    rng = np.random.default_rng(int(fn))
    bench = Bench(TINY)
    for a, b in [*zip(wild(rng, 30), wild(rng, 30), strict=True), (np.float32(-0.0),) * 2]:
        bench.run(*(("SCALAR", {"fn": ScalarFn.SET, "d": d, "imm": int(bits(x))})
                    for d, x in ((1, a), (2, b))),
                  ("SCALAR", {"fn": fn, "d": 15, "a": 1, "b": 2, "imm": int(bits(a))}))
        expected = a if fn == ScalarFn.SET else golden(a, b)
        assert bits(bench.card.state.scalars[15]) == bits(expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gamma", [0, 1])
@pytest.mark.parametrize(("digits", "two_beat", "token"),
                         [(0, 0, 3), (0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_quant_fills_columns_and_keeps_statistics(digits, two_beat, token, gamma, kind):
    rng = np.random.default_rng([digits, two_beat, token, gamma])
    bench = Bench(TINY)
    state = bench.card.state
    y, g = KINDS[kind](rng, (12, 4)), tame(rng, (12, 4))
    if kind == "wild":
        # Squares stay finite.
        y = np.where(np.abs(y) < 1e15, y, np.float32(1))
    bench.put_words(0, bits(np.concatenate([y, g])))
    state.planes[:] = 77
    base = -60 if kind == "small" else -20
    status = bench.run(("LOAD", {"rows": 1, "words": 24}), ("QUANT", {
        "a": 0, "words": 12, "gamma": gamma, "b": 12, "act": 9, "exponent": base,
        "digits": digits, "two_beat": two_beat, "token": token, "stats": 1, "word": 5}))
    found = nx.quantise((nx.mul(y, g) if gamma else y).ravel(), 1 + digits, base)
    low, high = nx.split_digits(found.q)
    expected = [high, low] if digits else [found.q]
    columns = {4 // (1 + two_beat) * half + (token << digits) + k: expected[k]
               for half in range(1 + two_beat) for k in range(1 + digits)}
    for column in range(4):
        elements = state.planes[column, 144:192]
        assert (elements == columns[column]).all() if column in columns else \
            (state.planes[column] == 77).all()
        if column in columns:
            assert (state.exponents[column, 9:12] == found.exponent).all()
    assert (state.planes[:, :144] == 77).all()
    assert (state.planes[:, 192:] == 77).all()
    assert (bits(state.word_sums[token, :, 5:17]) == bits(np.array(nx.norm_words(y)))).all()
    assert not np.delete(state.word_sums[token], slice(5, 17), axis=1).any()
    assert status["sticky"] == 2 * found.out_of_range


def test_quant_of_what_is_not_finite():
    bench = Bench(TINY)
    bench.put_words(0, bits([[1, math.nan, -math.inf, 0]]))
    status = bench.run(("LOAD", {"rows": 1, "words": 1}),
                       ("QUANT", {"words": 1, "act": 0, "exponent": 110}))
    assert bench.card.state.planes[0, :4].tolist() == [0, 64, -64, 0]
    assert bench.card.state.exponents[0, 0] == 122
    assert status["sticky"] == 1


@pytest.mark.parametrize("spread", [1, 1e-30])
@pytest.mark.parametrize("slices", [1, 3, 64])
def test_norm(slices, spread):
    rng = np.random.default_rng(slices)
    bench = Bench(TINY)
    y = (rng.normal(size=(slices * 4, 4)) * spread + 0.5 * spread).astype(np.float32)
    bench.put_words(0, bits(y))
    inv = int(bits(1 / y.size))
    bench.run(("LOAD", {"rows": 1, "words": len(y)}),
              *(("QUANT", {"a": 4 * k, "words": 4, "act": 0, "exponent": -20, "stats": 1,
                           "word": 4 * k})
                for k in range(slices)),
              ("NORM", {"words": 4 * slices, "set": 1, "token": 0, "inv": inv,
                        "eps": int(bits(1e-5))}))
    expected = nx.norm_finish(nx.norm_words(y), 4, nx.from_bits(inv), np.float32(1e-5))
    assert (bits(bench.card.state.norms[1, 0]) == bits(expected)).all()


@pytest.mark.parametrize("config", [TINY, SMALL], ids=lambda c: c.name)
def test_load_and_store_of_ragged_rows(config):
    rng = np.random.default_rng(1)
    bench = Bench(config)
    per_row = -(-4 * 7 // config.beat_bytes)
    x = rng.integers(0, 1 << 32, (3, per_row * config.beat_bytes // 4, config.channels), np.uint32)
    bench.put_words(0x40, x.reshape(-1, config.channels))
    for channel in range(config.channels):
        bench.put(OUT, np.full(64, 0xFF, np.uint8), channel)
    bench.run(("ADDI", {"rd": 7, "imm": 0x10}), ("ADDI", {"rd": 8, "imm": 3}),
              ("LOAD", {"address": 0x100, "address_reg": 9, "index_reg": 7, "stride": 4, "rows": 1,
                        "rows_reg": 8, "words": 7, "dst": 100}),
              ("STORE", {"address": OUT, "words": 5, "src": 101}),
              registers={9: (0x40 - 0x140) & 0xFFFFFFFF})
    held = bench.card.state.words[100:121].reshape(3, 7, config.channels)
    assert (held == x[:, :7]).all()
    padded = -(-5 * 4 // config.beat_bytes) * config.beat_bytes // 4
    stored = bench.get_words(OUT, padded + 1, np.uint32)
    assert (stored[:5] == x[0, 1:6]).all()
    assert not stored[5:padded].any()
    assert (stored[padded] == 0xFFFFFFFF).all()


def test_rows_of_zero_load_nothing_and_scales_are_loaded():
    bench = Bench(TINY)
    bench.put_words(0, np.arange(16, dtype=np.uint32).reshape(4, 4))
    bench.run(("LOAD", {"rows": 4, "rows_reg": 9, "words": 4, "dst": 0}),
              ("LOAD", {"rows": 1, "words": 4, "target": 1, "dst": 300}))
    assert not bench.card.state.words.any()
    assert (bench.card.state.scales[300:304] == np.arange(16).reshape(4, 4)).all()


@pytest.mark.parametrize(("low", "high"), [(-21, 21), (-110, 88.7), (-87.4, -87.2), (-1e5, 1),
                                           (-1e-3, 1e-3)])
def test_the_quick_exp_is_the_defined_one(low, high):
    x = np.random.default_rng(1).uniform(low, high, 100_000).astype(np.float32)
    x = np.append(np.minimum(x, nx.EXP_HIGH), np.float32([low, high]))
    assert (bits(RAW.exp(x)) == bits(nx.exp(x))).all()


@pytest.mark.parametrize("form", [0, 1])
def test_the_quick_gelu_is_the_defined_one(form):
    x = np.random.default_rng(2).uniform(-7.9999, 7.9999, 100_000).astype(np.float32)
    assert (bits(RAW.gelu(x, form)) == bits(nx.gelu(x, form))).all()
