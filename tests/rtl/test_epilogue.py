# SPDX-License-Identifier: Apache-2.0
"""Epilogue and way of the probabilities against docs/numerics.md, with stalls on all sides."""

import dataclasses
import functools
import random

import numpy as np
import pytest
from amaranth.hdl import Const

from cardsim import numerics as nx
from rtl_gen.common import layouts
from rtl_gen.matmul.epilogue import Epilogue
from rtl_gen.spec import isa
from rtl_gen.spec.config import TINY
from tests.rtl.epilogue_bench import Back
from tests.rtl.verilated import Model

SMALL = {
    "four": dataclasses.replace(
        TINY, name="four", scratch_words=256, kv_scales=256, context=64, plane_windows=64),
    "eight": dataclasses.replace(
        TINY, name="eight", channels=8, vector_lanes=8, tokens=2, scratch_words=128,
        kv_scales=128, context=128, plane_windows=64)}
pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("epilogue")]


@functools.cache
def built(name, folder):
    dut = Back(SMALL[name])
    return dut, Model(dut, f"back_{name}", folder, optimise="-O0",
                      blocks=("heddle_epilogue_lane", "heddle_softmax_lane"))


def floats(rng, shape, corners=0.0):
    values = np.array([rng.gauss(0, 1) * 2.0 ** rng.randrange(-4, 5)
                       for _ in range(int(np.prod(shape)))], np.float32).reshape(shape)
    spoilt = np.array([rng.random() < corners for _ in range(values.size)]).reshape(shape)
    odd = rng.choice([np.nan, np.inf, -np.inf, 1e-40, -0.0, 3e38])
    return np.where(spoilt, np.float32(odd), values).astype(np.float32)


