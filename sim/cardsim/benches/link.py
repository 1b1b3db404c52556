# SPDX-License-Identifier: Apache-2.0
"""One end of a link; the bench is the neighbour, and loses and corrupts frames both ways."""

import random
import zlib
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge

from rtl_gen.spec.link import CRC_BITS, TRAILER, Failure, Kind, State
from rtl_gen.spec.registers import STOP, Error

from .run import parameters
from .streams import Payload, collect, compare, drive, pack, reset

#: Who the two are: session, contract, configuration, card, cards, neighbour, on which side that is.
IDENTITY = (("session", 8), ("contract", 32), ("configuration", 32), ("card", 8), ("cards", 8),
            ("neighbour", 8), ("side", 1))
UNIT = {"session": 9, "contract": 0x01234567, "configuration": 0x89ABCDEF, "card": 1, "cards": 4,
        "neighbour": 2, "side": 1}
BENCH = UNIT | {"card": 2, "neighbour": 1, "side": 0}
#: Cycles in which the bench hears nothing new before it sends again.
PATIENCE = 300


def hello(who: dict[str, int], *, seen: int) -> dict[str, int]:
    """What a neighbour says at first."""
    return {"kind": Kind.HELLO, "seen": seen, "session": who["session"],
            "seq": who["contract"] & 0xFFFF, "ack": who["contract"] >> 16,
            "limit": who["card"] | who["cards"] << 8, "about": who["configuration"]}


def sealed(payload: list[int], fields: dict[str, int], size: int) -> list[int]:
    """Beats of a frame."""
    trailer = pack([(fields.get(name, 0), bits) for name, bits in TRAILER])
    return [*payload, trailer | crc([*payload, trailer], size) << 8 * size - CRC_BITS]


def crc(beats: list[int], size: int) -> int:
    """That of a frame whose CRC is still zero."""
    return zlib.crc32(b"".join(beat.to_bytes(size, "little") for beat in beats))


def opened(frame: list[int], size: int) -> dict[str, int]:
    """Fields of a frame's trailer; its CRC must be right, and all other bits zero."""
    word = frame[-1]
    plain = word & (1 << 8 * size - CRC_BITS) - 1
    assert word >> 8 * size - CRC_BITS == crc([*frame[:-1], plain], size), "the CRC is wrong"
    fields = {}
    for name, bits in TRAILER:
        fields[name] = plain & (1 << bits) - 1
        plain >>= bits
    assert plain == fields["reserved"] == 0, "bits that mean nothing must be zero"
    return fields


