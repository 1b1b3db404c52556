# SPDX-License-Identifier: Apache-2.0
"""The engine in Verilator against ``engine_model``: all modes, all stalls."""

import dataclasses

import pytest

from rtl_gen.matmul.engine import latency
from rtl_gen.spec.config import TINY
from rtl_gen.spec.formats import PATTERNS
from tests.rtl.engine_bench import EngineBench
from tests.rtl.engine_program import Program, shuffle
from tests.rtl.verilated import Model

#: Fewer channels than tokens, two tokens.
ODD = dataclasses.replace(TINY, name="odd", channels=2, vector_lanes=2, tokens=4)
PAIR = dataclasses.replace(TINY, name="pair", tokens=2, beat_bytes=32)
SHORT = dataclasses.replace(TINY, name="short", beat_bytes=8)
CONFIGS = {config.name: config for config in (TINY, ODD, PAIR, SHORT)}

pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("engine")]


@pytest.fixture(scope="module")
def engine(build_root):
    models = {}

    def build(config, dsp48=False):
        if (config.name, dsp48) not in models:
            bench, name = EngineBench(config), f"engine_{config.name}" + "_dsp48" * dsp48
            models[config.name, dsp48] = Model(bench, name, build_root, dsp48=dsp48)
        return models[config.name, dsp48]
    return build


@pytest.mark.parametrize("stall", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("name", CONFIGS)
def test_random_instructions(engine, name, stall):
    program = Program(CONFIGS[name], f"{name} {stall}")
    shuffle(program, 150)
    program.run(engine(CONFIGS[name]), stall=stall)


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_packed_multipliers_give_the_same_in_the_same_cycles(engine, stall):
    program = Program(TINY, f"dsp48 {stall}", garbage=False)
    shuffle(program, 100)
    plain = program.run(engine(TINY), stall=stall)
    packed = program.run(engine(TINY, dsp48=True), stall=stall)
    assert (packed.cycles["rows"] == plain.cycles["rows"]).all()


def test_writes_go_before_the_end_of_their_instruction(engine):
    """Where writes wait longer than a row takes: ``Program.run`` compares the cycles."""
    program = Program(TINY, "writes")
    program.write_planes(act=0, blocks=4, columns=1, digits=0, two_beat=0, exponent=0)
    program.write_fresh(kind=1, head=0, columns=1)
    for number in range(40):
        program.matmul(rows=1, beats=4, pos=50, merge=2, first=1, last=number % 2, keep=True)
    program.run(engine(TINY), stall=0.9)


@pytest.mark.parametrize("case", [
    {"pattern": 1, "two_beat": 1, "digits": 1, "rows": 20, "beats": 8},     # 2:4, pairs
    {"pattern": 1, "two_beat": 1, "rows": 20, "beats": 7},                  # the last goes alone
    {"pattern": 3, "rows": 20, "beats": 8},
    {"pattern": 9, "rows": 8, "beats": 2},                                  # 1:16: four entries
    {"rows": 2, "beats": 8, "k_outer": 1},                                  # V
    {"rows": 3, "beats": 4, "k_outer": 1, "wide": 1, "two_beat": 1},
    {"rows": 4, "beats": 1},                                                # K: a row each step
    {"rows": 1, "beats": 1, "last": 0}], ids=str)
def test_a_step_every_cycle(engine, case):
    """Instructions follow one another without a gap, however short, if entries are there."""
    program = Program(TINY, str(case), singles=0.0)
    columns = ("columns", "digits", "two_beat")
    shape = {"columns": 1, "digits": 0, "two_beat": 0} | {k: case[k] for k in columns if k in case}
    program.write_planes(act=0, blocks=64, exponent=0, **shape)
    count = 50
    for _ in range(count):
        program.matmul(**{"first": 1, "last": 1, "keep": True} | case)
    run = program.run(engine(TINY), stall=0.0)
    pattern = PATTERNS[case.get("pattern", 0)]
    per_row = case["beats"] * pattern.entries << pattern.halved     # whose entries take two steps
    pairs = case.get("two_beat", 0)
    steps = case["rows"] * (per_row if case.get("wide") else -(-per_row // (1 + pairs)))
    name = "rows" if case.get("last", 1) else "done"
    ends = run.cycles[name][case["rows"] - 1::case["rows"]] if case.get("last", 1) \
        else run.cycles[name]
    assert len(ends) == count
    # The feeders fill in the first cycles; from then on nothing waits.
    assert int(ends[-1] - ends[5]) == (count - 6) * steps
    if pairs:
        assert run.high["pairs"] > run.high["singles"]


@pytest.mark.parametrize("name", CONFIGS)
def test_latency(engine, name):
    config = CONFIGS[name]
    program = Program(config, "latency")
    program.matmul(rows=1, beats=1, first=1, last=1)
    run = program.run(engine(config), stall=0.0)
    # The instruction is out of the epilogue's queue just before its first step.
    assert int(run.cycles["rows"][0] - run.cycles["epilogue_job"][0]) == 1 + latency(config)
