# SPDX-License-Identifier: Apache-2.0
"""The ULX3S simulated at its pins, driven by the shipped driver through a pseudo-terminal."""

import contextlib
import dataclasses
import os
import random

import numpy as np
import pytest

import heddle
from cardsim.board import BoardProcess
from cardsim.functional import FunctionalCard
from heddle import uart
from heddle.card import CardError, CardMissing, CardStopped, CardTimeout, check, open_cards
from rtl_gen.boards import ulx3s
from rtl_gen.spec import contract, isa, registers
from rtl_gen.spec.config import TINY, ULX3S
from rtl_gen.spec.registers import Error
from rtl_gen.spec.serial import Kind
from tests import programs
from tests.sw import models

pytestmark = [pytest.mark.cosim, pytest.mark.slow, pytest.mark.xdist_group("board")]

#: A line as fast as the board's clock allows, and a gap to match.
LINE = {"baud": ulx3s.CLOCK_HZ / 4, "gap": 2e-3, "power_up": 2_000.0}
#: Seconds for an answer: a simulated one takes longer than a real one.
PATIENCE = 60.0


@contextlib.contextmanager
def board(**how):
    """A card on a simulated board, its line, and the simulation."""
    with BoardProcess(ulx3s.board(**LINE), **how) as process:
        card, = open_cards("uart:ulx3s", port=process.port, patience=PATIENCE)
        try:
            yield card, process
        finally:
            card.close()


def test_the_board_says_what_it_is():
    with board() as (card, process):
        identity = check(card, config=ULX3S)
        assert (identity.contract, identity.configuration) == (contract.DIGEST, ULX3S.digest)
        assert card.hello == {"revision": 1, "beat_bytes": 8, "memory": 1 << 25,
                              "clock": 25_000_000, "gap": 2000}
        assert card.clock_mhz == 25
        with pytest.raises(CardError, match="serial port must be one that can be opened"):
            uart.open_cards(ULX3S, port=process.port)      # it is in use
    with pytest.raises(CardError, match=r"memory of the board on .* must have at least"), \
            BoardProcess(ulx3s.board(**LINE)) as process:
        uart.open_cards(dataclasses.replace(ULX3S, channel_bytes=1 << 26), port=process.port,
                        patience=PATIENCE)
    with pytest.raises(CardError, match=r"beat_bytes of the board on .* must be 16, not 8"), \
            BoardProcess(ulx3s.board(**LINE)) as process:
        uart.open_cards(TINY, port=process.port, patience=PATIENCE)


def test_memory_is_read_as_it_was_written():
    rng, expected = random.Random("board memory"), {}
    with board() as (card, _):
        for size in (1, 16, 33, 2048, 2049, 5000):
            for place in (0, 16, (1 << 24) - 40, (1 << 25) - 5100):
                start, data = place + rng.randrange(100), rng.randbytes(size)
                card.write(start, data)
                expected |= dict(enumerate(data, start))
        for start in (0, 16, (1 << 24) - 40, (1 << 25) - 5100):
            known = [expected.get(k) for k in range(start, start + 5100)]
            found = card.read(start, 5100)
            assert all(want in (None, got) for want, got in zip(known, found, strict=True))
        with pytest.raises(CardError, match="memory must be accessed below 0x2000000, not at"):
            card.write((1 << 25) - 4, bytes(5))
        assert (card.read(77, 0), card.write(5, b"")) == (b"", None)


def test_a_random_program_gives_the_same_memory():
    """One: its memory takes ten million cycles on the line.  The card itself has had many."""
    case = programs.random_case(ULX3S, "board")
    with board(seed=7) as (card, _):
        assert case.run(card) == case.run(FunctionalCard(ULX3S))


def run_words(card, words, *, timeout=PATIENCE, **registers):
    case = programs.Case(ULX3S, "words", words, [], {int(k[1:]): v for k, v in registers.items()},
                         [], [], [])
    for address, data in case.command():
        card.write(address, data)
    return card.run(programs.RECORD * ULX3S.beat_bytes, timeout)


def test_errors_stop_the_card_and_a_reset_ends_what_does_not_end():
    with board() as (card, _):
        with pytest.raises(CardStopped) as stopped:
            run_words(card, [0xFF])
        assert stopped.value.status.error == Error.ILLEGAL_OPCODE
        kept = card.read(0x3000, 64)
        forever = [isa.encode("LOOP", rd=8, target=0), isa.encode("HALT")]
        with pytest.raises(CardTimeout, match=r"the command must end within 0.5 s"):
            run_words(card, forever, timeout=0.5, r8=0xFFFFFFFF)
        card.reset()
        assert run_words(card, [isa.encode("HALT")]).error == 0
        assert card.read(0x3000, 64) == kept
        # A host that finds it at work resets it, too.
        with pytest.raises(CardTimeout):
            run_words(card, forever, timeout=0.5, r8=0xFFFFFFFF)
        again = uart.UartCard(ULX3S, card._line)
        assert run_words(again, [isa.encode("HALT")]).error == 0


