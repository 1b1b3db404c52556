# SPDX-License-Identifier: Apache-2.0
"""The vector unit against instructions executed one after another."""

import dataclasses
import random

import numpy as np
import pytest

from rtl_gen.spec.config import SLICE_BLOCKS, TINY
from rtl_gen.spec.isa import ScalarFn, VectorFn
from tests.rtl.bench import again
from tests.rtl.fp32_bench import random_bits
from tests.rtl.vector_bench import Script, VectorBench
from tests.rtl.verilated import Model

#: The smallest one besides, whose every size differs.
TWO = dataclasses.replace(TINY, name="two", channels=2, vector_lanes=2, tokens=2, heads=7)
CONFIGS = {config.name: config for config in (TINY, TWO)}
#: Cycles from a QUANT, at its last word, to the first word in the planes.
QUANT_LATENCY = 20
pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("vector")]


def bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


@pytest.fixture(scope="module")
def models(build_root):
    built = {}

    def model(name):
        if name not in built:
            built[name] = Model(VectorBench(CONFIGS[name]), f"vector_{name}", build_root)
        return built[name]
    return model


def check(model, script: Script, *, stall: float, seed: str, cycles: int, flags: bool = True):
    expected = vars(script.expected)
    run = model.run({"i": script.items}, {name: len(found) for name, found in expected.items()},
                    stall=stall, seed=seed, cycles=cycles)
    for name, payloads in expected.items():
        for k, (found, wanted) in enumerate(zip(run.outputs[name], payloads, strict=True)):
            assert found == wanted, (
                f"{name} {k} is {found:#x}, not {wanted:#x}; repeat with: {again()}")
    if flags:
        assert bool(run.high["nonfinite"]) == script.nonfinite
        assert bool(run.high["range"]) == script.range
    return run


def gaussian(rng, config, words, scale=1.0):
    return np.array([[rng.gauss(0, 1) * scale for _ in range(config.vector_lanes)]
                     for _ in range(words)], np.float32).view(np.uint32)


def anything(rng, config, words):
    return np.array([[random_bits(rng) for _ in range(config.vector_lanes)]
                     for _ in range(words)], np.uint32)


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("fn", VectorFn)
def test_functions_of_vector(models, fn, stall):
    seed = f"{fn.name} {stall}"
    rng = random.Random(seed)
    script = Script(TINY)
    script.load(0, anything(rng, TINY, 100))
    for k in range(6):
        words = rng.choice([1, 2, 17, 40])
        script.run("SCALAR", fn=ScalarFn.SET, d=k, imm=random_bits(rng))
        script.run("VECTOR", fn=fn, a=rng.randrange(60), b=rng.randrange(60), dst=100 + 40 * k,
                   words=words, s=k, signal=rng.getrandbits(16))
        # A scalar result is seen through a later instruction.
        script.run("VECTOR", fn=VectorFn.MULS, a=1, dst=100 + 40 * k + words, words=1, s=k)
        reduces = fn in (VectorFn.SUM, VectorFn.MAXIMUM)
        script.read(100 + 40 * k + words * reduces, 1 + words * (not reduces))
    script.run("VECTOR", fn=fn, a=10, b=20, dst=10, words=30, s=3)      # in place
    script.read(10, 30)
    check(models("tiny"), script, stall=stall, seed=seed, cycles=60_000)


def fill_norms(script: Script) -> None:
    """Write every norm, which a reset does not."""
    words, elements = 2, 2 * script.config.vector_lanes
    for token in range(script.config.tokens):
        script.run("QUANT", a=token, words=words, act=0, exponent=-10, stats=1, token=token,
                   inv=bits(1 / elements), count=bits(elements))
        for number in range(2):
            script.run("NORM", slices=1, set=number, token=token, inv=bits(1 / elements),
                       eps=bits(1e-5))


