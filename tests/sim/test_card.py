# SPDX-License-Identifier: Apache-2.0
"""Cards by name, and what their errors say."""

import dataclasses

import pytest

from cardsim.functional import FunctionalCard
from heddle import card as cards
from heddle.card import CardError, Identity, Status
from rtl_gen.spec import contract, isa
from rtl_gen.spec.config import TINY
from rtl_gen.spec.registers import STATUS, Error


def test_cards_are_opened_by_name():
    opened = cards.open_cards("sim:tiny*2")
    assert [type(card) for card in opened] == [FunctionalCard] * 2
    assert opened[0].config == dataclasses.replace(TINY, cards=2)
    opened[0].write(0, b"x")
    assert opened[1].read(0, 1) == b"\0"
    for card in opened:
        card.close()


@pytest.mark.parametrize(("text", "message"), [
    ("fpga:tiny", "must be one of .*sim.* not 'fpga'"),
    ("sim:huge", "configuration must be one of tiny, small, u280, ulx3s, not 'huge'"),
    ("sim", "backend:config"), (":tiny", "backend:config"), ("sim:tiny*0", "backend:config"),
    ("sim:tiny*x", "backend:config"), ("sim:", "backend:config"), ("sim:tiny*3", "1, 2, 4 or 8"),
    ("sim:tiny*", "backend:config"),
])
def test_names_that_name_nothing(text, message):
    with pytest.raises(ValueError, match=message):
        cards.open_cards(text)


def test_another_contract_or_configuration_is_refused(monkeypatch):
    card = FunctionalCard(TINY)
    assert cards.check(card, config=TINY).board == "sim"
    with pytest.raises(CardError, match="configuration must be 'other'"):
        cards.check(card, config=dataclasses.replace(TINY, name="other"))
    monkeypatch.setattr(card, "identity", lambda: Identity(
        contract=contract.DIGEST ^ 1, configuration=TINY.digest, commit=0xABC, board="old"))
    with pytest.raises(CardError, match=r"contract must be .*card commit 00000abc"):
        cards.check(card)


def test_a_backend_that_fails_closes_what_it_opened(monkeypatch):
    closed = []
    monkeypatch.setattr(FunctionalCard, "close", lambda self: closed.append(self))
    monkeypatch.setattr(FunctionalCard, "identity", lambda self: Identity(
        contract=0, configuration=0, commit=0, board=""))
    with pytest.raises(CardError, match="contract"):
        cards.open_cards("sim:tiny")
    assert len(closed) == 1


def test_status_in_words():
    word = isa.encode("QUANT", words=3, exponent=-7)
    values = {"error": Error.ILLEGAL_OPERAND, "pc": 12, "cycles_low": 5, "cycles_high": 1,
              **{f"word{k}": word >> 32 * k & 0xFFFFFFFF for k in range(8)}}
    status = Status(tuple(int(values.get(name, 0)) for name in STATUS))
    assert status["cycles"] == 5 + (1 << 32)
    assert status.describe() == ("the card stopped at instruction 12 (ILLEGAL_OPERAND): "
                                 "QUANT words=3 exponent=-7")
    assert Status.from_bytes(b"".join(
        w.to_bytes(4, "little") for w in status.words)) == status
    assert "is no instruction" in cards.show(0xEE)
    with pytest.raises(ValueError, match="must have 52 words, not 1"):
        Status((1,))


def test_the_contract_covers_what_words_mean():
    assert all(name in contract.text() for name in ("kv_heads", "MATMUL", "WATCHDOG", "r31"))
    assert "Beat address" not in contract.text()
