# SPDX-License-Identifier: Apache-2.0
"""Requests on the serial line: what whole ones do, and that spoilt ones do nothing."""

import random
import zlib

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from rtl_gen.boards.frames import Frames
from rtl_gen.boards.host import RESET, Host
from rtl_gen.spec import serial
from rtl_gen.spec.serial import Code, Kind
from tests.rtl.bench import simulate

BEAT, BITS, GAP = 16, 8, 200
MEMORY = BEAT << BITS
HELLO = (1, BEAT, MEMORY, 25_000_000, 8)
#: Cycles between two bytes: fewer than any line needs.
BYTE = 20
#: A register that refuses everything.
WRONG = 0x44


class Bridge(wiring.Component):
    """Frames and what carries them out."""

    def __init__(self) -> None:
        self.frames = Frames(gap=GAP)
        self.host = Host(beat_bytes=BEAT, address_bits=BITS, hello=HELLO)
        mine, theirs = self.host.signature.members, self.frames.signature.members
        super().__init__({"bytes": theirs["bytes"], "line": theirs["line"], **{
            name: mine[name] for name in ("memory", "came", "registers", "reset", "reading")}})

    def elaborate(self, platform):
        m = Module()
        m.submodules.frames, m.submodules.host = frames, host = self.frames, self.host
        connect(m, frames.line, flipped(self.line))
        connect(m, host.memory, flipped(self.memory))
        connect(m, host.registers, flipped(self.registers))
        m.d.comb += [frames.bytes.eq(self.bytes), host.came.eq(self.came),
                     host.reading.eq(self.reading), self.reset.eq(host.reset)]
        for name in ("request", "asks", "read_data"):
            m.d.comb += getattr(host, name).eq(getattr(frames, name))
        for name in ("done", "code", "size", "read_addr", "write_en", "write_addr", "write_data"):
            m.d.comb += getattr(frames, name).eq(getattr(host, name))
        return m


class World:
    """A bridge, the memory and the registers behind it, and the host in front of it."""

    def __init__(self, seed: str) -> None:
        self.dut, self.seed = Bridge(), seed
        self.memory, self.registers = bytearray(MEMORY), {}
        self.sets, self.resets = 0, 0
        self.reading = 0

    async def serve_memory(self, ctx):
        rng, dut = random.Random(f"{self.seed} memory"), self.dut
        while True:
            ctx.set(dut.memory.ready, rng.random() < 0.3)
            ctx.set(dut.reading, self.reading)
            _, _, valid, ready, beat, reset = await ctx.tick().sample(
                dut.memory.valid, dut.memory.ready, dut.memory.p, dut.reset)
            self.resets += reset
            if valid and ready:
                place = slice(beat.address * BEAT, (beat.address + 1) * BEAT)
                if beat.write:
                    self.memory[place] = beat.data.to_bytes(BEAT, "little")
                    continue
                ctx.set(dut.memory.ready, 0)
                for _ in range(rng.randrange(1, 20)):
                    await ctx.tick()
                ctx.set(dut.came, {"valid": 1,
                                   "data": int.from_bytes(self.memory[place], "little")})
                await ctx.tick()
                ctx.set(dut.came, {"valid": 0, "data": 0})

    async def serve_registers(self, ctx):
        rng, bus = random.Random(f"{self.seed} registers"), self.dut.registers

        async def soon(signal):
            for _ in range(rng.randrange(5)):
                await ctx.tick()
            ctx.set(signal, 1)
            await ctx.tick()
            ctx.set(signal, 0)

        while True:
            *_, write, read, to, data, at = await ctx.tick().sample(
                bus.awvalid, bus.arvalid, bus.awaddr, bus.wdata, bus.araddr)
            if write:
                for signal in rng.sample((bus.awready, bus.wready), 2):
                    await soon(signal)
                ctx.set(bus.bresp, 2 * (to == WRONG))
                await soon(bus.bvalid)
                if to != WRONG:
                    self.registers[to] = data
                self.sets += 1
            elif read:
                await soon(bus.arready)
                ctx.set(bus.rdata, self.registers.get(at, 0))
                ctx.set(bus.rresp, 2 * (at == WRONG))
                await soon(bus.rvalid)

    async def send(self, ctx, data: bytes, *, error_at: int = -1):
        for number, byte in enumerate(data):
            ctx.set(self.dut.bytes, {"valid": 1, "byte": byte, "error": number == error_at})
            await ctx.tick()
            ctx.set(self.dut.bytes, {"valid": 0, "byte": 0, "error": 0})
            for _ in range(BYTE - 1):
                await ctx.tick()

    async def take(self, ctx, count: int) -> bytes:
        found = bytearray()
        ctx.set(self.dut.line.ready, 1)
        while len(found) < count:
            byte, = await ctx.tick().sample(self.dut.line.payload).until(self.dut.line.valid)
            found.append(byte)
        ctx.set(self.dut.line.ready, 0)
        return bytes(found)

    async def answer(self, ctx) -> tuple[int, int, bytes]:
        """Code, number and payload of the next answer, which is whole."""
        header = await self.take(ctx, serial.ANSWER_BYTES)
        assert header[0] == serial.ANSWER_MAGIC
        size = int.from_bytes(header[3:5], "little")
        rest = await self.take(ctx, size + serial.CRC_BYTES)
        assert zlib.crc32(header + rest[:-4]) == int.from_bytes(rest[-4:], "little")
        for _ in range(BYTE):       # which the last byte takes on the line
            await ctx.tick()
        return header[1], header[2], rest[:-4]

    async def ask(self, ctx, kind, number, size, address, payload=b""):
        await self.send(ctx, serial.request(kind, number, size, address, payload))
        code, echoed, found = await self.answer(ctx)
        assert echoed == number
        return code, found

    def run(self, bench, *, timeout=400_000):
        async def main(ctx):
            await bench(ctx, self)
        simulate(self.dut, main, monitors=(self.serve_memory, self.serve_registers),
                 timeout=timeout, wave="board_host")


