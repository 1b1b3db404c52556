# SPDX-License-Identifier: Apache-2.0
"""Verilated cards of a ring as the host sees them: apart in memory, together in time."""

import dataclasses
import os
import pathlib
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cardsim.rtl import LinkTiming, RtlCard, Timing, open_cards, simulation
from cardsim.rtl.events import Activity
from heddle.card import Card, CardError, CardStopped, CardTimeout, Status, check
from rtl_gen.spec import isa, registers
from rtl_gen.spec.config import TINY
from rtl_gen.spec.link import Failure, State
from rtl_gen.spec.registers import COMMAND, FLAG_LOAD, LINK, NO_STOP, RING, STOP, Error

pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("ring of cards")]

TWO, FOUR = (dataclasses.replace(TINY, cards=cards) for cards in (2, 4))
BEAT, LANES, CHANNEL = TINY.beat_bytes, TINY.vector_lanes, TINY.channel_bytes
#: Beats in channel 0; words that a program loads and stores are in all channels.
RECORD, PROGRAM, STATUS_AT, DATA, STORED = 0x10, 0x100, 0x3800, 0x4000, 0x8000
WORDS = 40
HALT = isa.encode("HALT")
NEVER = [isa.encode("RECEIVE_PREVIOUS", dst=0, words=5, columns=1), HALT]
PREVIOUS, NEXT = range(2)
LIMIT = 300_000


class Ring:
    """Cards that run a command each, all at once."""

    def __init__(self, config=TWO, **options):
        self.cards = open_cards(config, **{"cycle_limit": LIMIT} | options)
        self.session = 0

    def write(self, card, program, **values):
        """Write a command."""
        record = {
            "magic": registers.COMMAND_MAGIC, "flags": FLAG_LOAD, "program": PROGRAM,
            "instructions": len(program), "status": STATUS_AT,
            **{f"stop{k}": NO_STOP for k in range(4)},
            "ring": card << RING["card"] | self.session << RING["session"]} | values
        words = np.array([record.get(name, 0) for name in COMMAND], "<u4")
        self.cards[card].write(RECORD * BEAT, words.tobytes())
        self.cards[card].write(PROGRAM * BEAT, b"".join(
            word.to_bytes(isa.WORD_BYTES, "little") for word in program))

    def run(self, programs, **values):
        """Run the programs, by card; of each its status, or the exception."""
        self.session = (self.session + 1) % 256
        for card, program in programs.items():
            self.write(card, program, **values)

        def outcome(card):
            try:
                return self.cards[card].run(RECORD * BEAT, 600)
            except CardError as error:
                return error
        with ThreadPoolExecutor(len(programs)) as pool:
            return list(pool.map(outcome, programs))

    def put(self, card, words):
        """Words [count, lanes] for a LOAD."""
        for lane in range(LANES):
            self.cards[card].write(lane * CHANNEL + DATA * BEAT,
                                   np.ascontiguousarray(words[:, lane]).tobytes())

    def get(self, card, count):
        lanes = [np.frombuffer(self.cards[card].read(lane * CHANNEL + STORED * BEAT, 4 * count),
                               np.uint32) for lane in range(LANES)]
        return np.stack(lanes, axis=1)

    def swap(self, seed, *, rounds=1):
        """Every card sends other words to both neighbours and stores what comes from them.

        Returns
        -------
        list of Status
        """
        rng, count = np.random.default_rng(seed), len(self.cards)
        data = rng.integers(1 << 32, size=(count, 2 * WORDS, LANES), dtype=np.uint32)
        for card in range(count):
            self.put(card, data[card])
        message = {"words": 10, "columns": 4, "stride": 10}
        program = [
            isa.encode("ADDI", rd=8, imm=rounds),
            isa.encode("LOAD", address=DATA, rows=1, words=2 * WORDS, dst=0, signal=1),
            isa.encode("NOP", wait=1),
            isa.encode("SEND_PREVIOUS", src=0, **message, signal=2),
            isa.encode("SEND_NEXT", src=WORDS, **message, signal=4),
            isa.encode("RECEIVE_PREVIOUS", dst=100, **message, signal=8),
            isa.encode("RECEIVE_NEXT", dst=100 + WORDS, **message, signal=16),
            isa.encode("NOP", wait=2 | 4 | 8 | 16),
            isa.encode("LOOP", rd=8, target=3),
            isa.encode("STORE", address=STORED, words=2 * WORDS, src=100),
            HALT]
        found = self.run(dict.fromkeys(range(count), program))
        for status in found:
            if isinstance(status, Exception):
                raise status
        for card in range(count):
            np.testing.assert_array_equal(self.get(card, 2 * WORDS), np.concatenate(
                [data[card - 1, WORDS:], data[(card + 1) % count, :WORDS]]))
        return found


def fields(word, layout):
    """The fields of a status word."""
    return {name: word >> place & (1 << bits) - 1 for name, (bits, place) in layout.items()}


