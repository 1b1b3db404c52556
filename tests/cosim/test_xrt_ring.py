# SPDX-License-Identifier: Apache-2.0
"""Two real cards in a ring, on the double of pyxrt: links are those that the files connect."""

import dataclasses
import json
import shutil

import pytest

import heddle
from cardsim.rtl.timing import LinkTiming
from heddle.card import CardError, open_cards
from heddle.doctor import boards as checks
from heddle.xrt import start
from rtl_gen.spec import contract, isa
from rtl_gen.spec.config import TINY
from rtl_gen.vitis import board as boards
from tests import programs
from tests.doubles import fixtures
from tests.doubles import machine as machines
from tests.doubles.fixtures import COMMIT, MODEL

pytestmark = [pytest.mark.cosim, pytest.mark.slow, pytest.mark.xdist_group("xrt ring")]

RING = dataclasses.replace(TINY, cards=2)


@pytest.fixture(scope="module")
def xclbin(tmp_path_factory):
    """Of a U280 whose links take the tiny card's beats."""
    folder = tmp_path_factory.mktemp("ring")
    shutil.copytree(boards.FOLDER / "u280", folder / "narrow")
    path = folder / "narrow" / "board.json"
    data = json.loads(path.read_text())
    data["links"]["beat_bytes"] = [TINY.beat_bytes]
    path.write_text(json.dumps(data))
    return fixtures.build(folder, "--set", "cards=2", "--no-dsp48",
                          "--board", str(folder / "narrow"))


machine = pytest.fixture(fixtures.machine)


def test_two_cards_write_the_text_of_one(machine, xclbin):
    made = machine(boards=2)
    with heddle.load(MODEL, cards="sim:tiny") as model:
        expected = model.generate("ROMEO.\n", max_new_tokens=4).token_ids
    with heddle.load(MODEL, cards="xrt:tiny*2", xclbin=xclbin) as model:
        made.log.clear()
        assert model.generate("ROMEO.\n", max_new_tokens=4).token_ids == expected
        # A card waits 100,000 cycles for its neighbours.
        starts = [(place, cycle) for what, place, cycle in made.log if what == "start"]
        for (one, early), (other, late) in zip(starts[::2], starts[1::2], strict=True):
            assert {one, other} == {0, 1}
            assert late - early < 10_000
        # Asked in between who it is, a card does no harm to the links.
        for card in model.runtime.cards:
            found = card.identity()
            assert (found.configuration, found.commit) == (RING.digest, COMMIT)
        assert model.generate("ROMEO.\n", max_new_tokens=1).token_ids == expected[:1]


def test_a_card_alone_does_not_wait_for_ever(machine, xclbin, monkeypatch):
    monkeypatch.setattr(start, "PATIENCE", 0.05)
    machine(boards=2)
    first, second = open_cards("xrt:tiny*2", xclbin=xclbin)
    case = programs.Case(RING, "halt", [isa.encode("HALT")], [], {}, [], [], [])
    for address, data in case.command():
        second.write(address, data)
    assert second.run(programs.RECORD * RING.beat_bytes, 60).error == 0
    first.close()
    assert second.run(programs.RECORD * RING.beat_bytes, 60).error == 0
    second.close()


def test_a_cable_that_is_pulled_is_named(machine, xclbin):
    machine(boards=2, link=LinkTiming(cut=(0, 100_000)))
    sentence = (r"^the link between card [01] and card [01] of 2 failed: card [01] has heard "
                r"nothing from the other for too long; check the link, then reset all cards$")
    with heddle.load(MODEL, cards="xrt:tiny*2", xclbin=xclbin) as model, \
            pytest.raises(CardError, match=sentence):
        model.generate("ROMEO.\n", max_new_tokens=16)


def test_boards_in_the_order_that_was_asked_for(machine, xclbin):
    made = machine(boards=2)
    addresses = [board.bdf for board in made.boards]
    with pytest.raises(CardError, match=r"^device 2 must be a board that XRT can open"):
        open_cards("xrt:tiny*4", xclbin=xclbin)
    first, second = open_cards("xrt:tiny*2", xclbin=xclbin, devices=addresses)
    assert [str(card._device).split()[0] for card in (first, second)] == addresses
    first.close()
    second.close()
    assert not any(board.taken for board in machines.here.boards)


def test_the_doctor_asks_all_cards_of_a_ring(machine, xclbin, monkeypatch):
    made = machine(boards=2)
    monkeypatch.setenv("HEDDLE_XCLBIN", str(xclbin))
    monkeypatch.setenv("HEDDLE_XRT_DEVICES", ", ".join(board.bdf for board in made.boards))
    check, = (check for check in checks() if check.name == "card xrt")
    assert check.attempt().split("; ") == [
        "xilinx_u280_gen3x16_xdma_base_1, "
        f"contract {contract.DIGEST:08x}, commit {COMMIT:08x}"] * 2
    assert not any(board.taken for board in machines.here.boards)
