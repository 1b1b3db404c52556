# SPDX-License-Identifier: Apache-2.0
"""The engine of u280 at full width: 32 lanes of 64 weights, four columns, in Verilator."""

import pytest

from rtl_gen.matmul.engine import latency
from rtl_gen.spec.config import U280
from tests.rtl.engine_bench import EngineBench
from tests.rtl.engine_program import Program
from tests.rtl.verilated import Model

pytestmark = [pytest.mark.cosim, pytest.mark.slow, pytest.mark.xdist_group("engine_u280")]


@pytest.fixture(scope="module")
def engine(build_root):
    # One lane is compiled for all 32; the runs have some thousand cycles only.
    return Model(EngineBench(U280), "engine_u280", build_root, blocks=("heddle_lane",),
                 optimise="-O0")


def fill(program: Program, **shape: int) -> None:
    program.write_planes(act=0, blocks=32, exponent=-20, **shape)


def test_two_of_four_at_two_beats_a_cycle(engine):
    """A16, one token: 64 rows of 1,024 inputs with 2:4, then 4:16 and 1:8."""
    program = Program(U280, "u280 2:4", singles=0.0)
    shape = {"columns": 1, "digits": 1, "two_beat": 1}
    fill(program, **shape)
    common = {**shape, "exponent": -20, "keep": True, "act": 0}
    program.matmul(rows=64, beats=8, pattern=1, first=1, last=1, **common)
    program.matmul(rows=16, beats=4, pattern=6, first=1, last=1, bias=1, **common)
    program.matmul(rows=8, beats=4, pattern=7, first=1, **common)
    program.matmul(rows=8, beats=8, pattern=1, last=1, **common)
    run = program.run(engine, stall=0.0)
    # The first row ends with the fourth step; see docs/units/engine.md.
    assert int(run.cycles["rows"][0] - run.cycles["epilogue_job"][0]) == 1 + 3 + latency(U280)
    assert latency(U280) == 18
    # Four steps a row, and no cycle lost in between.
    ends = run.cycles["rows"][:64]
    assert int(ends[63] - ends[8]) == 55 * 4


def test_four_tokens_in_chunks(engine):
    """A8, four tokens: dense, inputs as the outer loop, then 2:4; the epilogue takes its time."""
    program = Program(U280, "u280 chunks")
    shape = {"columns": 4, "digits": 0, "two_beat": 0}
    fill(program, **shape)
    common = {**shape, "exponent": -20, "keep": True, "act": 0, "acc_row": 100}
    program.matmul(rows=12, beats=3, k_outer=1, first=1, **common)
    program.matmul(rows=12, beats=5, k_outer=1, **common)
    program.matmul(rows=12, beats=2, pattern=1, last=1, **common)
    program.run(engine, stall=0.4)


@pytest.mark.parametrize("wide", [0, 1])
def test_attention_with_fresh_keys_and_values(engine, wide):
    """Two tokens, heads in turn: K row by row, V block by block, merged and written back."""
    program = Program(U280, f"u280 attention {wide}")
    shape = {"columns": 2, "digits": 1, "two_beat": 0}
    fill(program, **shape)
    common = {**shape, "exponent": -20, "wide": wide, "first": 1, "last": 1, "pos": 127}
    for head in range(3):
        program.write_fresh(kind=0, head=head, columns=2)
        program.write_fresh(kind=1, head=head, columns=2)
        program.matmul(rows=5, beats=1, merge=1, head=head, address=head * 100, act=head,
                       keep=True, **common)
        program.matmul(rows=2, beats=3, merge=2, head=head, address=50 + head * 100, k_outer=1,
                       act=head, keep=True, **common)
    program.run(engine, stall=0.2)
