# SPDX-License-Identifier: Apache-2.0
"""Models on rings of Verilated cards: the tokens and logits of one card; faults of links."""

import contextlib
import pathlib

import numpy as np
import pytest

import heddle
from cardsim.rtl import LinkTiming
from heddle.card import CardError
from rtl_gen.spec.link import State
from rtl_gen.spec.registers import LINK, LINK_COUNTERS
from tests.sw import models

pytestmark = [pytest.mark.cosim]

DEMO = pathlib.Path(__file__).resolve().parents[2] / "sw" / "models" / "shakespeare-gpt2"
PROMPT = "ROMEO."
#: Cycles without a word from a neighbour after which a link has failed, and some to tell others.
SILENCE, TELL = 4096, 4000
#: A ring of each size in turn: two processes would build it twice.
TWO, FOUR = (pytest.mark.xdist_group(f"card tiny ring {count}") for count in (2, 4))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    def write(name, heads, **more):
        found = models.tensors(layers=2, width=64 * heads, vocabulary=997, context=41, seed=name,
                               **more)
        return models.write(tmp_path_factory.mktemp(name.replace(" ", "-")), found)

    return {"demo": DEMO, "three heads": write("three heads", 3),
            "five heads": write("five heads", 5, inner=1001)}


def statuses(runtime):
    """Has the runtime remember the status records of its last command, by card."""
    kept = {}

    def remember(card, run):
        def wrapped(*arguments):
            kept[card] = run(*arguments)
            return kept[card]
        return wrapped

    for number, card in enumerate(runtime.cards):
        card.run = remember(number, card.run)
    return kept


def outcome(folder, cards, new=3, **options):
    """Tokens, logits, and the status records of the last command."""
    with heddle.load(folder, cards=cards, **options) as model:
        runtime = model.runtime
        kept = statuses(runtime) if cards.startswith("rtl") else {}
        tokens = model.encode(PROMPT)
        first = runtime.read(tokens, 0, store_logits=True, candidates=3)
        logits = [runtime.logits()]
        results = [first, *runtime.run([first.token], len(tokens), new, store_logits=True,
                                       candidates=3)]
        logits.append(runtime.logits())
        return [(result.token, result.log_sum, result.candidates.tolist()) for result in results], \
            np.stack(logits).view(np.uint32), kept


@pytest.mark.parametrize(("name", "pattern", "cards", "split"), [
    pytest.param("demo", "dense", 2, "auto", marks=TWO),
    pytest.param("three heads", "2:4", 2, "outputs", marks=TWO),
    pytest.param("three heads", "dense", 2, "whole:out,up,down,head", marks=TWO),
    pytest.param("demo", "2:4", 4, "whole:out", marks=FOUR),
    pytest.param("five heads", "dense", 4, "outputs", marks=FOUR),
    pytest.param("five heads", "2:4", 4, "whole:up,head", marks=FOUR)])
def test_rings_give_what_one_card_gives(folders, name, pattern, cards, split):
    alone = outcome(folders[name], "rtl:tiny", pattern=pattern)
    ring = outcome(folders[name], f"rtl:tiny*{cards}", pattern=pattern, split=split)
    assert ring[0] == alone[0]
    assert (ring[1] == alone[1]).all()
    assert len(np.unique(alone[1][0])) > 500    # a model of zeros would be the same anywhere
    for status in ring[2].values():
        assert {name: status[name] for name in LINK_COUNTERS_OF_FAULTS} \
            == dict.fromkeys(LINK_COUNTERS_OF_FAULTS, 0)
        assert status["stall_link"] < status["cycles"]
        # Where nearly all is whole, one gather is left, which a product may hide.
        assert status["stall_link"] or split == "whole:out,up,down,head"
        assert status["idle_link"] <= status["stall_link"]


LINK_COUNTERS_OF_FAULTS = [f"{end}_{name}" for end in ("previous", "next")
                           for name in LINK_COUNTERS if name not in ("sent", "received")]


@pytest.mark.parametrize(("name", "cards"), [
    pytest.param("three heads", 2, marks=TWO), pytest.param("five heads", 4, marks=FOUR)])
def test_spoilt_frames_are_repaired(folders, name, cards):
    plain = outcome(folders[name], "sim:tiny")
    link = LinkTiming(corrupt_permille=10, stall_permille=200, seed=3)
    spoilt = outcome(folders[name], f"rtl:tiny*{cards}", link=link)
    assert spoilt[0] == plain[0]
    assert (spoilt[1] == plain[1]).all()
    bad = sum(status[f"{end}_bad"] for status in spoilt[2].values()
              for end in ("previous", "next"))
    repeats = sum(status[f"{end}_repeats"] for status in spoilt[2].values()
                  for end in ("previous", "next"))
    assert bad > 0
    assert repeats > 0


@pytest.mark.parametrize(("name", "cards", "cut"), [
    pytest.param("three heads", 2, 0, marks=TWO), pytest.param("five heads", 4, 2, marks=FOUR)])
def test_a_cut_link_stops_every_card(folders, name, cards, cut):
    """In the middle of a command that would take much longer."""
    when = 30_000
    link = LinkTiming(cut=(cut, when))
    with contextlib.closing(heddle.load(folders[name], cards=f"rtl:tiny*{cards}", link=link)
                            ) as model:
        with pytest.raises(CardError, match=rf"the link between card ({cut}|{(cut + 1) % cards}) "
                           rf"and card ({cut}|{(cut + 1) % cards}) of {cards} failed"):
            model.runtime.run([5], 0, 30)
        for card in model.runtime.cards:
            assert card.cycles < when + SILENCE + TELL
            assert heddle.card.Status(tuple(card._call("status")))["error"] == 9


def test_the_fields_of_the_links_word():
    assert max(State) < 1 << LINK["next_state"][0]
