# SPDX-License-Identifier: Apache-2.0
"""LayerNorm of a stream against ``cardsim.numerics`` and against FP64."""

import random

import numpy as np
import pytest
from amaranth import Const

from cardsim import numerics as nx
from rtl_gen.vector import LayerNorm
from tests.rtl.bench import again
from tests.rtl.verilated import Model

LANES, WORDS = 4, 24
pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("layernorm")]
EPS = np.float32(1e-5)


@pytest.fixture(scope="module")
def model(build_root):
    dut = LayerNorm(lanes=LANES, words=WORDS)
    return dut, Model(dut, "layernorm", build_root)


def expected(x, inv, gamma, beta):
    """One vector [W, V], and whether anything in it is not finite."""
    found = nx.layer_norm(x, inv, EPS, gamma[:len(x)], beta[:len(x)])
    return found.y, nx.nonfinite(*found)


def run(model, vectors, inv, gamma, beta, *, stall, seed):
    dut, built = model
    word = dut.i.payload.shape()
    weight = dut.weights.payload.shape()
    listed = lambda row: [int(v) for v in nx.bits(row)]        # noqa: E731
    data = [Const.cast(word.const({"data": listed(row), "last": k == len(x) - 1})).value
            for x in vectors for k, row in enumerate(x)]
    weights = [Const.cast(weight.const({
        "gamma": listed(g), "beta": listed(b), "last": k == len(gamma) - 1})).value
        for k, (g, b) in enumerate(zip(gamma, beta, strict=True))]
    return built.run({"i": data, "weights": weights}, {"o": len(data)}, stall=stall, seed=seed,
                     cycles=100 * len(data) + 5000, inv=int(nx.bits(inv)), eps=int(nx.bits(EPS)))


def words(dut, x):
    return [Const.cast(dut.o.payload.shape().const({
        "data": [int(v) for v in nx.bits(row)], "last": k == len(x) - 1})).value
        for k, row in enumerate(x)]


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("case", ["alike", "mixed", "wild"])
def test_vectors_equal_the_reference(model, case, stall):
    seed = f"layernorm {case} {stall}"
    rng = np.random.default_rng(list(seed.encode()))
    length = {"alike": lambda: WORDS, "mixed": lambda: int(rng.integers(1, WORDS + 1)),
              "wild": lambda: int(rng.integers(1, 6))}[case]
    gamma, beta = (rng.normal(size=(WORDS, LANES)).astype(np.float32) for _ in range(2))
    inv = np.float32(1 / (WORDS * LANES))
    vectors = [(rng.normal(size=(length(), LANES)) * rng.choice([0.01, 1, 50])
                + rng.normal()).astype(np.float32) for _ in range(60)]
    if case == "wild":
        for x in vectors[::5]:
            x[0, rng.integers(LANES)] = rng.choice([np.inf, -np.inf, np.nan, 3e38, 1e-42])
    results = [expected(x, inv, gamma, beta) for x in vectors]
    found = run(model, vectors, inv, gamma, beta, stall=stall, seed=seed)
    for k, (a, b) in enumerate(zip(
            found.outputs["o"], [w for y, _ in results for w in words(model[0], y)], strict=True)):
        assert a == b, f"word {k} is {a:#x}, not {b:#x}; repeat with: {again()}"
    assert bool(found.high["nonfinite"]) == any(seen for _, seen in results)


def test_long_vectors_flow_nearly_without_a_gap(model):
    rng = np.random.default_rng(1)
    gamma, beta = np.ones((WORDS, LANES), np.float32), np.zeros((WORDS, LANES), np.float32)
    vectors = [rng.normal(size=(WORDS, LANES)).astype(np.float32) for _ in range(60)]
    inv = np.float32(1 / (WORDS * LANES))
    found = run(model, vectors, inv, gamma, beta, stall=0.0, seed="flow")
    ends = found.cycles["o"][WORDS - 1::WORDS].astype(int)
    # One reciprocal square root takes longer than one of these vectors.
    assert (ends[-1] - ends[20]) / 39 <= max(WORDS, 60)


def test_close_to_fp64():
    rng = random.Random("layernorm")
    x = np.array([[rng.gauss(3, 2) for _ in range(16)] for _ in range(48)], np.float32)
    one, zero = np.ones_like(x), np.zeros_like(x)
    y, seen = expected(x, np.float32(1 / x.size), one, zero)
    exact = (x - x.mean(dtype=float)) / np.sqrt(x.var(dtype=float) + 1e-5)
    assert not seen
    assert np.abs(y - exact).max() < 2e-6


@pytest.mark.parametrize(("lanes", "words", "message"), [
    (6, 4, "lanes must be a power of two, not 6"),
    (4, 0, "words must be at least 1, not 0")])
def test_parameters_are_refused(lanes, words, message):
    with pytest.raises(ValueError, match=message):
        LayerNorm(lanes=lanes, words=words)
