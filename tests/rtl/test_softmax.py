# SPDX-License-Identifier: Apache-2.0
"""Softmax against cardsim.numerics, bit for bit, with stalls on both sides."""

import functools
import gc
import random

import numpy as np
import pytest
from amaranth.hdl import Const

from cardsim import numerics as nx
from rtl_gen.softmax import Softmax
from tests.rtl.verilated import Model

TAG = 5
#: Lanes, words, tokens.
SHAPES = [(4, 16, 1), (8, 8, 4), (1, 32, 2)]


@functools.cache
def model(shape, build_root):
    lanes, words, tokens = shape
    dut = Softmax(lanes=lanes, words=words, tokens=tokens, tag=TAG)
    return dut, Model(
        dut, f"softmax_{lanes}_{words}_{tokens}", build_root, optimise="-O0")


def random_scores(rng, count):
    """Scores as attention has them, or all alike, or far apart, or with corners among them."""
    match rng.randrange(5):
        case 0:
            return np.full(count, rng.uniform(-50, 50), np.float32)
        case 1:
            return rng.uniform(-300, 300) * np.sign(np.arange(count) % 3 - 1).astype(np.float32)
        case 2:
            values = np.array([rng.gauss(0, 3) for _ in range(count)], np.float32)
            values[rng.randrange(count)] = rng.choice([np.nan, np.inf, -np.inf, 1e-42, -0.0, 3e38])
            return values
    return np.array([rng.gauss(0, rng.choice([0.1, 3, 30])) for _ in range(count)], np.float32)


def random_jobs(rng, shape, count):
    """(length, words, tag, scores [rows, words, lanes]) with noise beyond the lengths."""
    lanes, words, tokens = shape
    jobs = []
    for _ in range(count):
        rows = rng.randrange(1, tokens + 1)
        used = rng.choice([1, 2, words, rng.randrange(1, words + 1)])
        length = rng.choice([
            1, used * lanes - rows + 1, rng.randrange(1, max(2, used * lanes - rows + 2))])
        length = max(1, length)
        scores = np.stack([random_scores(rng, used * lanes) for _ in range(rows)])
        for k, row in enumerate(scores):
            row[length + k:] = rng.choice([np.nan, np.inf, 1e30, 0])
        jobs.append((length, used, rng.randrange(1 << TAG),
                     scores.astype(np.float32).reshape(rows, used, lanes)))
    return jobs


def run(dut, built, jobs, *, stall, seed):
    """Numerators (bits, mask, last, row, tag) and totals (bits, row, tag) of the model."""
    header = dut.header.payload.shape()
    headers = [Const.cast(header.const({
        "length": length, "words": words, "rows": len(scores), "tag": tag})).value
        for length, words, tag, scores in jobs]
    data = np.concatenate([nx.bits(scores).transpose(1, 0, 2).ravel() for *_, scores in jobs])
    words = sum(scores.shape[0] * scores.shape[1] for *_, scores in jobs)
    rows = sum(len(scores) for *_, scores in jobs)
    return built.run({"header": headers, "i": data}, {"o": words, "total": rows}, stall=stall,
                     seed=seed, cycles=40 * words + 200 * len(jobs) + 1000)


def expected(dut, jobs):
    """Payloads of ``o`` and ``total``, and whether anything is not finite."""
    lanes, seen = dut.lanes, False
    out_shape, total_shape = dut.o.payload.shape(), dut.total.payload.shape()
    numerators, totals = [], []
    for length, words, tag, scores in jobs:
        for row, words_of_row in enumerate(scores):
            valid = min(length + row, words * lanes)
            result = nx.softmax(words_of_row, valid)
            p = nx.bits(result.p).reshape(words, lanes)
            seen |= nx.nonfinite(words_of_row.ravel()[:valid])
            for k in range(words):
                mask = sum(1 << lane for lane in range(lanes) if k * lanes + lane >= valid)
                numerators.append(Const.cast(out_shape.const({
                    "p": [int(b) for b in p[k]], "mask": mask, "last": k == words - 1,
                    "row": row, "tag": tag})).value)
            totals.append(Const.cast(total_shape.const({
                "value": int(nx.bits(result.r)), "row": row, "tag": tag})).value)
    return numerators, totals, seen


@pytest.mark.cosim
@pytest.mark.xdist_group("softmax")
@pytest.mark.parametrize("stall", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_equals_its_definition(build_root, shape, stall):
    seed = f"softmax {shape} {stall}"
    dut, built = model(shape, build_root)
    jobs = random_jobs(random.Random(seed), shape, 60)
    found = run(dut, built, jobs, stall=stall, seed=seed)
    numerators, totals, seen = expected(dut, jobs)
    assert found.outputs["total"] == totals
    assert found.outputs["o"] == numerators
    assert seen
    assert found.high["nonfinite"] > 0


@pytest.mark.cosim
@pytest.mark.xdist_group("softmax")
def test_masked_scores_raise_nothing(build_root):
    dut, built = model(SHAPES[0], build_root)
    scores = np.full((1, 3, 4), np.nan, np.float32)
    scores.ravel()[:9] = np.arange(9)
    found = run(dut, built, [(9, 3, 0, scores)], stall=0, seed="")
    assert found.outputs["o"] == expected(dut, [(9, 3, 0, scores)])[0]
    assert found.high["nonfinite"] == 0


@pytest.mark.cosim
@pytest.mark.xdist_group("softmax")
@pytest.mark.parametrize("words", [2, 3, 16])
def test_a_word_every_cycle_without_a_gap_between_rows(build_root, words):
    dut, built = model(SHAPES[0], build_root)
    rng = random.Random(words)
    jobs = [(4 * words, words, k % 32, np.array(
        [rng.gauss(0, 3) for _ in range(4 * words)], np.float32).reshape(1, words, 4))
        for k in range(800 // words)]
    found = run(dut, built, jobs, stall=0, seed="")
    assert found.outputs["total"] == expected(dut, jobs)[1]
    # The first numerators come LATENCY cycles after the last word of the first row was taken.
    assert found.cycles["o"][0] == words - 1 + dut.LATENCY
    assert np.ptp(found.cycles["o"]) == len(jobs) * words - 1


@pytest.mark.parametrize(("parameters", "message"), [
    ({"lanes": 3}, "lanes must be a power of two, not 3"),
    ({"words": 1}, "words must be a power of two from 2 up, not 1"),
    ({"tokens": 0}, "tokens must be at least 1, not 0"),
])
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_refusals(parameters, message):
    with pytest.raises(ValueError, match=message):
        Softmax(**{"lanes": 4, "words": 16, "tokens": 1, "tag": 1} | parameters)
    gc.collect()