def test_memory_and_registers_through_the_line():
    rng = random.Random("through the line")

    async def bench(ctx, world):
        expected, registers = bytearray(MEMORY), {}
        for number in range(40):
            size = BEAT * rng.choice((1, 2, 5))
            address = BEAT * rng.randrange((MEMORY - size) // BEAT + 1)
            place = slice(address, address + size)
            if rng.random() < 0.5:
                expected[place] = rng.randbytes(size)
                assert await world.ask(ctx, Kind.WRITE, number, size, address,
                                       bytes(expected[place])) == (Code.DONE, b"")
            else:
                assert await world.ask(ctx, Kind.READ, number, size, address) == (
                    Code.DONE, bytes(expected[place]))
            first, count = 4 * rng.randrange(100, 200), rng.randrange(1, 6)
            words = [rng.getrandbits(32) for _ in range(count)]
            data = b"".join(word.to_bytes(4, "little") for word in words)
            assert await world.ask(ctx, Kind.SET, number, 4 * count, first, data) == (
                Code.DONE, b"")
            registers |= {first + 4 * k: word for k, word in enumerate(words)}
            assert await world.ask(ctx, Kind.GET, 255 - number, 4 * count, first) == (
                Code.DONE, data)
        assert (world.memory, world.registers) == (expected, registers)
        code, words = await world.ask(ctx, Kind.HELLO, 7, 20, 0)
        assert (code, words) == (Code.DONE, b"".join(w.to_bytes(4, "little") for w in HELLO))

    World("through").run(bench)


def test_the_longest_payload_goes_both_ways():
    data = random.Random("long").randbytes(serial.LONGEST)

    async def bench(ctx, world):
        assert await world.ask(ctx, Kind.WRITE, 1, len(data), BEAT, data) == (Code.DONE, b"")
        assert await world.ask(ctx, Kind.READ, 2, len(data), BEAT) == (Code.DONE, data)
        assert world.memory[BEAT:BEAT + len(data)] == data

    World("long").run(bench)


@pytest.mark.parametrize(("kind", "size", "address", "code"), [
    (0, 0, 0, Code.KIND), (7, 16, 0, Code.KIND),
    (Kind.READ, 0, 0, Code.SIZE), (Kind.READ, 8, 0, Code.SIZE),
    (Kind.READ, serial.LONGEST + BEAT, 0, Code.SIZE), (Kind.WRITE, 24, 0, Code.SIZE),
    (Kind.READ, 16, 8, Code.ADDRESS), (Kind.READ, 16, MEMORY, Code.ADDRESS),
    (Kind.WRITE, 32, MEMORY - 16, Code.ADDRESS), (Kind.READ, 16, 0xFFFFFFF0, Code.ADDRESS),
    (Kind.GET, 2, 0, Code.SIZE), (Kind.GET, 4, 2, Code.ADDRESS), (Kind.GET, 8, 4092, Code.ADDRESS),
    (Kind.SET, 4, 4096, Code.ADDRESS), (Kind.HELLO, 16, 0, Code.SIZE),
    (Kind.RESET, 4, 0, Code.SIZE),
    (Kind.GET, 12, WRONG - 4, Code.REFUSED), (Kind.SET, 12, WRONG - 4, Code.REFUSED),
])
def test_what_makes_no_sense_is_refused_by_its_code(kind, size, address, code):
    async def bench(ctx, world):
        payload = bytes(size) if kind in (Kind.WRITE, Kind.SET) else b""
        assert await world.ask(ctx, kind, 9, size, address, payload) == (code, b"")
        assert await world.ask(ctx, Kind.HELLO, 10, 20, 0) != (code, b"")
        assert not any(world.memory)
        # Of several registers those before the wrong one are written.
        assert world.registers == ({WRONG - 4: 0} if (kind, code) == (Kind.SET, Code.REFUSED)
                                   else {})

    World("nonsense").run(bench)


def spoilt(rng: random.Random, frame: bytes) -> bytes:
    """A frame with bytes changed, lost, doubled or between, or cut off."""
    place = rng.randrange(len(frame))
    match rng.randrange(5):
        case 0:
            changed = bytearray(frame)
            changed[place] ^= 1 << rng.randrange(8)
            return bytes(changed)
        case 1:
            return frame[:place] + frame[place + 1:]
        case 2:
            return frame[:place] + frame[place:place + 1] * 2 + frame[place + 1:]
        case 3:
            return frame[:max(1, place)]
        case _:
            return rng.randbytes(rng.randrange(1, 40))


@pytest.mark.parametrize("seed", range(3))
def test_spoilt_frames_do_nothing_and_are_answered_with_fault(seed):
    rng = random.Random(f"spoilt {seed}")

    async def bench(ctx, world):
        for number in range(25):
            size = BEAT * rng.choice((1, 3))
            kind, address = rng.choice(((Kind.WRITE, BEAT), (Kind.SET, 64)))
            frame = serial.request(kind, number, size, address, rng.randbytes(size))
            bad = spoilt(rng, frame)
            if bad == frame:    # a byte doubled beside its like, and one lost
                continue
            at = rng.randrange(len(bad)) if rng.random() < 0.2 else -1
            await world.send(ctx, bad, error_at=at)
            code, _, found = await world.answer(ctx)
            assert (code, found) == (Code.FAULT, b"")
            assert not any(world.memory)
            assert not world.registers
            # The next one is understood at once.
            assert await world.ask(ctx, Kind.READ, number, BEAT, 0) == (Code.DONE, bytes(BEAT))

    World(f"spoilt {seed}").run(bench, timeout=1_000_000)


def test_a_framing_error_in_a_whole_frame_is_a_fault():
    frame = serial.request(Kind.WRITE, 1, BEAT, 0, bytes(range(BEAT)))

    async def bench(ctx, world):
        for place in (0, 1, 12, len(frame) - 1):
            await world.send(ctx, frame, error_at=place)
            assert (await world.answer(ctx))[0] == Code.FAULT
        assert not any(world.memory)

    World("framing").run(bench)


def test_what_comes_while_the_board_answers_is_not_taken_for_a_request():
    async def bench(ctx, world):
        await world.send(ctx, serial.request(Kind.READ, 1, 64, 0))
        await world.send(ctx, serial.request(Kind.WRITE, 2, BEAT, 0, b"\xff" * BEAT))
        assert (await world.answer(ctx))[:2] == (Code.DONE, 1)
        assert (await world.answer(ctx))[0] == Code.FAULT
        assert not any(world.memory)
        assert (await world.ask(ctx, Kind.READ, 3, BEAT, 0))[0] == Code.DONE

    World("while").run(bench)


def test_a_set_that_is_sent_again_is_carried_out_once():
    async def bench(ctx, world):
        for _ in range(3):
            assert await world.ask(ctx, Kind.SET, 5, 4, 0, b"\1\0\0\0") == (Code.DONE, b"")
        assert world.sets == 1
        await world.ask(ctx, Kind.SET, 6, 4, WRONG, bytes(4))
        assert await world.ask(ctx, Kind.SET, 6, 4, WRONG, bytes(4)) == (Code.REFUSED, b"")
        assert world.sets == 2
        await world.ask(ctx, Kind.SET, 5, 4, 0, bytes(4))
        assert world.sets == 3
        # After HELLO numbers begin anew.
        await world.ask(ctx, Kind.HELLO, 0, 20, 0)
        await world.ask(ctx, Kind.SET, 5, 4, 0, bytes(4))
        assert world.sets == 4

    World("again").run(bench)


def test_a_reset_lasts_until_no_beat_is_under_way():
    async def bench(ctx, world):
        assert await world.ask(ctx, Kind.RESET, 1, 0, 0) == (Code.DONE, b"")
        assert RESET <= world.resets <= RESET + 4
        world.reading = 1
        await world.send(ctx, serial.request(Kind.RESET, 2, 0, 0))
        for _ in range(500):
            await ctx.tick()
        assert ctx.get(world.dut.reset)
        world.reading = 0
        assert (await world.answer(ctx))[:2] == (Code.DONE, 2)
        assert not ctx.get(world.dut.reset)

    World("reset").run(bench)


def test_the_signature_of_a_register_port_is_that_of_the_card():
    assert Bridge().registers.araddr.shape().width == 12


