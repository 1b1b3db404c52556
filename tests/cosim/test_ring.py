# SPDX-License-Identifier: Apache-2.0
"""Whole cards of a ring of two: messages, and what ends both when one of them ends."""

import numpy as np
import pytest

from cardsim.rtl import Timing, build
from cardsim.rtl.model import Model
from rtl_gen.spec import isa, registers
from rtl_gen.spec.link import Failure, State
from rtl_gen.spec.registers import COMMAND, FLAG_LOAD, LINK, NO_STOP, RING, STATUS, STOP, Error
from tests.cosim import ringcard

pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("ring")]

CONFIG = ringcard.CARD
BEAT, LANES = CONFIG.beat_bytes, CONFIG.vector_lanes
#: Beats in channel 0; words that a program loads and stores are in all channels.
RECORD, PROGRAM, STATUS_AT, DATA, STORED = 0x10, 0x100, 0x3800, 0x4000, 0x8000
WORDS = 40
HALT = isa.encode("HALT")
PREVIOUS, NEXT = range(2)


@pytest.fixture(scope="module")
def library():
    patch = pytest.MonkeyPatch()
    patch.setattr(build.emit, "card", ringcard.modules)
    yield build.library(ringcard.PINS, trace=False)
    patch.undo()


class Ring:
    """Both cards."""

    def __init__(self, library, **timing):
        self.model = Model(library, ringcard.PINS, Timing(**timing))
        self.session = 0

    def address(self, card, channel, beat):
        return (card * CONFIG.channels + channel) * CONFIG.channel_bytes + beat * BEAT

    def fault(self, kind):
        self.model.control_write(ringcard.FAULTS, kind)

    def run(self, programs, limit=300_000, cut=None, **values):
        """Run a program on each card; their status records."""
        self.session += 1
        for card, program in enumerate(programs):
            program = [*program, HALT]
            record = {
                "magic": registers.COMMAND_MAGIC, "flags": FLAG_LOAD, "program": PROGRAM,
                "instructions": len(program), "status": STATUS_AT,
                **{f"stop{k}": NO_STOP for k in range(4)},
                "ring": card << RING["card"] | self.session << RING["session"]} | values
            words = np.array([record.get(name, 0) for name in COMMAND], "<u4")
            self.model.memory_write(self.address(card, 0, RECORD), words.tobytes())
            self.model.memory_write(
                self.address(card, 0, PROGRAM),
                b"".join(word.to_bytes(isa.WORD_BYTES, "little") for word in program))
        self.model.start(RECORD * BEAT)
        if cut is not None:
            assert self.model.clock(cut) == "limit"
            self.fault(ringcard.CUT)
        assert self.model.clock(limit) == "done", self.model.violation
        self.model.acknowledge()
        assert not self.model.violation
        return [self.status(card) for card in range(ringcard.CARDS)]

    def status(self, card):
        data = self.model.memory_read(self.address(card, 0, STATUS_AT), 4 * len(STATUS))
        return dict(zip(STATUS, np.frombuffer(data, "<u4").tolist(), strict=True))

    def put(self, card, words, beat=DATA):
        """Words [count, lanes] for a LOAD."""
        for lane in range(LANES):
            self.model.memory_write(self.address(card, lane, beat),
                                    np.ascontiguousarray(words[:, lane]).tobytes())

    def get(self, card, count, beat=STORED):
        lanes = [np.frombuffer(self.model.memory_read(
            self.address(card, lane, beat), 4 * count), np.uint32) for lane in range(LANES)]
        return np.stack(lanes, axis=1)


def fields(word, layout):
    """The fields of a status word."""
    return {name: word >> place & (1 << bits) - 1 for name, (bits, place) in layout.items()}


def load(words=WORDS, dst=0, signal=0):
    return isa.encode("LOAD", address=DATA, rows=1, words=words, dst=dst, signal=signal)


def store(words, src, wait=0):
    return isa.encode("STORE", address=STORED, words=words, src=src, wait=wait)


def exchange(rng, ring, cards=(0, 1)):
    """A program in which the cards swap words both ways, and words that it must store."""
    data = [rng.integers(1 << 32, size=(WORDS, LANES), dtype=np.uint32) for _ in cards]
    for card in cards:
        ring.put(card, data[card])
    program = [
        load(signal=3),
        # Three tokens of ten words to both neighbours, then the rest to the previous one.
        isa.encode("SEND", wait=1, src=0, words=10, columns=3, stride=10, previous=1, next=1),
        isa.encode("SEND", wait=2, src=30, words=10, columns=1, previous=1, signal=32),
        isa.encode("RECEIVE", dst=100, words=30, columns=1, source=PREVIOUS, signal=4),
        isa.encode("RECEIVE", dst=130, words=15, columns=2, stride=15, source=NEXT, signal=8),
        isa.encode("RECEIVE", dst=160, words=5, columns=2, stride=7, source=NEXT, signal=16),
        store(72, 100, wait=4 | 8 | 16 | 32)]
    wanted = []
    for card in cards:
        other = data[1 - card]
        words = np.zeros((72, LANES), np.uint32)
        words[:30], words[30:60], words[60:65], words[67:72] = (
            other[:30], other[:30], other[30:35], other[35:40])
        wanted.append(words)
    return program, wanted


