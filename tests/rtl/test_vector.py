# SPDX-License-Identifier: Apache-2.0
"""The vector unit against instructions executed one after another."""

import dataclasses
import random

import numpy as np
import pytest

from cardsim.benches.vector_program import ROOM, Mixture, fill
from rtl_gen.spec.config import TINY, ULX3S
from rtl_gen.spec.isa import ScalarFn, VectorFn
from tests.rtl.bench import again
from tests.rtl.fp32_bench import random_bits
from tests.rtl.vector_bench import Script, VectorBench
from tests.rtl.verilated import Model

#: Two smaller ones, whose every size differs: of the last, words are single numbers.
TWO = dataclasses.replace(TINY, name="two", channels=2, vector_lanes=2, tokens=2, heads=7)
CONFIGS = {config.name: config for config in (TINY, TWO, ULX3S)}
#: One whose words take the shared functions several cycles.
WIDE = dataclasses.replace(TINY, name="wide", channels=8, vector_lanes=8)
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
            config = (CONFIGS | {"wide": WIDE})[name]
            built[name] = Model(VectorBench(config), f"vector_{name}", build_root)
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
        assert bool(run.high["nonfinite"]) == script.model.nonfinite
        assert bool(run.high["range"]) == script.model.range
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


def test_functions_take_turns(models):
    """exp and gelu of several words, each in two parts, and what follows them."""
    script = Script(WIDE)
    script.load(0, anything(random.Random("turns"), WIDE, 40))
    for k, fn in enumerate((VectorFn.EXP, VectorFn.GELU_ERF, VectorFn.ADD, VectorFn.GELU_TANH)):
        script.run("VECTOR", fn=fn, a=k, b=7, dst=40 + 30 * k, words=30)
    script.read(40, 120)
    # Two cycles a word, and one; the way through units and queues besides.
    run = check(models("wide"), script, stall=0.0, seed="turns", cycles=2_000)
    done = run.cycles["ended"]
    assert int(done[1] - done[0]) == 2 * 30 + 24
    assert int(done[2] - done[1]) == 30 + 17


def random_script(config, seed: str, count: int, *, wild: bool) -> Script:
    """Instructions of all kinds as programs could have them, many of them overlapping."""
    rng = random.Random(seed)
    script, mixture = Script(config), Mixture(rng, config, wild=wild)
    script.load(0, anything(rng, config, ROOM) if wild else gaussian(rng, config, ROOM))
    for name, fields in fill(config):
        script.run(name, **fields)
    for name, fields in mixture.take(count):
        script.run(name, pos=rng.randrange(2000), **fields)
        if rng.random() < 0.03:
            script.show_norms()
        if rng.random() < 0.02:
            script.load(rng.randrange(ROOM - 8), gaussian(rng, config, 8, 2.0))
    script.show_norms()
    script.read(0, ROOM)
    return script


@pytest.mark.parametrize("wild", [False, True], ids=["tame", "wild"])
@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("name", CONFIGS)
def test_random_programs(models, name, stall, wild):
    seed = f"{name} {stall} {wild}"
    script = random_script(CONFIGS[name], seed, 600, wild=wild)
    assert not wild or (script.model.nonfinite and script.model.range)
    check(models(name), script, stall=stall, seed=seed, cycles=400_000)


@pytest.mark.parametrize("name", CONFIGS)
def test_statistics_of_slices_of_one_word(models, name):
    """Read again for their squares at once, by a norm that waits for them."""
    config, rng = CONFIGS[name], random.Random(f"one word {name}")
    script = Script(config)
    script.load(0, gaussian(rng, config, ROOM))
    for instruction, fields in fill(config):
        script.run(instruction, **fields)
    for k in range(8):
        token = k % config.tokens
        script.run("QUANT", a=rng.randrange(ROOM), words=1, exponent=-10, stats=1, token=token,
                   word=k % 2)
        script.run("NORM", words=2, set=k % 3 % 2, token=token, inv=bits(1 / config.vector_lanes),
                   eps=bits(1e-5))
        script.show_norms()
    check(models(name), script, stall=0.0, seed=f"one word {name}", cycles=20_000)


def test_norms_of_what_does_not_vary(models):
    """Rounding leaves less than nothing, which counts as nothing: 1/sqrt(eps), and no NaN."""
    script, rng = Script(TINY), np.random.default_rng(3)
    for token in range(TINY.tokens):
        for number in range(2):
            script.load(0, np.full((3, TINY.vector_lanes), bits(rng.uniform(100, 1000)), np.uint32))
            script.run("QUANT", words=3, act=0, exponent=0, stats=1, token=token)
            script.run("NORM", words=3, set=number, token=token, inv=bits(1 / 12), eps=bits(1e-5))
    script.show_norms()
    assert np.isclose(script.model.norms.view(np.float32)[:, :, 1], 1e-5 ** -0.5).any()
    check(models("tiny"), script, stall=0.0, seed="same", cycles=10_000, flags=False)


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
