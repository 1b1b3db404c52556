# SPDX-License-Identifier: Apache-2.0
"""Random programs on the functional card: its short cuts change nothing, errors are precise."""

import dataclasses

import pytest

from cardsim.functional import (
    FunctionalCard,
    matmul,
    probabilities,
    sample,
    state,
    sums,
    transfer,
    vector,
)
from rtl_gen.spec.config import SMALL, TINY, U280
from tests import programs


@pytest.fixture
def long_way(monkeypatch):
    """A function that makes cards calculate everything as it is defined."""
    def take():
        for module in (matmul, probabilities, sample, state, transfer, vector):
            monkeypatch.setattr(module, "tame", lambda x: False, raising=False)
        for name in ("EXACT_F64", "EXACT_INT64"):
            monkeypatch.setattr(sums, name, 1e-300)
    return take


@pytest.mark.parametrize("config", [TINY, SMALL, U280], ids=lambda c: c.name)
@pytest.mark.parametrize("seed", range(12))
def test_short_cuts_change_nothing(config, seed, long_way):
    """Sums in 64 bits and bare NumPy against Python integers and the definitions."""
    case = programs.random_case(config, seed)
    first = case.run(FunctionalCard(config))
    assert first.error == 0
    assert any(map(any, first.memory))
    card = FunctionalCard(config)
    assert case.run(card) == first
    # Once more on a used card: nothing is left over that matters.
    assert case.run(card) == first
    long_way()
    card = FunctionalCard(config)
    assert case.run(card) == first
    assert card.state.wild


@pytest.mark.parametrize("config", [TINY, U280], ids=lambda c: c.name)
@pytest.mark.parametrize("seed", range(25))
def test_illegal_words_stop_precisely(config, seed):
    case, expected = programs.illegal_case(config, seed)
    found = case.run(FunctionalCard(config))
    assert dataclasses.replace(found, sticky=0, memory=()) == expected
    # The program up to there, ended by HALT, leaves the same memory.
    case.words[expected.pc:] = [programs.isa.encode("HALT")]
    legal = case.run(FunctionalCard(config))
    assert (legal.memory, legal.sticky) == (found.memory, found.sticky)


def test_programs_cover_every_instruction():
    names = set()
    for seed in range(12):
        for word in programs.random_case(TINY, seed).words:
            names.add(programs.isa.decode(word)[0])
    # Those of a ring need one.
    assert names == set(programs.isa.FORMATS) - {*programs.isa.SENDS, *programs.isa.RECEIVES}
