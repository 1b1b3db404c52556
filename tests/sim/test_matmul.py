# SPDX-License-Identifier: Apache-2.0
"""MATMUL on the functional card against the definition in Python integers."""

import numpy as np
import pytest

from cardsim import numerics as nx
from cardsim.functional.sums import Sums
from heddle.card import CardError
from heddle.pack.patterns import pack_stream
from rtl_gen.spec.config import SMALL, TINY, U280
from rtl_gen.spec.formats import PATTERNS
from tests.sim.bench import Bench, bits

DATA, WEIGHTS, OUT = 0, 0x1000, 0x20000


def generator(request):
    return np.random.default_rng([ord(c) for c in request.node.name])


def sparse(rng, rows, inputs, pattern, limit=127):
    """Random weights that keep the pattern; some groups hold fewer, or none."""
    w = rng.integers(-limit, limit + 1, (rows, inputs))
    if pattern.m == 1:
        return w
    padded = np.pad(w, ((0, 0), (0, -inputs % pattern.m)))
    groups = padded.reshape(rows, -1, pattern.m)
    rank = rng.random(groups.shape).argsort(-1).argsort(-1)
    keep = rank < rng.integers(0, pattern.n + 1, groups.shape[:2])[..., None]
    return (groups * keep).reshape(rows, -1)[:, :inputs]