@pytest.fixture
def opened():
    rings = []

    def open_one(config=TWO, **options):
        rings.append(Ring(config, **options))
        return rings[-1]
    yield open_one
    for ring in rings:
        for card in ring.cards:
            card.close()


@pytest.fixture
def hasty(monkeypatch):
    """Nobody waits long for a card that is not started."""
    monkeypatch.setattr(simulation, "PATIENCE", 0.05)


def test_each_card_says_what_it_is_and_has_memory_of_its_own(opened):
    cards = opened().cards
    images = [os.urandom(64) for _ in cards]
    for card, image in zip(cards, images, strict=True):
        card.write(2 * CHANNEL - 32, image)
    for card, image in zip(cards, images, strict=True):
        assert check(card, config=TWO).board == "rtl"
        assert card.read(2 * CHANNEL - 32, 64) == image
    members = [name for name in vars(Card) if not name.startswith("_")]
    assert all(hasattr(card, name) for card in cards for name in members)


def test_commands_start_in_one_cycle(opened):
    ring = opened()
    for _ in range(3):
        first, second = ring.run({0: [HALT], 1: [HALT]})
        assert isinstance(first, Status)
        assert first["cycles"] == second["cycles"]


@pytest.mark.parametrize("config", [TWO, FOUR], ids=["two", "four"])
def test_messages_arrive(opened, config):
    """On four cards a message that goes the wrong way round comes to another card."""
    ring = opened(config)
    for seed in range(3):
        for status in ring.swap(seed):
            link = fields(status["link"], LINK)
            assert link == {name: State.UP if name.endswith("state") else 0 for name in LINK}
            assert status["next_bad"] == status["previous_bad"] == 0


def test_faults_of_links_are_repaired(opened):
    ring = opened(link=LinkTiming(corrupt_permille=100, drop_permille=50, stall_permille=200))
    found = [status for seed in range(3) for status in ring.swap(seed, rounds=20)]
    assert sum(status["next_bad"] + status["previous_bad"] for status in found)
    assert sum(status["next_repeats"] + status["previous_repeats"] for status in found)
    quiet = [status for seed in range(3) for status in opened().swap(seed, rounds=20)]
    assert min(status["cycles"] for status in found) > max(status["cycles"] for status in quiet)


def test_latency_of_links_counts(opened):
    """A round of the program begins when the words of the one before have come."""
    rounds, cycles = 20, {}
    for latency in (540.0, 1540.0):
        ring = opened(link=LinkTiming(latency_ns=latency))
        cycles[latency] = ring.swap(1, rounds=rounds)[0]["cycles"]
    more = (cycles[1540.0] - cycles[540.0]) / 100
    assert rounds <= more < rounds + 4          # a hello more each way, and the end


@pytest.mark.parametrize("link", [{}, {
    "corrupt_permille": 50, "drop_permille": 50, "stall_permille": 100, "latency_ns": 70.0}],
    ids=["quiet", "noise"])
def test_threads_do_not_matter(opened, link):
    def outcome(threads):
        ring = opened(link=LinkTiming(**link), timing=Timing(stall_permille=100), threads=threads,
                      events=True)
        found = [status.words for seed in range(3) for status in ring.swap(seed, rounds=5)]
        return found, ring.cards[0].cycles, [card.events().tobytes() for card in ring.cards]
    assert outcome(1) == outcome(2)


def test_a_card_alone(opened, hasty):
    ring = opened()
    status, = ring.run({1: [HALT]})
    assert status.error == Error.NONE
    stopped, = ring.run({0: NEVER}, watchdog=5000)
    assert stopped.status.error == Error.WATCHDOG
    ring.swap(1)


@pytest.mark.parametrize(("bad", "error"), [
    (0xFE, Error.ILLEGAL_OPCODE), (isa.encode("RECEIVE_NEXT", words=1), Error.ILLEGAL_OPERAND),
    (isa.encode("RECEIVE_NEXT", words=1, columns=1, wait=1), Error.WATCHDOG)],
    ids=["no instruction", "no columns", "a wait for nothing"])
def test_what_fails_on_one_card_is_known_of_each(opened, bad, error):
    ring = opened()
    first, second = ring.run({0: NEVER, 1: [isa.encode("NOP"), bad]})
    about = {"card": 1, "error": error, "failure": 0, "side": 0}
    assert (first.status.error, second.status.error) == (Error.LINK, error)
    assert (first.status["pc"], second.status["pc"]) == (0, 1)
    for stopped in (first, second):
        assert fields(stopped.status["link_about"], STOP) == about
    ring.swap(1)