def check(ring, statuses, wanted):
    for card, (status, words) in enumerate(zip(statuses, wanted, strict=True)):
        assert status["error"] == Error.NONE
        got = ring.get(card, 72)
        got[65:67] = 0      # between tokens
        assert (got == words).all()
        link = fields(status["link"], LINK)
        assert link == {name: State.UP if name.endswith("state") else 0 for name in LINK}
        assert status["link_about"] == 0
        for end in ("previous", "next"):
            assert status[f"{end}_sent"] >= 3
            assert status[f"{end}_received"] >= 3
        assert 0 < status["idle_link_low"] <= status["stall_link_low"]
        assert status["stall_link_low"] <= status["stall_idle_low"] + status["stall_dependency_low"]


@pytest.mark.parametrize("stall", [0, 200])
def test_messages_arrive(library, stall):
    ring, rng = Ring(library, stall_permille=stall), np.random.default_rng(stall)
    for _ in range(3):
        program, wanted = exchange(rng, ring)
        check(ring, ring.run([program] * 2), wanted)


def test_errors_on_the_way_are_repaired(library):
    ring, rng = Ring(library), np.random.default_rng(77)
    ring.fault(ringcard.NOISE)
    bad = 0
    for _ in range(20):
        program, wanted = exchange(rng, ring)
        statuses = ring.run([program] * 2)
        check(ring, statuses, wanted)
        bad += sum(status[f"{end}_bad"] for status in statuses for end in ("previous", "next"))
    assert bad


@pytest.mark.parametrize("words", [4, 6])
@pytest.mark.parametrize("side", [PREVIOUS, NEXT])
def test_a_message_of_another_length_stops_the_ring(library, words, side):
    ring, rng = Ring(library), np.random.default_rng(3)
    send = isa.encode("SEND", src=0, words=words, columns=1, previous=int(side == NEXT),
                      next=int(side == PREVIOUS))
    receive = isa.encode("RECEIVE", dst=0, words=5, columns=1, source=side)
    never = isa.encode("RECEIVE", dst=0, words=5, columns=1, source=PREVIOUS)
    first, second = ring.run([[send, never], [receive]])
    about = {"card": 1, "error": Error.LINK, "failure": Failure.MESSAGE, "side": side}
    for status in (first, second):
        assert status["error"] == Error.LINK
        assert fields(status["link_about"], STOP) == about
    end = ("previous", "next")[side]
    link = fields(second["link"], LINK)
    assert (link[f"{end}_failure"], link[f"{end}_state"], link["first"]) == (
        Failure.MESSAGE, State.FAILED, side)
    assert second["pc"] == 0
    link = fields(first["link"], LINK)
    assert Failure.STOPPED in (link["previous_failure"], link["next_failure"])
    assert first["pc"] == 1
    # Both begin anew.
    program, wanted = exchange(rng, ring)
    check(ring, ring.run([program] * 2), wanted)


@pytest.mark.parametrize(("bad", "error"), [
    (isa.encode("RECEIVE", words=1), Error.ILLEGAL_OPERAND), (0xFE, Error.ILLEGAL_OPCODE),
    (isa.encode("RECEIVE", words=1, columns=1, wait=1), Error.WATCHDOG)])
def test_an_error_of_one_card_stops_the_other(library, bad, error):
    ring = Ring(library)
    never = isa.encode("RECEIVE", dst=0, words=5, columns=1, source=NEXT)
    first, second = ring.run([[never], [isa.encode("NOP"), bad]])
    assert (second["error"], second["pc"]) == (error, 1)
    about = {"card": 1, "error": error, "failure": 0, "side": 0}
    assert fields(second["link_about"], STOP) == about
    assert (first["error"], first["pc"]) == (Error.LINK, 0)
    assert fields(first["link_about"], STOP) == about


def test_a_cut_ends_both(library):
    ring, rng = Ring(library), np.random.default_rng(4)
    never = [isa.encode("RECEIVE", dst=0, words=5, columns=1, source=PREVIOUS)]
    statuses = ring.run([never, never], cut=2000)
    for card, status in enumerate(statuses):
        assert status["error"] == Error.LINK
        assert status["cycles_low"] < 2000 + 4096 + 500
        link = fields(status["link"], LINK)
        side = ("next", "previous")[card]
        assert (link[f"{side}_failure"], link[f"{side}_state"]) == (Failure.SILENT, State.FAILED)
        assert link["first"] == (card == 0)
        about = fields(status["link_about"], STOP)
        assert about == {"card": card, "error": Error.LINK, "failure": Failure.SILENT,
                         "side": 1 - card}
    ring.fault(0)
    program, wanted = exchange(rng, ring)
    check(ring, ring.run([program] * 2), wanted)


def test_a_message_that_nobody_sends_is_the_watchdogs(library):
    ring = Ring(library)
    never = [isa.encode("RECEIVE", dst=0, words=5, columns=1, source=PREVIOUS)]
    statuses = ring.run([never, never], watchdog=5000)
    assert {status["error"] for status in statuses} <= {Error.WATCHDOG, Error.LINK}
    assert statuses[0]["pc"] == 0
