# SPDX-License-Identifier: Apache-2.0
"""Real boards against the functional card: HEDDLE_XCLBIN names the bitstream, and
HEDDLE_XRT_DEVICES the boards; then ``pytest -m hardware tests/hardware``."""

import contextlib
import dataclasses
import os
import pathlib

import pytest

import heddle
from cardsim.functional import FunctionalCard
from heddle import xrt
from heddle.card import CardStopped, check, open_cards
from rtl_gen.spec import config as configs
from rtl_gen.spec import isa
from tests import programs

pytestmark = pytest.mark.hardware

MODEL = pathlib.Path(__file__).resolve().parents[2] / "sw" / "models" / "shakespeare-gpt2"


@pytest.fixture(scope="module")
def ring():
    """Configuration of the cards that are there."""
    count = len(os.environ.get(xrt.opening.DEVICES, "0").split(","))
    return dataclasses.replace(configs.find(xrt.configuration()), cards=count)


@pytest.fixture(scope="module")
def name(ring):
    return f"xrt:{ring.name}" + (f"*{ring.cards}" if ring.cards > 1 else "")


@pytest.fixture
def card(ring, name):
    if ring.cards > 1:
        pytest.skip("programs of one card; rings are held by the model's text")
    opened, = open_cards(name)
    with contextlib.closing(opened):
        yield opened


def test_cards_say_who_they_are(ring, name):
    with contextlib.ExitStack() as stack:
        for opened in open_cards(name):
            stack.callback(opened.close)
            assert check(opened, config=ring).board.startswith("xilinx_")


def test_random_programs_give_the_functional_cards_memory(ring, card):
    sim = FunctionalCard(ring)
    for number in range(40):
        case = programs.random_case(ring, f"hardware {number}")
        assert case.run(card) == case.run(sim), case.name


def test_a_card_works_on_after_an_error(ring, card):
    for word in (0xFE, isa.encode("NOP", wait=1)):
        case = programs.Case(ring, "error", [isa.encode("NOP"), word], [], {}, [], [], [])
        for address, data in case.command():
            card.write(address, data)
        with pytest.raises(CardStopped, match="the card stopped at instruction 1 "):
            card.run(programs.RECORD * ring.beat_bytes, 10)
    case = programs.random_case(ring, "after errors")
    assert case.run(card) == case.run(FunctionalCard(ring))


def test_the_demo_model_writes_the_functional_cards_text(ring, name):
    found = []
    for cards in (name, f"sim:{ring.name}"):
        with heddle.load(MODEL, cards=cards) as model:
            found.append(model.generate("ROMEO.\n", max_new_tokens=16).token_ids)
    assert found[0] == found[1]