def random_script(config, seed: str, count: int, *, wild: bool) -> Script:
    """Instructions of all kinds as programs could have them, many of them overlapping."""
    rng = random.Random(seed)
    script = Script(config)
    lanes = config.vector_lanes
    room, longest = 512, SLICE_BLOCKS * config.beat_bytes // lanes
    script.load(0, anything(rng, config, room) if wild else gaussian(rng, config, room))
    fill_norms(script)
    known = {t: {0} for t in range(config.tokens)}
    for _ in range(count):
        kind = rng.choices(["QUANT", "CACHE", "NORM", "VECTOR", "SCALAR", "SAMPLE"],
                           [10, 6, 3, 1, 1, 0.3])[0]
        common = {"signal": rng.getrandbits(16), "wait": rng.getrandbits(16)}
        if kind == "QUANT":
            digits, two_beat = rng.randrange(2), rng.randrange(2)
            tokens = config.tokens >> digits >> two_beat
            if not tokens:
                continue
            words = rng.choice([1, 2, 3, 6, 6, 12, 24, rng.randrange(1, longest + 1)])
            token, entry = rng.randrange(tokens), rng.randrange(8)
            stats = rng.randrange(2)
            if stats:
                known[token].add(entry)
            script.run(
                "QUANT", a=rng.randrange(room - words), words=words, gamma=rng.randrange(2),
                b=rng.randrange(room - words), act=rng.randrange(500),
                exponent=rng.randrange(-30, 10), digits=digits, two_beat=two_beat, token=token,
                stats=stats, slice=entry, inv=bits(1 / (words * lanes)), count=bits(words * lanes),
                **common)
        elif kind == "NORM":
            token = rng.randrange(config.tokens)
            slices = next((k for k in range(9) if k not in known[token]), 9)
            if slices:
                script.run("NORM", slices=slices, set=rng.randrange(2), token=token,
                           inv=bits(1 / rng.randrange(100, 2000)), eps=bits(1e-5), **common)
        elif kind == "CACHE":
            script.run(
                "CACHE", a=rng.randrange(room - config.head_words), kind=rng.randrange(2),
                head=rng.randrange(config.heads), token=rng.randrange(config.tokens),
                wide=rng.randrange(2), kv_base=rng.randrange(100),
                kv_heads=rng.randrange(1, 13), pos=rng.randrange(2000), **common)
        elif kind == "SAMPLE":
            script.run("SAMPLE", a=0, words=1, count=1, **common)
        elif kind == "SCALAR":
            script.run("SCALAR", fn=rng.choice(list(ScalarFn)), d=rng.randrange(16),
                       a=rng.randrange(16), b=rng.randrange(16), imm=random_bits(rng), **common)
        else:
            words = rng.randrange(1, 20)
            dst = rng.randrange(room - words)
            away = [k for k in range(room - words) if k == dst or abs(k - dst) >= words]
            fns = list(VectorFn) if wild else [
                VectorFn.ADD, VectorFn.COPY, VectorFn.GELU_TANH, VectorFn.MAXIMUM]
            script.run("VECTOR", fn=rng.choice(fns), dst=dst, a=rng.choice(away),
                       b=rng.choice(away), words=words, s=rng.randrange(16), **common)
        if rng.random() < 0.03:
            script.show_norms()
        if rng.random() < 0.02:
            script.load(rng.randrange(room - 8), gaussian(rng, config, 8, 2.0))
    script.show_norms()
    script.read(0, room)
    return script


@pytest.mark.parametrize("wild", [False, True], ids=["tame", "wild"])
@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("name", CONFIGS)
def test_random_programs(models, name, stall, wild):
    seed = f"{name} {stall} {wild}"
    script = random_script(CONFIGS[name], seed, 600, wild=wild)
    assert not wild or (script.nonfinite and script.range)
    check(models(name), script, stall=stall, seed=seed, cycles=400_000)


@pytest.mark.parametrize("cut", [3, 11, 40, 97])
def test_a_reset_leaves_nothing_behind(models, cut):
    seed = f"reset {cut}"
    script = Script(TINY)
    before = random_script(TINY, f"{seed} before", 100, wild=True)
    loads = 512
    script.forget(before.items[:loads + cut])
    after = random_script(TINY, f"{seed} after", 100, wild=False)
    script.items += after.items
    script.expected = after.expected
    run = check(models("tiny"), script, stall=0.2, seed=seed, cycles=100_000, flags=False)
    assert len(run.outputs["ended"]) == len(after.expected.ended)


def test_latency_and_throughput(models):
    """What docs/units/vector.md says: slices and heads follow one another without a gap."""
    model, words = models("tiny"), 24
    script = Script(TINY)
    script.load(0, gaussian(random.Random("pace"), TINY, 400))
    for k in range(12):
        script.run("QUANT", a=words * k, words=words, gamma=1, b=words, act=8 * k, exponent=-10)
    for k in range(12):
        script.run("CACHE", a=16 * k, head=k, kv_heads=12)
    run = check(model, script, stall=0.0, seed="pace", cycles=5_000)
    plane, fresh = run.cycles["plane"], run.cycles["fresh"]
    start = 400                 # the first instruction is offered in this cycle
    assert int(plane[0]) - start == words - 1 + QUANT_LATENCY
    assert plane.tolist() == list(range(plane[0], plane[0] + 12 * words))
    # Of each head all words are read twice.
    assert int(fresh[-1] - fresh[0]) <= 12 * 2 * 16
