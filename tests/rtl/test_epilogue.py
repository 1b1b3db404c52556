# SPDX-License-Identifier: Apache-2.0
"""Epilogue and way of the probabilities against docs/numerics.md, with stalls on all sides."""

import dataclasses
import functools
import random

import numpy as np
import pytest
from amaranth.hdl import Const

from cardsim import numerics as nx
from cardsim.benches.epilogue_model import NOTHING, EpilogueModel, Job, memories, random_job
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


class Reference(EpilogueModel):
    """Epilogue and what comes after it: softmax, the scales of V, planes."""

    def __init__(self, config, scratch, scales, norms):
        super().__init__(config, scratch, scales, norms)
        self.planes, self.attended, self.range = [], [], False

    def attend(self, job, scores):
        super().attend(job, scores)
        config, f, rows = self.config, job.fields, job.rows
        lanes, block = config.channels, config.beat_bytes
        for token, values in enumerate(scores):
            count = self.length(job, token)
            p = self.look(nx.softmax(values, count).p)
            valid = np.arange(rows * lanes).reshape(rows, lanes) < count
            y = np.where(valid, nx.mul(p, self.scale_rows(job, 1)), np.float32(0))
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
        self.attended.append(f["signal"])


def bits(shape, value):
    return Const.cast(shape.const(value)).value


def stimulus(dut, jobs):
    """Payloads of the job, rows and constants streams."""
    words = {f"constants{k}": [job.words(k) for job in jobs] for k in range(dut.config.channels)}
    return {
        "job": [bits(layouts.JOB, {"word": job.word, "rows": job.rows, "len": job.length})
                for job in jobs],
        "rows": [bits(dut.rows.payload.shape(), row) for job in jobs for row in job.sums()],
        **{name: [value | (k == len(values) - 1) << 32
                  for values in of for k, value in enumerate(values)]
           for name, of in words.items()}}


def simulate(dut, model, reference, jobs, *, stall, seed, cycles=200_000, anew=True):
    config = dut.config
    start = reference.scratch.copy()
    for job in jobs:
        reference.run(job)
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
                 "done_epilogue": len(reference.done), "done_softmax": len(reference.attended),
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
    assert run.outputs["done_epilogue"] == reference.done
    assert run.outputs["done_softmax"] == reference.attended
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
    return Job(NOTHING | {"last": 1, "exponent": -20, "columns": 1, **fields}, rows, rows * lanes,
               np.full((rows, 1, lanes), 1 << 19, object),
               {name: np.ones((rows, lanes), np.float32) for name in values})


@pytest.mark.parametrize(("fields", "values"), [
    ({}, ()), ({"scale": 2}, ()), ({"scale": 1}, ("scale",)), ({"gelu": 1, "bias": 1}, ("bias",)),
    ({"residual": 1, "dst": 100}, ())], ids=["plain", "k", "word", "gelu", "residual"])
def test_a_row_every_cycle(build_root, fields, values):
    """The second instruction takes a cycle a row, and one to fetch constants."""
    dut, model = built("four", build_root)
    rng = random.Random("throughput")
    reference = Reference(dut.config, *memories(rng, dut.config, 0))
    jobs = [plain_job(100, values=values, **fields), plain_job(100, values=values, **fields)]
    jobs[1].fields["dst"] = 0
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


def several(tokens, dst, stride, rows=2, **fields):
    """A job of several tokens without surprises."""
    job = plain_job(rows, dst=dst, dst_stride=stride, columns=tokens, residual=1, **fields)
    return dataclasses.replace(job, acc=np.repeat(job.acc, tokens, axis=1))


@pytest.mark.parametrize(("others", "waits"), [
    # Rows of all tokens lie among those of the first product, and apart.
    ([(4, 2, 8), (4, 4, 8), (4, 6, 8)], [False, False, False]), ([(2, 6, 8)], [False]),
    # Between two others: they count as one.
    ([(4, 6, 8), (4, 2, 8)], [False, True]),
    # The same row; the first rows of later tokens; another stride; a stride that is too short.
    ([(4, 1, 8)], [True]), ([(4, 7, 8)], [True]), ([(4, 3, 9)], [True]), ([(4, 2, 3)], [True]),
    # Against all that is on its way, not the last product alone.
    ([(4, 2, 8), (4, 0, 8)], [False, True]), ([(4, 4, 8), (4, 7, 8)], [False, True])], ids=repr)
def test_rows_between_those_of_others_do_not_wait(build_root, others, waits):
    dut, model = built("four", build_root)
    rng = random.Random("between")
    reference = Reference(dut.config, *memories(rng, dut.config, 0))
    jobs = [several(4, 0, 8), *(several(*other) for other in others)]
    run = simulate(dut, model, reference, jobs, stall=0, seed="between")
    check(dut, run, reference)
    straight = Epilogue.LATENCY[0]
    assert [gap >= straight for gap in np.diff(run.cycles["done_epilogue"])] == waits


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


def test_eight_products_to_softmax_are_under_way(build_root):
    """A word of scores a cycle without a gap; then every product divides by a sum of its own."""
    dut, model = built("four", build_root)
    rng = random.Random("eight")
    reference = Reference(dut.config, *memories(rng, dut.config, 0))
    rows = 4
    scores = [dataclasses.replace(
        plain_job(rows, dest=1 + k, exponent=-20, digits=1, two_beat=1, dst=8 * k), length=3 + k)
        for k in range(isa.SUMS)]
    products = [plain_job(2, divide=1 + k, dst=2 * k) for k in range(isa.SUMS)]
    run = simulate(dut, model, reference, scores + products, stall=0, seed="eight")
    check(dut, run, reference)
    assert len({float(r) for r in reference.results[:, 0]}) == isa.SUMS
    ends = run.cycles["done_softmax"]
    assert ends[-1] - ends[0] == (isa.SUMS - 1) * rows


@pytest.mark.parametrize(("first_nan", "seen"), [(10, False), (9, True)])
def test_scores_beyond_the_length_raise_nothing(build_root, first_nan, seen):
    """Two tokens of 9 and 10 positions; what the caches hold beyond is anything."""
    dut, model = built("four", build_root)
    rng = random.Random("masked")
    scratch, scales, norms = memories(rng, dut.config, 0)
    scales[first_nan // 4, first_nan % 4:] = 0x7FC0_7FC0
    scales[first_nan // 4 + 1:] = 0xFF80_7FFF
    reference = Reference(dut.config, scratch, scales, norms)
    job = plain_job(4, dest=1, scale=2, kv_heads=1, columns=2, digits=1, dst_stride=4)
    jobs = [dataclasses.replace(job, length=9, acc=np.repeat(job.acc, 2, axis=1))]
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