class Product:
    """Activations in the planes, weights in memory, and what their product must be."""

    def __init__(self, config, rng, *, rows, inputs, pattern=PATTERNS[0], digits=0, two_beat=0,
                 columns=1, aux=0, slices=1, base=-30, spread=6, k_outer=False):
        self.bench = Bench(config)
        self.config, self.digits, self.base = config, digits, base
        lanes = config.channels
        self.lane_rows = -(-rows // lanes)
        covered = config.beat_bytes * pattern.ratio
        self.beats = -(-inputs // covered)
        inputs_padded = self.beats * covered
        self.weights = sparse(rng, rows, inputs, pattern)
        self.aux = (rng.uniform(0.5, 2, (rows, aux)) * 2.0 ** rng.integers(-9, -3, (rows, aux))
                    * rng.choice([-1, 1], (rows, aux))).astype(np.float32)
        stream = pack_stream(self.weights.astype(np.int8), pattern, config,
                             self.aux.view(np.uint32) if aux else None, k_outer=k_outer)
        for channel in range(lanes):
            self.bench.put(WEIGHTS, stream[channel], channel)

        words = inputs_padded // lanes
        per_slice = words // slices
        self.x = rng.normal(size=(columns, words, lanes)).astype(np.float32)
        self.x *= np.repeat(2.0 ** rng.integers(-spread, spread + 1, (columns, slices)),
                            per_slice, 1)[:, :, None]
        self.load = []
        self.q, self.e = [], []
        for token in range(columns):
            self.bench.put_words(DATA + 0x100 * token, self.x[token])
            self.load.append(("LOAD", {"address": DATA + 0x100 * token, "rows": 1, "words": words,
                                       "dst": 0}))
            for k in range(slices):
                part = self.x[token, k * per_slice:(k + 1) * per_slice]
                self.load.append(("QUANT", {
                    "a": k * per_slice, "words": per_slice,
                    "act": k * per_slice * lanes // config.beat_bytes, "exponent": base,
                    "digits": digits, "two_beat": two_beat, "token": token}))
                found = nx.quantise(part.ravel(), 1 + digits, base)
                self.q.append(found.q)
                self.e.append(found.exponent)
        self.q = np.array(self.q).reshape(columns, slices, -1)
        self.e = np.array(self.e).reshape(columns, slices)
        self.fields = {
            "address": WEIGHTS, "rows": self.lane_rows, "beats": self.beats,
            "pattern": pattern.code, "first": 1, "last": 1, "exponent": base, "digits": digits,
            "two_beat": two_beat, "columns": columns, "dst": 0x200, "dst_stride": self.lane_rows}

    def sums(self):
        """Exact sums [columns, rows] in units of 2^base."""
        inputs = self.weights.shape[1]
        scaled = (self.q.astype(object)
                  * (1 << (self.e - self.base).astype(object))[:, :, None])
        return scaled.reshape(len(self.q), -1)[:, :inputs] @ self.weights.T.astype(object)

    def run(self, *instructions, **fields):
        """Run the product; results [columns, rows]."""
        if not instructions:
            instructions = [("MATMUL", self.fields | fields)]
        columns, rows = len(self.q), self.weights.shape[0]
        count = columns * self.lane_rows
        self.status = self.bench.run(*self.load, *instructions, (
            "STORE", {"address": OUT, "words": count, "src": 0x200}))
        found = self.bench.get_words(OUT, count).reshape(columns, -1)
        assert not found[:, rows:].any()
        return found[:, :rows]


@pytest.mark.parametrize("config", [TINY, SMALL, U280], ids=lambda c: c.name)
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
def test_every_pattern(config, pattern, request):
    rng = generator(request)
    covered = config.beat_bytes * pattern.ratio
    for rows, inputs in ((config.channels, covered), (3 * config.channels - 1, 5 * covered - 3)):
        product = Product(config, rng, rows=rows, inputs=inputs, pattern=pattern, digits=1,
                          two_beat=1, slices=-(-inputs // covered))
        assert (bits(product.run()) == bits(nx.cvt(product.sums(), product.base))).all()


@pytest.mark.parametrize(("digits", "two_beat", "columns"),
                         [(0, 0, 4), (0, 0, 1), (0, 1, 2), (1, 0, 2), (1, 1, 1)])
def test_columns_and_digits(digits, two_beat, columns, request):
    product = Product(TINY, generator(request), rows=40, inputs=256, slices=8, digits=digits,
                      two_beat=two_beat, columns=columns)
    assert (bits(product.run()) == bits(nx.cvt(product.sums(), product.base))).all()


@pytest.mark.parametrize(("spread", "base"), [(0, -30), (10, -40), (15, -60), (12, 20), (14, -128)])
@pytest.mark.parametrize("inputs", [256, 2048])
def test_sums_are_exact_however_far_the_exponents_lie_apart(spread, base, inputs, request):
    """From sums that fit FP32 to sums that fit no machine number."""
    rng = generator(request)
    product = Product(TINY, rng, rows=8, inputs=inputs, slices=8, digits=1, base=base,
                      spread=spread)
    assert (bits(product.run()) == bits(nx.cvt(product.sums(), base))).all()


def test_80_bits_are_kept(request):
    """Slices 2^31 apart: the sum is wider than FP64."""
    rng = generator(request)
    product = Product(TINY, rng, rows=4, inputs=256, slices=2, digits=1, base=-30, spread=0)
    product.x[0, 32:] = 3
    product.x[0, :32] *= 2.0**-18
    product.bench.put_words(DATA, product.x[0])
    for k in range(2):
        found = nx.quantise(product.x[0, 32 * k:32 * k + 32].ravel(), 2, -43)
        product.q[0, k], product.e[0, k] = found.q, found.exponent
    product.base = product.fields["exponent"] = -43
    for name, fields in product.load:
        if name == "QUANT":
            fields["exponent"] = -43
    assert np.ptp(product.e) > 10
    assert (bits(product.run()) == bits(nx.cvt(product.sums(), -43))).all()


@pytest.mark.parametrize("k_outer", [0, 1])
def test_chunks_add_up_in_the_bank(k_outer, request):
    rng = generator(request)
    product = Product(TINY, rng, rows=32, inputs=256, slices=4, digits=1, columns=2)
    chunks = []
    for k in range(4):
        part = product.weights[:, 64 * k:64 * k + 64]
        stream = pack_stream(part.astype(np.int8), PATTERNS[0], TINY, k_outer=bool(k_outer))
        for channel in range(4):
            product.bench.put(WEIGHTS + 0x800 * k, stream[channel], channel)
        chunks.append(("MATMUL", product.fields | {
            "address": WEIGHTS + 0x800 * k, "beats": 4, "act": 4 * k, "first": k == 0,
            "last": k == 3, "acc_row": 17, "k_outer": k_outer}))
    found = product.run(*chunks)
    assert (bits(found) == bits(nx.cvt(product.sums(), product.base))).all()


def test_bank_rows_may_be_finished_in_other_portions(request):
    product = Product(TINY, generator(request), rows=32, inputs=64)
    zeros = np.zeros((32, 64), np.int8)
    for channel, stream in enumerate(pack_stream(zeros, PATTERNS[0], TINY)):
        product.bench.put(0x8000, stream, channel)
    f = product.fields
    found = product.run(
        ("MATMUL", f | {"last": 0, "acc_row": 3}),
        *(("MATMUL", f | {"address": 0x8000, "rows": rows, "first": 0, "acc_row": row,
                          "dst": 0x200 + row - 3}) for row, rows in ((3, 3), (6, 1), (7, 4))))
    assert (bits(found) == bits(nx.cvt(product.sums(), product.base))).all()


EPILOGUES = [
    {"scale": 1}, {"bias": 1}, {"scale": 1, "norm": 1, "bias": 1}, {"norm": 2},
    {"scale": 1, "divide": 8}, {"scale": 1, "bias": 1, "gelu": 1}, {"scale": 1, "gelu": 2},
    {"scale": 1, "bias": 1, "residual": 1}, {"norm": 1, "divide": 1, "gelu": 2, "residual": 1},
]


@pytest.mark.parametrize("special", [False, True], ids=["tame", "special"])
@pytest.mark.parametrize("steps", EPILOGUES, ids=lambda s: "-".join(s))
def test_epilogue(steps, special, request):
    """Every step, in its order; also with constants that overflow, underflow or are no numbers."""
    rng = generator(request)
    aux = (steps.get("scale") == 1) + (steps.get("norm", 0) > 0) + steps.get("bias", 0)
    product = Product(TINY, rng, rows=12, inputs=64, digits=1, columns=2, aux=aux)
    if special and aux:
        values = np.array([1e-42, 1e-38, 2e38, np.inf, np.nan, -0.0, 0, 1], np.float32)
        product.aux[:8] = values[:, None]
        stream = pack_stream(product.weights.astype(np.int8), PATTERNS[0], TINY,
                             product.aux.view(np.uint32))
        for channel in range(4):
            product.bench.put(WEIGHTS, stream[channel], channel)
    old = rng.normal(size=(6, 4)).astype(np.float32)
    if special:
        old[:2, 0] = 1e-42, np.inf
    product.bench.put_words(0x600, old)
    product.load.append(("LOAD", {"address": 0x600, "rows": 1, "words": 6, "dst": 0x200}))
    state = product.bench.card.state
    state.norms[:] = rng.uniform(0.1, 3, (2, 4, 2))
    state.softmax[:] = rng.uniform(0.01, 1, (8, 4))

    found = product.run(**steps)
    constants = list(product.aux.T)
    for token in range(2):
        v = nx.cvt(product.sums()[token], product.base)
        used = iter(constants)
        if steps.get("scale"):
            v = nx.mul(v, next(used))
        if norm := steps.get("norm"):
            mean, rstd = state.norms[norm - 1, token]
            v = nx.mul(nx.sub(v, nx.mul(mean, next(used))), rstd)
        if divide := steps.get("divide"):
            v = nx.mul(v, state.softmax[divide - 1, token])
        if steps.get("bias"):
            v = nx.add(v, next(used))
        if form := steps.get("gelu"):
            v = nx.gelu(v, form - 1)
        if steps.get("residual"):
            v = nx.add(old[3 * token:3 * token + 3].ravel(), v)
        assert (bits(found[token]) == bits(v)).all()
    if not special:
        assert product.status["sticky"] == 0
    elif "scale" in steps or "norm" in steps:
        assert product.status["sticky"] == 1


def test_planes_must_be_read_as_they_were_written(request):
    product = Product(TINY, generator(request), rows=4, inputs=128, digits=1, two_beat=1, slices=2)
    for wrong in ({"digits": 0}, {"two_beat": 0}, {"exponent": -29}, {"act": 4}):
        with pytest.raises(CardError, match="MATMUL from plane block"):
            product.run(**wrong)


def test_a_window_must_not_cross_slices(request):
    rng = generator(request)
    product = Product(TINY, rng, rows=4, inputs=128, slices=4, pattern=PATTERNS[4])
    with pytest.raises(CardError, match="one slice"):
        product.run()


def test_written_weights_are_decoded_again(request):
    product = Product(TINY, generator(request), rows=4, inputs=64)
    first = product.run().copy()
    beat = product.bench.get(WEIGHTS + 2, 16, 3, np.int8).copy()
    product.bench.put(WEIGHTS + 2, -beat, 3)
    product.weights[3, 32:48] *= -1
    second = product.run()
    assert (bits(second) == bits(nx.cvt(product.sums(), product.base))).all()
    assert (first != second).any()


def test_stores_reach_weights(request):
    """Weights that the card itself writes."""
    product = Product(TINY, generator(request), rows=4, inputs=64)
    product.run()
    product.load.append(("STORE", {"address": WEIGHTS + 1, "words": 4, "src": 0x300}))
    product.weights[:, 16:32] = 0
    assert (bits(product.run()) == bits(nx.cvt(product.sums(), product.base))).all()


def test_sums_of_nothing_are_plus_zero():
    """As `cvt` has it, whatever sign a zero has that was rounded before."""
    sums = Sums(np.array([[-0.0, 1, -0.0]]), -10, 1.0)
    assert bits(sums.rounded()).tolist() == [[0, 0x3F800000, 0]]


def test_products_of_nothing_are_plus_zero(request):
    product = Product(TINY, generator(request), rows=4, inputs=16, digits=1, aux=1)
    for channel in range(4):
        product.bench.put(WEIGHTS + 1, np.zeros(16, np.int8), channel)
    product.bench.put_words(DATA, np.full((4, 4), -3, np.float32))
    found = product.run(scale=1)
    assert (bits(found) == (bits(product.aux.T) & 1 << 31)).all()