class Neighbour:
    """The other end, written apart from the unit: it keeps whole frames in lists.

    Parameters
    ----------
    dut : handle
    messages : list of (data, last)
        Beats to send.
    faults : float
        Chance that a frame is lost or spoilt.
    """

    def __init__(self, dut: Any, who: dict[str, int], messages: list[Payload], faults: float,
                 seed: str, room: int = 40) -> None:
        self.dut, self.who, self.unit = dut, who, UNIT
        self.faults, self.rng = faults, random.Random(seed)
        self.size, self.most = parameters()["beat_bytes"], parameters()["frame_beats"]
        self.frames = self._cut(messages)
        self.at = self.acked = self.limit = 0
        self.expected = self.room = 0
        self.spare = room
        self.got: list[Payload] = []
        self.heard = self.seen = self.owes = False
        self.last_frame: dict[str, int] = {}
        self.quiet = False

    def _cut(self, messages: list[Payload]) -> list[tuple[int, list[int], int]]:
        """(number of the first beat, beats, whether a message ends) of every frame."""
        frames: list[tuple[int, list[int], int]] = []
        payload: list[int] = []
        for number, (word, last) in enumerate(messages):
            payload.append(word)
            if last or len(payload) == self.rng.randint(1, self.most) \
                    or len(payload) == self.most:
                frames.append((number + 1 - len(payload), payload, last))
                payload = []
        return frames

    async def listen(self, hold: float) -> None:
        """Take what the unit sends, frame by frame."""
        dut, frame = self.dut, []
        while True:
            dut.m_axis_tx_tready.value = int(self.rng.random() >= hold)
            await RisingEdge(dut.aclk)
            if dut.m_axis_tx_tvalid.value and dut.m_axis_tx_tready.value:
                frame.append(int(dut.m_axis_tx_tdata.value))
                if dut.m_axis_tx_tlast.value:
                    fields = opened(frame, self.size)
                    assert len(frame) <= self.most + 1
                    if self.rng.random() >= self.faults:
                        self._take(fields, frame[:-1])
                    frame = []

    def _take(self, fields: dict[str, int], payload: list[int]) -> None:
        self.last_frame = fields
        if fields["session"] == self.who["session"] - 1:
            return      # it was under way when the next session began
        assert fields["session"] == self.who["session"]
        if fields["kind"] == Kind.HELLO:
            said = hello(self.unit, seen=fields["seen"])
            assert fields == {name: 0 for name, _ in TRAILER} | said
            self.heard, self.seen = True, self.seen or bool(fields["seen"])
        elif fields["kind"] == Kind.DATA:
            assert self.heard, "payload before a hello came through"
            self.seen = True
            self._answered(fields)
            if payload and fields["seq"] == self.expected & 0xFFFF:
                # The unit may send no more than there is room for.
                assert self.expected + len(payload) <= self.room
                self.got += [(word, int(fields["last"] and k == len(payload) - 1))
                             for k, word in enumerate(payload)]
                self.expected += len(payload)
            self.owes = self.owes or bool(payload)

    def _answered(self, fields: dict[str, int]) -> None:
        ends = [first + len(payload) for first, payload, _ in self.frames]
        while self.acked < len(ends) and ends[self.acked] <= fields["ack"]:
            self.acked += 1
        self.at = max(self.at, self.acked)
        if fields["nak"]:
            self.at = self.acked
        self.limit = fields["limit"]

    async def talk(self) -> None:
        """Say hello, send frames, repeat what is not acknowledged, say what has come."""
        rng, still, before = self.rng, 0, 0
        while True:
            up = self.heard and self.seen
            if self.quiet:
                await RisingEdge(self.dut.aclk)
                continue
            still = 0 if self.acked != before else still + 1
            before = self.acked
            if still > PATIENCE:
                self.at, still = self.acked, 0
            fields, payload = hello(self.who, seen=int(self.heard)), []
            if up:
                self.room = self.expected + self.spare
                fields = {"kind": Kind.DATA, "session": self.who["session"], "seen": 1,
                          "ack": self.expected, "limit": self.room,
                          "nak": int(rng.random() < self.faults)}
                if self.at < len(self.frames):
                    first, beats, last = self.frames[self.at]
                    if first + len(beats) <= self.limit:
                        fields |= {"seq": first, "last": last}
                        payload, self.at = beats, self.at + 1
            await self.put(sealed(payload, fields, self.size))
            for _ in range(0 if payload and rng.random() < 0.7 else rng.randrange(20)):
                await RisingEdge(self.dut.aclk)

    async def put(self, frame: list[int]) -> None:
        """Send the beats of a frame, or of what is left of it."""
        rng, dut = self.rng, self.dut
        if rng.random() < self.faults:
            k = rng.randrange(len(frame))
            match rng.randrange(3):
                case 0:
                    frame = [beat ^ (1 << rng.randrange(8 * self.size)) * (index == k)
                             for index, beat in enumerate(frame)]
                case 1:
                    frame = frame[:k] + frame[k + 1:]
                case _:
                    frame = []
        for index, beat in enumerate(frame):
            dut.s_axis_rx_tdata.value = beat
            dut.s_axis_rx_tlast.value = int(index == len(frame) - 1)
            dut.s_axis_rx_tvalid.value = 1
            await RisingEdge(dut.aclk)
            assert dut.s_axis_rx_tready.value, "the unit must never hold up the link"
        dut.s_axis_rx_tvalid.value = 0


def random_messages(rng: random.Random, count: int, size: int) -> list[Payload]:
    """Beats of some messages."""
    beats: list[Payload] = []
    for _ in range(count):
        length = rng.choice([1, 1, 2, 3, 5, 8, 9, 20])
        beats += [(rng.getrandbits(8 * size), int(k == length - 1)) for k in range(length)]
    return beats


async def begin(dut: Any, **changes: int) -> None:
    """Start a session."""
    dut.me.value = pack([((UNIT | changes)[name], bits) for name, bits in IDENTITY])
    dut.start.value = 1
    await RisingEdge(dut.aclk)
    dut.start.value = 0


async def meet(dut: Any, neighbour: Neighbour, hold: float = 0.0) -> Neighbour:
    """Reset the unit, let the neighbour act, and start a session."""
    for name in ("start", "stop", "me"):
        getattr(dut, name).value = 0
    await reset(dut)
    cocotb.start_soon(neighbour.listen(hold))
    cocotb.start_soon(neighbour.talk())
    await begin(dut)
    return neighbour