def test_a_bad_line_costs_time_and_nothing_else():
    rng = random.Random("bad line")
    with BoardProcess(ulx3s.board(**LINE), faults=1, seed=5) as process:
        line = uart.SerialLine(process.port, patience=4.0)
        card = uart.UartCard(ULX3S, line)
        for _ in range(30):
            start, data = rng.randrange(1 << 20), rng.randbytes(rng.randrange(1, 400))
            card.write(start, data)
            assert card.read(start, len(data)) == data
        status = run_words(card, [isa.encode("HALT")])
        assert (status.error, status["instructions"]) == (0, 1)
        assert line.repeats > 0
        card.close()


def test_a_port_that_nobody_answers_on_is_given_up():
    master, slave = os.openpty()
    with pytest.raises(CardTimeout, match=r"must answer HELLO within 0.1 s"):
        uart.open_cards(ULX3S, port=os.ttyname(slave), patience=0.1)
    os.close(master)
    os.close(slave)


def test_a_port_that_goes_away_is_named():
    master, slave = os.openpty()
    line = uart.SerialLine(os.ttyname(slave), patience=0.1)
    os.close(slave)
    os.close(master)        # unplugged
    with pytest.raises(CardError, match=rf"^the serial port {line.port} failed: "):
        line.ask(Kind.HELLO, size=4)
    line.close()


def test_a_setting_with_the_number_of_the_last_one_is_another_one():
    """Numbers of requests come round; one that is sent again has the number it had."""
    address = registers.CONTROL["command_low"]
    with board() as (card, _):
        card._set(address, 0x1110)
        for _ in range(255):
            assert card._get(address, 1) == [0x1110]
        card._set(address, 0x2220)
        assert card._get(address, 1) == [0x2220]


def test_refusals_of_the_board_are_one_sentence():
    with board() as (card, _):
        with pytest.raises(CardError, match=r"refused GET of 4 bytes at 0x44: REFUSED"):
            card._line.ask(Kind.GET, address=0x44, size=4)
        with pytest.raises(CardError, match=r"refused READ of 16 bytes at 0x2000000: ADDRESS"):
            card._line.ask(Kind.READ, address=1 << 25, size=16)


def test_ports_must_be_named(monkeypatch):
    monkeypatch.delenv("HEDDLE_PORT", raising=False)
    with pytest.raises(CardMissing,
                       match="HEDDLE_PORT must name the board's serial port; there are"):
        open_cards("uart:ulx3s")
    with pytest.raises(CardError, match="serial port must be one that can be opened, not '/dev/no"):
        open_cards("uart:ulx3s", port="/dev/nothing")
    with pytest.raises(CardError, match="options of a board must be port, baud and patience, not "):
        open_cards("uart:ulx3s", waves="a.vcd")
    with pytest.raises(CardError, match="cards must be 1 on a serial line, not 2"):
        uart.open_cards(dataclasses.replace(TINY, cards=2))


DRAWN = {"temperature": 3.0, "top_k": 8, "seed": 1}


@pytest.mark.parametrize(("shape", "parameters", "prompt", "new", "samplings"), [
    ({"layers": 1, "width": 64}, 71_872 - 512, "A heddle lifts some", 6, ({}, DRAWN)),
    # Loading it takes 55 million cycles, some ten minutes.
    pytest.param({"layers": 5, "width": 128, "context": 64}, 1_038_208, "A heddle", 4, ({},),
                 marks=pytest.mark.long),
], ids=["small", "a million"])
def test_a_model_gives_the_tokens_and_logits_of_the_functional_card(
        tmp_path, monkeypatch, shape, parameters, prompt, new, samplings):
    found = models.tensors(**{"context": 32} | shape)
    assert sum(tensor.size for tensor in found.values()) == parameters
    folder = models.write(tmp_path / "model", found)

    def work(model):
        texts = [model.generate(prompt, max_new_tokens=new, **how) for how in samplings]
        return [text.token_ids for text in texts], models.steps(model.runtime, [5])[0]

    with heddle.load(folder, cards="sim:ulx3s") as model:
        tokens, logits = work(model)
    assert len(set(tokens[-1])) > 1
    with BoardProcess(ulx3s.board(**LINE)) as process:
        monkeypatch.setenv("HEDDLE_PORT", process.port)
        with heddle.load(folder, cards="uart:ulx3s", patience=PATIENCE) as model:
            found, same = work(model)
    assert found == tokens
    assert np.array_equal(same.view(np.uint32), logits.view(np.uint32))
    assert process.cycles > 1_000_000
