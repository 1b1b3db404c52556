# SPDX-License-Identifier: Apache-2.0
"""``heddle estimate``: what it prints and refuses, and how costs follow the workload."""

import dataclasses
import json

import pytest

from cardsim.estimate.estimate import estimate
from cardsim.estimate.link import Ring
from cardsim.estimate.walk import Walk
from cardsim.rtl import Timing
from heddle import cli
from heddle.bench import Workload
from heddle.options import Options
from heddle.shapes import find_shape
from rtl_gen.spec.config import TINY, U280

SHAPE = find_shape("2:128:997")


def cycles(config=TINY, shape=SHAPE, timing=None, options=None, **workload):
    return estimate(config, shape, Workload(**{"context": 20, **workload}), timing=timing,
                    options=Options(**(options or {})))["cycles_total"]


def test_figures(tmp_path, capsys):
    path = tmp_path / "estimate.json"
    assert cli.run(["estimate", "--cards", "tiny", "--shape", "2:128:997", "--pattern", "2:4",
                    "--new", "3", "--clock", "200", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert (found["config"], found["pattern"], found["new"], found["clock_mhz"]) == (
        "tiny", "2:4", 3, 200)
    assert found["milliseconds"] == pytest.approx(found["cycles_total"] / 200e3)
    assert found["tokens_per_second_card"] == pytest.approx(3000 / found["milliseconds"])
    assert 0 < found["hbm_useful_utilisation"] < found["hbm_read_utilisation"] < 1
    # Every cycle is one of a step, or has a reason.
    assert set(found["stall_cycles"]) == {"weights", "dependency", "epilogue", "idle"}
    assert 0 < sum(found["stall_cycles"].values()) < found["cycles_total"]
    # Nothing is computed: there is no text, and nothing to compare.
    assert not {"text", "token_ids", "equal_to_sim"} & set(found)
    assert "tokens/s of the card" in capsys.readouterr().out


@pytest.mark.parametrize(("more", "less"), [
    ({"context": 400}, {}), ({"new": 2}, {}), ({"batch": 2}, {}), ({"full": True}, {"full": False}),
    ({}, {"options": {"pattern": "2:4"}}),
    ({"options": {"pattern": "2:4"}}, {"options": {"pattern": "1:4"}}),
    ({"timing": Timing(latency_ns=900)}, {}), ({"context": 0, "prompt": 9},
                                               {"context": 0, "prompt": 8}),
    ({}, {"config": U280})])
def test_more_work_takes_longer(more, less):
    assert cycles(**more) > cycles(**less)


def test_steps_of_a_ring_cost_alike():
    """Where vocabularies divide unevenly a card has other messages than its neighbours."""
    ring, shape = dataclasses.replace(TINY, cards=4), find_shape("1:256:1501")
    one = cycles(ring, shape, context=60)
    assert cycles(ring, shape, context=60, new=6) == pytest.approx(6 * one, rel=0.02)


def test_a_message_comes_in_at_the_side_of_its_sender():
    ring = Ring(4)
    for card in range(4):
        ring.send(card, 0, 10 * card)
        ring.send(card, 1, 10 * card + 1)
    for card in range(4):
        assert ring.receive(card, 0) == 10 * ((card - 1) % 4) + 1
        assert ring.receive(card, 1) == 10 * ((card + 1) % 4)


@pytest.mark.parametrize("fails", [0, 2])
def test_a_walk_that_fails_ends_those_of_the_ring(monkeypatch, fails):
    walk = Walk.run

    def run(self, steps):
        if self._links._card != fails:
            return walk(self, steps)
        raise ArithmeticError("of this walk alone")

    monkeypatch.setattr(Walk, "run", run)
    with pytest.raises(ArithmeticError, match="of this walk alone"):
        cycles(dataclasses.replace(TINY, cards=4), find_shape("1:256:1501"))


def test_the_same_twice():
    assert cycles(context=77, new=2) == cycles(context=77, new=2)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--cards", "sim:tiny"], "cards must be given without a backend, as in u280, not 'sim:tiny'"),
    (["--cards", "tiny*3"], "cards must be 1, 2, 4 or 8, not 3"),
    (["--cards", "tiny*4", "--shape", "2:128:997"], "must have no more cards"),
    (["--cards", "huge"], "huge"),
    (["--cards", "tiny", "--shape", "gpt9"], "gpt9"),
    (["--cards", "tiny", "--clock", "-3"], "clock"),
    (["--cards", "tiny", "--batch", "9"], "batch"),
    (["--cards", "tiny", "--shape", "2:128:997", "--context", "4000"], "context")])
def test_what_cannot_be_estimated(arguments, message, capsys):
    assert cli.run(["estimate", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in " ".join(said.split())
    assert "Traceback" not in said