async def until(dut: Any, state: State, limit: int) -> int:
    """Cycles until the link is in a state."""
    for cycle in range(limit):
        await RisingEdge(dut.aclk)
        if int(dut.state.value) == state:
            return cycle
    raise AssertionError(f"state {state.name} not reached in {limit} cycles")


@cocotb.test(timeout_time=4, timeout_unit="ms")
@cocotb.parametrize((("faults", "stall", "hold"), [
    (0.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.1, 0.0, 0.0), (0.2, 0.3, 0.6), (0.05, 0.0, 0.9)]))
async def messages_arrive(dut: Any, faults: float, stall: float, hold: float) -> None:
    seed = f"link {faults} {stall} {hold}"
    rng, size = random.Random(seed), parameters()["beat_bytes"]
    out, back = (random_messages(rng, 80, size) for _ in range(2))
    neighbour = await meet(dut, Neighbour(dut, BENCH, back, faults, seed), hold / 2)
    cocotb.start_soon(drive(dut, "s_axis_i", out, stall, seed))
    compare(await collect(dut, "m_axis_o", len(back), hold, seed), back)
    for _ in range(100_000):
        await RisingEdge(dut.aclk)
        if dut.idle.value and len(neighbour.got) == len(out):
            break
    compare(neighbour.got, out)


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize((("field", "failure"), [
    ("contract", Failure.CONTRACT), ("configuration", Failure.CONFIGURATION),
    ("card", Failure.NEIGHBOUR), ("cards", Failure.NEIGHBOUR)]))
async def another_neighbour_is_refused(dut: Any, field: str, failure: Failure) -> None:
    neighbour = await meet(dut, Neighbour(
        dut, BENCH | {field: BENCH[field] ^ 1}, [], 0.0, field))
    await until(dut, State.FAILED, 1000)
    assert int(dut.failure.value) == failure
    for _ in range(50):
        await RisingEdge(dut.aclk)
    assert neighbour.last_frame["kind"] == Kind.STOP
    said = {"card": UNIT["card"], "error": Error.LINK, "failure": failure, "side": UNIT["side"]}
    assert neighbour.last_frame["about"] == sum(said[name] << at for name, (_, at) in STOP.items())


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def silence_and_stops_end_the_session_and_the_next_one_works(dut: Any) -> None:
    neighbour = await meet(dut, Neighbour(dut, BENCH, [], 0.0, "silence"))
    await until(dut, State.UP, 1000)
    for _ in range(2 * parameters()["silence"]):
        await RisingEdge(dut.aclk)
        assert int(dut.state.value) == State.UP
    neighbour.quiet = True
    await until(dut, State.FAILED, parameters()["silence"] + 50)
    assert int(dut.failure.value) == Failure.SILENT

    # Another session: frames of the last one mean nothing; then somebody says stop.
    neighbour.heard = neighbour.seen = False
    neighbour.who, neighbour.unit = BENCH | {"session": 10}, UNIT | {"session": 10}
    await begin(dut, session=10)
    for _ in range(3):
        await neighbour.put(sealed([], hello(BENCH, seen=1), neighbour.size))
        await neighbour.put(sealed([], {"kind": Kind.STOP, "session": 9}, neighbour.size))
    assert int(dut.state.value) == State.GREETING
    neighbour.quiet = False
    await until(dut, State.UP, 1000)
    # The hello of the next session: the neighbour has all it wanted.
    dut.s_axis_i_tdata.value, dut.s_axis_i_tlast.value, dut.s_axis_i_tvalid.value = 1, 1, 1
    await RisingEdge(dut.aclk)
    dut.s_axis_i_tvalid.value = 0
    neighbour.quiet = True
    for _ in range(60):
        await RisingEdge(dut.aclk)
    await neighbour.put(sealed([], hello(BENCH | {"session": 11}, seen=0), neighbour.size))
    for _ in range(5):
        await RisingEdge(dut.aclk)
    assert dut.idle.value
    await neighbour.put(sealed(
        [], {"kind": Kind.STOP, "session": 10, "about": 0xCAFE}, neighbour.size))
    await until(dut, State.FAILED, 10)
    assert int(dut.failure.value) == Failure.STOPPED
    assert int(dut.about.value) == 0xCAFE


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def a_card_that_stops_says_so(dut: Any) -> None:
    neighbour = await meet(dut, Neighbour(dut, BENCH, [], 0.0, "stop"))
    await until(dut, State.UP, 1000)
    dut.stop.value = 1 | 0x1234 << 1
    for _ in range(30):
        await RisingEdge(dut.aclk)
    assert neighbour.last_frame["kind"] == Kind.STOP
    assert neighbour.last_frame["about"] == 0x1234
