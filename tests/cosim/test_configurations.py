# SPDX-License-Identifier: Apache-2.0
"""Whole cards other than ``tiny``: random programs on the Verilog give what ``sim`` gives."""

import contextlib
import dataclasses

import pytest

from cardsim.functional import FunctionalCard
from cardsim.rtl import RtlCard, Timing
from rtl_gen.spec.config import SMALL, TINY, U280, ULX3S
from tests import programs

#: Two columns, one group size, odd numbers of heads, all memories of other depths.
OTHER = dataclasses.replace(
    TINY, name="other", channels=2, vector_lanes=2, beat_bytes=32, tokens=2, group_sizes=(8,),
    heads=5, top_k=16, fifo_beats=32, aux_beats=128, acc_rows=64, context=512, program_words=1024)
#: Random programs on each; a cycle of u280 takes as long as thirty of tiny.
PROGRAMS = {SMALL: 25, OTHER: 25, ULX3S: 25, U280: 8}


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.parametrize("config", [
    pytest.param(config, id=config.name, marks=pytest.mark.xdist_group(f"card {config.name}"))
    for config in PROGRAMS])
def test_random_programs_give_the_same_memory(config):
    timing = Timing(stall_permille=100)
    with contextlib.closing(RtlCard(config, timing=timing, cycle_limit=500_000)) as rtl:
        sim = FunctionalCard(config)
        for number in range(PROGRAMS[config]):
            case = programs.random_case(config, f"{config.name} {number}")
            expected = case.run(sim)
            assert expected.error == 0
            assert case.run(rtl) == expected, f"random_case({config.name}, {case.name!r})"