@pytest.mark.parametrize("words", [4, 6])
@pytest.mark.parametrize("side", [PREVIOUS, NEXT])
def test_a_message_of_another_length_stops_the_ring(opened, words, side):
    ring = opened()
    send = isa.encode(isa.SENDS[1 - side], words=words, columns=1)
    receive = isa.encode(isa.RECEIVES[side], words=5, columns=1)
    first, second = (stopped.status for stopped in ring.run({0: [send, *NEVER],
                                                             1: [receive, HALT]}))
    about = {"card": 1, "error": Error.LINK, "failure": Failure.MESSAGE, "side": side}
    for status in (first, second):
        assert status.error == Error.LINK
        assert fields(status["link_about"], STOP) == about
    end, link = ("previous", "next")[side], fields(second["link"], LINK)
    assert (link[f"{end}_failure"], link[f"{end}_state"], link["first"]) == (
        Failure.MESSAGE, State.FAILED, side)
    link = fields(first["link"], LINK)
    assert Failure.STOPPED in (link["previous_failure"], link["next_failure"])
    assert (first["pc"], second["pc"]) == (1, 0)
    ring.swap(1)


def test_a_card_without_end_does_not_hold_up_the_others_outcome(opened):
    ring = opened(cycle_limit=30_000)
    endless = [isa.encode("ADDI", rd=8, imm=2), isa.encode("LOOP", rd=8), HALT]
    first, second = ring.run({0: endless, 1: [HALT]})
    assert isinstance(first, CardTimeout)
    assert "and 30000 cycles, not run on after 3" in str(first)
    assert second.error == Error.NONE
    ring.cards[0].reset()
    ring.swap(1)


@pytest.mark.parametrize(("way", "deaf"), [("both", (0, 1)), ("there", (1,)), ("back", (0,))])
def test_a_cut_stops_both(opened, way, deaf):
    ring = opened(link=LinkTiming(cut=(0, 5000), cut_way=way))
    found = ring.run({0: NEVER, 1: NEVER})
    assert all(isinstance(stopped, CardStopped) for stopped in found)
    firsts = [fields(stopped.status["link_about"], STOP) for stopped in found]
    for card, (stopped, about) in enumerate(zip(found, firsts, strict=True)):
        assert stopped.status.error == Error.LINK
        assert 5000 < stopped.status["cycles"] < 5000 + 4096 + 500
        assert about["failure"] == Failure.SILENT
        assert about["card"] in deaf
        side = ("next", "previous")[card]
        if card in deaf:
            assert fields(stopped.status["link"], LINK)[f"{side}_failure"] == Failure.SILENT


def test_every_card_has_a_log(opened):
    ring = opened(events=True)
    for card in ring.cards:
        card.events()
    ring.run({0: [HALT], 1: [isa.encode("LOAD", address=DATA, rows=1, words=WORDS, dst=0), HALT]})
    logs = [card.events() for card in ring.cards]
    read = [(log["channels"] & Activity.READ != 0).sum(0) for log in logs]
    assert (read[0][1:] == 0).all()
    assert (read[1][1:] == 4 * WORDS // BEAT).all()


def test_cards_are_closed_one_by_one(opened):
    ring = opened()
    first, second = ring.cards
    first.close()
    first.close()
    with pytest.raises(CardError, match=r"^the simulated card is closed; open the card again$"):
        first.run(RECORD * BEAT, 600)
    begun = time.monotonic()
    status, = ring.run({1: [HALT]})
    assert time.monotonic() - begun < simulation.PATIENCE       # nobody else can be waited for
    assert status.error == Error.NONE
    process = first._simulation._process
    assert process.poll() is None
    second.close()
    assert process.poll() == 0


def test_a_process_that_dies_is_an_error_of_every_card(opened):
    ring = opened()
    for card in (0, 1):
        ring.write(card, [isa.encode("ADDI", rd=8, imm=2), isa.encode("LOOP", rd=8), HALT])
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(card.run, RECORD * BEAT, 600) for card in ring.cards]
        time.sleep(0.2)
        ring.cards[0]._simulation._process.kill()
        for run in runs:
            with pytest.raises(CardError, match="process ended with status -9"):
                run.result(60)


def test_a_ring_is_opened_as_a_whole():
    with pytest.raises(ValueError, match="a ring of 2 cards must be opened as a whole"):
        RtlCard(TWO)
    with pytest.raises(ValueError, match="cut must name a card of a ring of 2, not card 2"):
        open_cards(TWO, link=LinkTiming(cut=(2, 0)))


@pytest.mark.slow
def test_a_failure_leaves_a_waveform_of_each_card_that_failed(opened, tmp_path):
    always = tmp_path / "always.vcd"
    ring = opened(trace=True, waves=str(always))
    ring.run({0: [HALT], 1: [HALT]})
    for card in (0, 1):
        assert "s_axis_next_tdata" in (tmp_path / f"always.card{card}.vcd").read_text()
    found = ring.run({0: NEVER, 1: [isa.encode("NOP"), 0xFE]})
    for card, stopped in enumerate(found):
        note, = stopped.__notes__
        path = pathlib.Path(note.removeprefix("waveform of the last cycles: "))
        assert path.name.endswith(f".card{card}.vcd")
        assert "m_axis_previous_tvalid" in path.read_text()
        path.unlink()
