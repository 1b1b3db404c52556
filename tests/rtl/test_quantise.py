# SPDX-License-Identifier: Apache-2.0
"""The slice quantiser against ``cardsim.numerics.quantise``."""

import random

import numpy as np
import pytest
from amaranth import Const

from cardsim import numerics
from rtl_gen.vector import SliceQuantiser
from tests.rtl.bench import again
from tests.rtl.fp32_bench import random_bits
from tests.rtl.verilated import Model

TAG = 5
SHAPES = {"narrow": (4, 20), "wide": (8, 2), "single": (1, 20)}
#: Magnitudes around which rounding and limits turn, for both numbers of digits.
EDGES = np.array(
    [127.5, 127.49999, 127.50001, 126.5, 0.5, 0.50000006, 0.49999997, 1.5, 2.5, 64, 63.75, 255.5,
     32639.5, 32639.498, 32639.502, 32638.5, 16384, 65279, 65279.004, 3],
    np.float32).view(np.uint32)


@pytest.fixture(scope="module")
def models(build_root):
    built = {}

    def model(shape):
        if shape not in built:
            lanes, depth = SHAPES[shape]
            dut = SliceQuantiser(lanes=lanes, depth=depth, tag=TAG, passes=False)
            built[shape] = dut, Model(dut, f"quantise_{shape}", build_root)
        return built[shape]
    return model


def slices(rng: random.Random, lanes: int, lengths):
    """(bits [W, V], mask [W, V], digits, base) of each slice: values of one scale, or anything."""
    for words in lengths:
        count = words * lanes
        base = rng.randrange(-60, 40)
        kind = rng.randrange(6)
        scale = base + rng.randrange(-12, 60)
        if kind == 0:
            bits = [random_bits(rng) for _ in range(count)]
        elif kind == 1:     # near and on the edges, moved to the scale
            bits = [int(rng.choice(EDGES)) + (max(-60, min(60, scale)) << 23) for _ in range(count)]
            bits = [b | rng.getrandbits(1) << 31 for b in bits]
        else:
            bits = [int(v) for v in np.ldexp(
                np.array([rng.gauss(0, 1) for _ in range(count)]), max(-120, min(120, scale)),
            ).astype(np.float32).view(np.uint32)]
        if kind == 2:       # mostly small
            bits = [b if rng.random() < 0.05 else b & 0x83FF_FFFF for b in bits]
        if rng.random() < 0.1:
            bits[rng.randrange(count)] = rng.choice([0x7F80_0000, 0xFF80_0000, 0xFFC0_0001])
        mask = [rng.random() < 0.2 if kind == 5 else 0 for _ in range(count)]
        yield (np.array(bits, np.uint32).reshape(words, lanes),
               np.array(mask, bool).reshape(words, lanes), rng.randrange(2), base)


def pack(dut, cases):
    layout = dut.i.payload.shape()
    for k, (bits, mask, digits, base) in enumerate(cases):
        for w in range(len(bits)):
            yield Const.cast(layout.const({
                "data": [int(b) for b in bits[w]],
                "mask": sum(int(v) << lane for lane, v in enumerate(mask[w])),
                "last": w == len(bits) - 1, "digits": digits, "base": base,
                "tag": k % (1 << TAG)})).value


def expect(dut, cases):
    """Payloads, words with something not finite, slices out of range."""
    layout = dut.o.payload.shape()
    payloads, seen, outside = [], 0, 0
    for k, (bits, mask, digits, base) in enumerate(cases):
        y = numerics.from_bits(np.where(mask, 0, bits))
        seen += int((~np.isfinite(y)).any(axis=1).sum())
        q, exponent, out_of_range = numerics.quantise(y, digits + 1, base)
        outside += out_of_range
        low, high = numerics.split_digits(q)
        payloads += [Const.cast(layout.const({
            "low": low[w].tolist(), "high": high[w].tolist(), "exponent": exponent,
            "last": w == len(bits) - 1, "tag": k % (1 << TAG)})).value for w in range(len(bits))]
    return payloads, seen, outside


@pytest.mark.cosim
@pytest.mark.xdist_group("quantise")
@pytest.mark.parametrize("stall", [0.0, 0.6])
@pytest.mark.parametrize("shape", SHAPES)
def test_slices_equal_the_reference(models, shape, stall):
    dut, model = models(shape)
    rng = random.Random(f"quantise {shape} {stall}")
    lengths = [rng.randrange(1, dut.depth + 1) for _ in range(2000 // dut.depth + 400)]
    cases = list(slices(rng, dut.lanes, lengths))
    payloads, seen, outside = expect(dut, cases)
    assert seen > 20
    assert 20 < outside < len(cases) - 20
    run = model.run({"i": list(pack(dut, cases))}, {"o": len(payloads)}, stall=stall,
                    seed=f"{shape} {stall}", cycles=60 * len(payloads))
    first = next((k for k, (a, b) in enumerate(zip(
        run.outputs["o"], payloads, strict=True)) if a != b), None)
    assert first is None, f"word {first} differs; repeat with: {again()}"
    assert run.high == {"nonfinite": seen, "range": outside}


@pytest.mark.cosim
@pytest.mark.xdist_group("quantise")
@pytest.mark.parametrize("shape", SHAPES)
def test_slices_follow_one_another_without_a_gap(models, shape):
    dut, model = models(shape)
    rng = random.Random(f"flow {shape}")
    cases = list(slices(rng, dut.lanes, [dut.depth] * 50))
    words = 50 * dut.depth
    run = model.run({"i": list(pack(dut, cases))}, {"o": words}, seed=shape, cycles=10 * words)
    start = dut.depth - 1 + dut.LATENCY
    assert run.cycles["o"].tolist() == list(range(start, start + words))
    assert run.outputs["o"] == expect(dut, cases)[0]


def test_parameters_are_refused():
    with pytest.raises(ValueError, match="lanes must be a power of two, not 3"):
        SliceQuantiser(lanes=3, depth=4, tag=1, passes=False)
    with pytest.raises(ValueError, match="depth must be at least 1, not 0"):
        SliceQuantiser(lanes=4, depth=0, tag=1, passes=False)