def random_job(rng, config, *, softmax, corners):
    """Fields of a MATMUL, its sums [rows, tokens, C], constants [rows, C, words]."""
    lanes = config.channels
    f = {"last": 1, "signal": rng.getrandbits(16), "exponent": rng.randrange(-30, -8),
         "columns": rng.randrange(1, config.tokens + 1)}
    rows = rng.randrange(1, config.context // lanes + 1 if softmax else 13)
    job = {"rows": rows, "len": rng.randrange(1 << 12)}
    if softmax:
        f["digits"] = rng.choice([0, 1]) if f["columns"] * 2 <= config.tokens else 0
        f["two_beat"] = int(f["columns"] << f["digits"] << 1 <= config.tokens
                            and rng.random() < 0.5)
        f |= {"dest": rng.choice([1, 2]), "scale": rng.choice([0, 1, 2, 2]),
              "exponent": rng.choice([-30, -20]), "dst": rng.randrange(32),
              "dst_stride": rng.randrange(32), "head": rng.randrange(4),
              "kv_base": rng.randrange(64), "kv_heads": rng.randrange(4)}
        job["len"] = rng.choice([
            1, max(1, rows * lanes - f["columns"] + 1),
            rng.randrange(1, max(2, rows * lanes - f["columns"] + 2))])
    else:
        f |= {"scale": rng.randrange(3), "norm": rng.choice([0, 0, 1, 2]),
              "bias": rng.randrange(2), "divide": rng.choice([0, 0, 1, 2]),
              "gelu": rng.choice([0, 0, 1, 2]), "residual": rng.randrange(2),
              "dst": rng.randrange(24), "dst_stride": rows + rng.randrange(3),
              "head": rng.randrange(4), "kv_base": rng.randrange(64), "kv_heads": 3}
        if rng.random() < 0.3:      # the same words as a neighbour: residuals follow at once
            f |= {"dst": 3, "residual": 1}
    size = rng.choice([10, 24, 40, 79])
    acc = np.array([[[rng.randrange(-1 << size, 1 << size) for _ in range(lanes)]
                     for _ in range(f["columns"])] for _ in range(rows)], object)
    names = [name for name, used in (
        ("scale", f["scale"] == 1), ("wg", f.get("norm", 0) > 0), ("bias", f.get("bias", 0)))
        if used]
    constants = {name: floats(rng, (rows, lanes), corners) for name in names}
    return f, job, acc, constants


class Reference:
    """The memories, and what each instruction does to them, straight from docs/numerics.md."""

    def __init__(self, config, scratch, scales, norms):
        self.config, self.scratch, self.scales, self.norms = config, scratch, scales, norms
        self.results = np.zeros((2, config.tokens), np.float32)
        self.planes, self.done, self.nonfinite, self.range = [], {0: [], 1: []}, False, False

    def scale_rows(self, f, rows, half):
        """K (0) or V (1) scales [rows, C]."""
        entries = self.scales[f["kv_base"] + f["head"] + f["kv_heads"] * np.arange(rows)]
        return nx.from_bits((entries >> 16 * half & 0xFFFF) << 16)

    def look(self, values):
        self.nonfinite |= nx.nonfinite(values)
        return values

    def run(self, f, job, acc, constants):
        see, rows = self.look, job["rows"]
        for token in range(f["columns"]):
            v = see(nx.cvt(acc[:, token], f["exponent"]))
            if f.get("dest"):
                self.attend(f, job, token, v, constants)
                continue
            if f["scale"] == 1:
                v = see(nx.mul(v, constants["scale"]))
            elif f["scale"] == 2:
                v = see(nx.mul(v, self.scale_rows(f, rows, 0)))
            if f["norm"]:
                mean, rstd = self.norms[f["norm"] - 1, token]
                v = see(nx.mul(see(nx.sub(v, nx.mul(mean, constants["wg"]))), rstd))
            if f["divide"]:
                v = see(nx.mul(v, self.results[f["divide"] - 1, token]))
            if f["bias"]:
                v = see(nx.add(v, constants["bias"]))
            if f["gelu"]:
                v = see(nx.gelu(v, f["gelu"] - 1))
            first = f["dst"] + token * f["dst_stride"]
            if f["residual"]:
                v = see(nx.add(self.scratch[first:first + rows], v))
            self.scratch[first:first + rows] = v
        self.done[f.get("dest", 0) > 0].append(f["signal"])

    def attend(self, f, job, token, v, constants):
        config, rows = self.config, job["rows"]
        lanes, block = config.channels, config.beat_bytes
        count = min(job["len"] + token, rows * lanes)
        valid = np.arange(rows * lanes).reshape(rows, lanes) < count
        scale = {0: np.float32(1), 1: constants.get("scale"),
                 2: self.scale_rows(f, rows, 0)}[f["scale"]]
        v = np.where(valid, nx.mul(v, scale), np.float32(0))
        self.look(v)
        result = nx.softmax(v, count)
        self.look(result.p)
        self.results[f["dest"] - 1, token] = result.r
        y = np.where(valid, nx.mul(result.p, self.scale_rows(f, rows, 1)), np.float32(0))
        self.look(y)
        blocks = -(-rows * lanes // block)
        flat = np.zeros(blocks * block, np.float32)
        flat[:rows * lanes] = y.ravel()
        for k in range(blocks):
            found = nx.quantise(flat[k * block:(k + 1) * block], 1 + f["digits"], f["exponent"])
            self.range |= found.out_of_range
            low, high = nx.split_digits(found.q)
            for part in range(block // lanes):
                here = slice(part * lanes, (part + 1) * lanes)
                self.planes.append({
                    "block": (f["dst"] + token * f["dst_stride"] + k) & 0xFFFF, "part": part,
                    "low": [int(x) for x in low[here]],
                    "high": [int(x) if f["digits"] else 0 for x in high[here]],
                    "exponent": found.exponent, "digits": f["digits"],
                    "two_beat": f["two_beat"], "token": token})


def bits(shape, value):
    return Const.cast(shape.const(value)).value


def stimulus(dut, jobs):
    """Payloads of the job, rows and constants streams."""
    config = dut.config
    job_bits, row_bits = [], []
    constants = [[] for _ in range(config.channels)]
    for f, job, acc, words in jobs:
        job_bits.append(bits(layouts.JOB, {"word": isa.encode("MATMUL", **f), **job}))
        for r in range(job["rows"]):
            for token in range(f["columns"]):
                row_bits.append(bits(dut.rows.payload.shape(), {
                    "acc": [int(x) for x in acc[r, token]], "token": token,
                    "last_token": token == f["columns"] - 1, "last_row": r == job["rows"] - 1}))
            for lane in range(config.channels):
                values = [int(nx.bits(words[name][r, lane])) for name in ("scale", "wg", "bias")
                          if name in words]
                constants[lane] += [
                    value | (r == job["rows"] - 1 and k == len(values) - 1) << 32
                    for k, value in enumerate(values)]
    return {"job": job_bits, "rows": row_bits,
            **{f"constants{k}": words for k, words in enumerate(constants)}}


def memories(rng, config, corners):
    """Scratchpad, scales and norms at the beginning."""
    scratch = floats(rng, (config.scratch_words, config.channels), corners)
    scales = np.array([[rng.getrandbits(1) << 31 | rng.randrange(118, 132) << 23
                        | rng.getrandbits(7) << 16 | rng.randrange(118, 132) << 7
                        | rng.getrandbits(7) for _ in range(config.channels)]
                       for _ in range(config.kv_scales)], np.uint32)
    return scratch, scales, floats(rng, (2, config.tokens, 2))


def simulate(dut, model, reference, jobs, *, stall, seed, cycles=200_000, anew=True):
    config = dut.config
    start = reference.scratch.copy()
    for job in jobs:
        reference.run(*job)
    used = config.scratch_words
    load, scale_load = dut.load.payload.shape(), dut.scale_load.payload.shape()
    norms = dut.norms.shape()
    inputs = stimulus(dut, jobs) | {
        "load": [bits(load, {"addr": k, "data": [int(x) for x in nx.bits(start[k])]})
                 for k in range(used)],
        "scale_load": [bits(scale_load, {"addr": k, "data": [int(x) for x in entry]})
                       for k, entry in enumerate(reference.scales)],
        "look": list(range(used))}
    return model.run(
        inputs, {"seen": used, "planes": len(reference.planes),
                 "done_epilogue": len(reference.done[0]), "done_softmax": len(reference.done[1]),
                 "finals": 1},
        stall=stall, seed=seed, cycles=cycles, anew=anew, loads=used,
        scale_loads=len(reference.scales), jobs=len(jobs), norms=bits(norms, [[
            {"mean": int(nx.bits(mean)), "rstd": int(nx.bits(rstd))} for mean, rstd in one]
            for one in reference.norms]))


def check(dut, run, reference):
    config = dut.config
    plane = dut.planes.payload.shape()
    planes = [bits(plane, value) for value in reference.planes]
    assert run.outputs["planes"] == planes
    assert run.outputs["done_epilogue"] == reference.done[0]
    assert run.outputs["done_softmax"] == reference.done[1]
    assert run.outputs["finals"] == [bits(dut.finals.payload.shape(), [
        [int(x) for x in nx.bits(one)] for one in reference.results])]
    found = np.array([[word >> 32 * k & 0xFFFFFFFF for k in range(config.channels)]
                      for word in run.outputs["seen"]], np.uint32)
    wrong = np.argwhere(found != nx.bits(reference.scratch))
    assert not len(wrong), f"word, lane {wrong[0]}: {found[tuple(wrong[0])]:#010x}"
    assert run.high["wrong"] == 0
    assert bool(run.high["nonfinite"]) == reference.nonfinite
    assert bool(run.high["range"]) == reference.range


@pytest.mark.parametrize(("stall", "corners"), [(0.0, 0.0), (0.0, 0.02), (0.6, 0.0)])
@pytest.mark.parametrize("name", SMALL)
def test_random_instructions(build_root, name, stall, corners):
    seed = f"{name} {stall} {corners}"
    rng = random.Random(seed)
    dut, model = built(name, build_root)
    reference = Reference(dut.config, *memories(rng, dut.config, corners))
    jobs = [random_job(rng, dut.config, softmax=rng.random() < 0.4, corners=corners)
            for _ in range(60)]
    run = simulate(dut, model, reference, jobs, stall=stall, seed=seed)
    check(dut, run, reference)
    assert reference.nonfinite == (corners > 0)


def plain_job(rows, *, values=(), **fields):
    """A job of one token without surprises."""
    lanes = SMALL["four"].channels
    f = {field.name: 0 for field in isa.fields("MATMUL") if field.name != "opcode"}
    f |= {"last": 1, "exponent": -20, "columns": 1, **fields}
    acc = np.full((rows, 1, lanes), 1 << 19, object)
    return f, {"rows": rows, "len": rows * lanes}, acc, {
        name: np.ones((rows, lanes), np.float32) for name in values}


@pytest.mark.parametrize(("fields", "values"), [
    ({}, ()), ({"scale": 2}, ()), ({"scale": 1}, ("scale",)), ({"gelu": 1, "bias": 1}, ("bias",)),
    ({"residual": 1, "dst": 100}, ())], ids=["plain", "k", "word", "gelu", "residual"])
def test_a_row_every_cycle(build_root, fields, values):
    """The second instruction takes a cycle a row, and one to fetch constants."""
    dut, model = built("four", build_root)
    rng = random.Random("throughput")
    reference = Reference(dut.config, *memories(rng, dut.config, 0))
    jobs = [plain_job(100, values=values, **fields), plain_job(100, values=values, **fields)]
    jobs[1][0]["dst"] = 0
    run = simulate(dut, model, reference, jobs, stall=0, seed="throughput")
    check(dut, run, reference)
    first, second = run.cycles["done_epilogue"]
    assert second - first == 100 + bool(values)


def test_an_instruction_waits_for_what_it_reads(build_root):
    """Two one-row instructions on the same word: the second one's reads come after the write."""
    dut, model = built("four", build_root)
    rng = random.Random("conflict")
    reference = Reference(dut.config, *memories(rng, dut.config, 0))
    jobs = [plain_job(1, dst=5), plain_job(1, dst=5, residual=1), plain_job(1, dst=6),
            plain_job(1, dst=5, residual=1, gelu=1), plain_job(1, dst=5, residual=1)]
    run = simulate(dut, model, reference, jobs, stall=0, seed="conflict")
    check(dut, run, reference)
    waits = np.diff(run.cycles["done_epilogue"])
    straight, detour = Epilogue.LATENCY
    assert waits[0] >= straight
    assert waits[1] < straight
    assert waits[2] >= detour


def test_a_product_waits_for_the_sum_it_is_divided_by(build_root):
    """The sums of 16 words take longer than the probabilities."""
    dut, model = built("four", build_root)
    rng = random.Random("divide")
    reference = Reference(dut.config, *memories(rng, dut.config, 0))
    score = {"dest": 1, "exponent": -20, "digits": 1, "two_beat": 1}
    jobs = [plain_job(16, **score), plain_job(2, divide=1, dst=9)]
    run = simulate(dut, model, reference, jobs, stall=0, seed="divide")
    check(dut, run, reference)
    assert run.cycles["done_epilogue"][0] > run.cycles["done_softmax"][0]


@pytest.mark.parametrize(("first_nan", "seen"), [(10, False), (9, True)])
def test_scores_beyond_the_length_raise_nothing(build_root, first_nan, seen):
    """Two tokens of 9 and 10 positions; what the caches hold beyond is anything."""
    dut, model = built("four", build_root)
    rng = random.Random("masked")
    scratch, scales, norms = memories(rng, dut.config, 0)
    scales[first_nan // 4, first_nan % 4:] = 0x7FC0_7FC0
    scales[first_nan // 4 + 1:] = 0xFF80_7FFF
    reference = Reference(dut.config, scratch, scales, norms)
    f, job, acc, _ = plain_job(4, dest=1, scale=2, kv_heads=1, columns=2, digits=1, dst_stride=4)
    job["len"] = 9
    jobs = [(f, job, np.repeat(acc, 2, axis=1), {})]
    run = simulate(dut, model, reference, jobs, stall=0, seed="masked")
    check(dut, run, reference)
    assert reference.nonfinite == seen


@pytest.mark.parametrize("after", [300, 333, 380, 460, 600, 800])
def test_a_reset_leaves_everything_idle(build_root, after):
    """Instructions are cut off after so many cycles; those after the reset give what they must."""
    dut, model = built("four", build_root)
    rng = random.Random(f"reset {after}")
    for anew in (True, False):
        reference = Reference(dut.config, *memories(rng, dut.config, 0))
        jobs = [random_job(rng, dut.config, softmax=rng.random() < 0.5, corners=0)
                for _ in range(40 if anew else 8)]
        if anew:
            with pytest.raises(TimeoutError):
                simulate(dut, model, reference, jobs, stall=0.1, seed="cut", cycles=after)
        else:
            run = simulate(dut, model, reference, jobs, stall=0, seed="", anew=False)
            check(dut, run, reference)
