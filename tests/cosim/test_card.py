# SPDX-License-Identifier: Apache-2.0
"""The Verilated card against the functional one: one command, bit for bit the same outcome."""

import dataclasses
import os

import pytest

from cardsim.functional import FunctionalCard
from cardsim.rtl import RtlCard, Timing
from heddle.card import CardStopped, CardTimeout, check
from rtl_gen.spec import contract, isa
from rtl_gen.spec.config import TINY
from rtl_gen.spec.registers import COMMAND, Error
from tests import programs

pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("card tiny")]

CONFIG = TINY
#: Cycles in which any of these programs ends.
LIMIT = 500_000
#: Random programs for each way in which memory stalls.
PROGRAMS, ILLEGAL = 40, 40


@pytest.fixture
def opened():
    cards = []

    def open_one(**timing):
        cards.append(RtlCard(CONFIG, timing=Timing(**timing), cycle_limit=LIMIT))
        return cards[-1]
    yield open_one
    for card in cards:
        card.close()


@pytest.mark.parametrize("timing", [
    {}, {"stall_permille": 200}, {"stall_permille": 800}, {"latency_ns": 2000, "peak_gbps": 1.6},
], ids=["plain", "stalls", "heavy stalls", "slow"])
def test_random_programs_give_the_same_memory(opened, timing):
    """One after another on one card: what a program leaves behind does not matter to the next."""
    rtl, sim = opened(**timing, seed=5), FunctionalCard(CONFIG)
    for number in range(PROGRAMS):
        case = programs.random_case(CONFIG, f"card {sorted(timing.items())} {number}")
        expected = case.run(sim)
        assert expected.error == 0
        assert case.run(rtl) == expected, f"random_case(TINY, {case.name!r})"


@pytest.mark.parametrize("stall", [0, 300])
def test_illegal_words_stop_both_at_the_same_instruction(opened, stall):
    rtl, sim = opened(stall_permille=stall), FunctionalCard(CONFIG)
    errors = set()
    for number in range(ILLEGAL):
        case, expected = programs.illegal_case(CONFIG, f"{stall} {number}")
        found = case.run(rtl)
        assert found == case.run(sim), case.name
        assert dataclasses.replace(found, sticky=0, memory=()) == expected
        errors.add(found.error)
    assert errors >= {Error.ILLEGAL_OPCODE, Error.ILLEGAL_OPERAND}


def test_the_card_says_what_it_is(opened):
    card = opened()
    identity = check(card, config=CONFIG)
    assert (identity.contract, identity.configuration, identity.commit, identity.board) == (
        contract.DIGEST, CONFIG.digest, 0, "rtl")


def run_words(card, words, **registers):
    """Run instructions as a command; the status."""
    case = programs.Case(CONFIG, "words", words, [], registers, [], [], [])
    for address, data in case.command():
        card.write(address, data)
    return card.run(programs.RECORD * CONFIG.beat_bytes, 600)


LOAD = isa.encode("LOAD", address=programs.DATA, rows=1, words=8, signal=1)
STORE = isa.encode("STORE", address=programs.OUT, words=8, wait=1)
HALT = isa.encode("HALT")


def test_counters_of_the_status_record_add_up(opened):
    card = opened()
    status = run_words(card, [LOAD, STORE, HALT])
    beats = 8 * 4 // CONFIG.beat_bytes
    assert status["read_beats"] == status["write_beats"] == beats * CONFIG.channels
    assert status["instructions"] == 3
    assert status["engine_beats"] == status["engine_cycles"] == status["stall_weights"] == 0
    assert 0 < status["stall_idle"] <= status["cycles"] < 1000


@pytest.mark.parametrize("kind", ["read", "write"])
def test_error_answers_of_memory_stop_the_card_and_the_next_command_runs(opened, kind):
    place = {"read": programs.DATA, "write": programs.OUT}[kind] * CONFIG.beat_bytes
    card = opened(**{f"{kind}_error_at": place})
    with pytest.raises(CardStopped) as stopped:
        run_words(card, [LOAD, STORE, isa.encode("SCALAR"), HALT])
    status = stopped.value.status
    assert status.error == {"read": Error.AXI_READ, "write": Error.AXI_WRITE}[kind]
    assert status["pc"] <= 3
    away = {"address": programs.OUT + 64}
    fine = [isa.encode("LOAD", rows=1, words=8, signal=1, **away),
            isa.encode("STORE", words=8, wait=1, **away), HALT]
    assert run_words(card, fine).error == 0


def test_silence_is_ended_by_the_watchdog_and_the_next_command_runs(opened):
    """Memory answers later than the watchdog allows: first too late for a load, then in time."""
    card = opened(latency_ns=60_000)
    record = programs.RECORD * CONFIG.beat_bytes
    case = programs.Case(CONFIG, "slow", [LOAD, HALT], [], {}, [], [], [])
    for address, data in case.command():
        card.write(address, data)
    for cycles, error in ((5_900, Error.WATCHDOG), (6_500, Error.NONE), (5_900, Error.WATCHDOG),
                          (6_500, Error.NONE)):
        card.write(record + 4 * COMMAND.index("watchdog"), cycles.to_bytes(4, "little"))
        if error:
            with pytest.raises(CardStopped) as stopped:
                card.run(record, 600)
            assert stopped.value.status.error == error
        else:
            assert card.run(record, 600).error == error


def test_a_command_without_end_is_given_up_and_a_reset_helps():
    card = RtlCard(CONFIG, cycle_limit=20_000)
    try:
        with pytest.raises(CardTimeout, match="the command must end within"):
            run_words(card, [isa.encode("ADDI", rd=8, imm=2), isa.encode("LOOP", rd=8), HALT])
        card.reset()
        assert run_words(card, [LOAD, STORE, HALT]).error == 0
    finally:
        card.close()


@pytest.mark.skipif("HEDDLE_MORE_SEEDS" not in os.environ, reason="HEDDLE_MORE_SEEDS is not set")
def test_more_random_programs(opened):
    rtl, sim = opened(stall_permille=100), FunctionalCard(CONFIG)
    for number in range(int(os.environ["HEDDLE_MORE_SEEDS"])):
        case = programs.random_case(CONFIG, f"more {number}")
        assert case.run(rtl) == case.run(sim), case.name
