# SPDX-License-Identifier: Apache-2.0
"""LOAD and STORE through real channels, scratchpad and scales."""

import dataclasses
import random
import subprocess

import pytest
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from cardsim.benches.channel_streams import words_to_beats
from rtl_gen.common import layouts
from rtl_gen.control.dispatch import Owner
from rtl_gen.emit import WAIVED, convert, write
from rtl_gen.memory import Channel, ConstantsArbiter, MemoryUnit
from rtl_gen.memory.turns import EPILOGUE, MEMORY, user
from rtl_gen.spec.config import SMALL, TINY
from rtl_gen.spec.isa import encode
from rtl_gen.vector import Scales, Scratchpad
from rtl_gen.vector.scales import K, V, cache_layout
from rtl_gen.vector.scratchpad import FROM_EPILOGUE, FROM_LOAD, STORE, read_port, write_layout
from tests.rtl.axi_memory import AxiMemory
from tests.rtl.bench import plain, put, simulate

CONFIG = dataclasses.replace(TINY, fifo_beats=16, aux_beats=16, scratch_words=128, kv_scales=128)
LANES, BEAT = CONFIG.channels, CONFIG.beat_bytes
#: The last word of the scratchpad and of the scales is not the program's.
ROOM = 127


class Setting(wiring.Component):
    """The memory unit among its neighbours; the epilogue is the bench."""

    def __init__(self):
        self.channels = [Channel(CONFIG) for _ in range(LANES)]
        self.unit = MemoryUnit(CONFIG)
        super().__init__({
            "stream": In(stream.Signature(layouts.stream_job(CONFIG))),
            "owner": In(stream.Signature(1)), "epilogue": In(user()),
            "read": In(read_port(CONFIG)),
            "write": In(stream.Signature(write_layout(CONFIG))),
            "cache": In(stream.Signature(cache_layout(CONFIG))),
            "job": In(stream.Signature(layouts.JOB)), "done": Out(layouts.DONE)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.arbiter = arbiter = ConstantsArbiter(CONFIG)
        m.submodules.unit = unit = self.unit
        m.submodules.scratchpad = scratchpad = Scratchpad(CONFIG)
        m.submodules.scales = scales = Scales(CONFIG)
        connect(m, flipped(self.owner), arbiter.owner)
        connect(m, flipped(self.epilogue), arbiter.users[EPILOGUE])
        connect(m, unit.constants, arbiter.users[MEMORY])
        connect(m, flipped(self.job), unit.job)
        connect(m, unit.write, scratchpad.write[FROM_LOAD])
        connect(m, flipped(self.write), scratchpad.write[FROM_EPILOGUE])
        connect(m, flipped(self.read), scratchpad.read[0])
        connect(m, unit.read, scratchpad.read[STORE])
        connect(m, unit.load, scales.load)
        connect(m, unit.row_read, scales.row_read)
        connect(m, scales.row, unit.row)
        connect(m, flipped(self.cache), scales.cache)
        m.d.comb += [self.done.eq(unit.done), self.stream.ready.eq(1)]
        for number, channel in enumerate(self.channels):
            m.submodules[f"channel_{number}"] = channel
            # The bench gives a job only when all channels can take it.
            m.d.comb += [
                channel.job.valid.eq(self.stream.valid),
                channel.job.payload.eq(self.stream.payload),
                arbiter.level[number].eq(channel.word_level),
                unit.words[number].eq(channel.words[0]),
                channel.word_take.eq(arbiter.take), channel.word_skip.eq(arbiter.skip)]
            connect(m, unit.beats[number], channel.write)
        return m


@dataclasses.dataclass
class Step:
    """An instruction and what it does."""

    name: str
    fields: dict[str, int]
    aux: int = 0
    #: Per channel.
    words: list[list[int]] = dataclasses.field(default_factory=list)


class Program:
    """Random instructions, the memory that they read, and what they leave behind."""

    def __init__(self, seed: str, steps: int):
        rng = random.Random(seed)
        self.read_size, self.write_size = 1500, 1500
        self.initial = [bytearray(rng.randbytes((self.read_size + self.write_size) * BEAT))
                        for _ in range(LANES)]
        self.scratch = [[0] * LANES for _ in range(CONFIG.scratch_words)]
        self.scales = [[0] * LANES for _ in range(CONFIG.kv_scales)]
        self.steps: list[Step] = []
        self.at, self.out = 0, self.read_size
        self.written: list[tuple[int, int, int]] = []      # (channel, beat, content)
        for number in range(steps):
            getattr(self, rng.choice(["load", "load", "store", "row", "constants"])
                    if number > 3 else "load")(rng, number)

    def _blocks(self, rng, sizes: list[int]) -> tuple[int, int, list[list[list[int]]]]:
        """New beats to be read: their address, their number, and words by block and channel."""
        blocks = [[[rng.getrandbits(32) for _ in range(size)] for _ in range(LANES)]
                  for size in sizes]
        start, count = self.at, 0
        for block in blocks:
            for lane, words in enumerate(block):
                beats = words_to_beats(words, BEAT)
                for k, beat in enumerate(beats):
                    at = (self.at + k) * BEAT
                    self.initial[lane][at:at + BEAT] = beat.to_bytes(BEAT, "little")
            self.at += len(beats)
            count += len(beats)
        self.at += rng.randrange(3)
        assert self.at < self.read_size
        return start, count, blocks

    def load(self, rng, number: int) -> None:
        target, rows = rng.randrange(2), rng.choice([0, 1, 1, 2, 5]) if number > 3 else 2
        words = rng.randrange(1, 20) if number > 3 else 30
        dst = rng.randrange(ROOM - rows * words + 1) if number > 3 else 60 * (
            number // 2)
        target = number % 2 if number < 4 else target
        address, aux, blocks = self._blocks(rng, [words] * rows)
        content = self.scales if target else self.scratch
        for row, block in enumerate(blocks):
            for w in range(words):
                content[dst + row * words + w] = [block[lane][w] for lane in range(LANES)]
        self.steps.append(Step("LOAD", {
            "address": address, "rows": rows, "words": words, "target": target, "dst": dst,
            "signal": number}, aux))

    def _write(self, lane: int, words: list[int]) -> None:
        for k, beat in enumerate(words_to_beats(words, BEAT)):
            self.written.append((lane, self.out + k, beat))

    def store(self, rng, number: int) -> None:
        words = rng.randrange(1, 20)
        src = rng.randrange(ROOM - words + 1)
        for lane in range(LANES):
            self._write(lane, [self.scratch[src + w][lane] for w in range(words)])
        self.steps.append(Step("STORE", {
            "address": self.out, "words": words, "src": src, "pos": rng.randrange(2048),
            "signal": number}))
        self.out += -(-words * 4 // BEAT) + rng.randrange(2)

    def row(self, rng, number: int) -> None:
        words, pos = rng.randrange(1, 12), rng.randrange(24)
        first = pos // LANES * words
        src = rng.randrange(ROOM - first - words + 1)
        self._write(pos % LANES, [self.scales[src + first + w][pos % LANES] for w in range(words)])
        self.steps.append(Step("STORE", {
            "address": self.out, "words": words, "source": 1, "src": src, "pos": pos,
            "signal": number}))
        self.out += -(-words * 4 // BEAT)

    def constants(self, rng, number: int) -> None:
        _, aux, blocks = address, _, _ = self._blocks(rng, [rng.randrange(1, 30)])
        self.steps.append(Step("CONSTANTS", {"address": address}, aux, blocks[0]))


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_loads_and_stores_among_constants(stall):
    seed = f"memory unit {stall}"
    program, dut = Program(seed, 30), Setting()
    assert {step.name for step in program.steps} == {"LOAD", "STORE", "CONSTANTS"}
    memories = [AxiMemory(channel.axi, beat_bytes=BEAT, content=bytearray(program.initial[lane]),
                          stall=stall, seed=f"{seed} {lane}")
                for lane, channel in enumerate(dut.channels)]
    signals: list[int] = []
    queued = [step for step in program.steps if step.name != "CONSTANTS"]

    async def dispatch(ctx):
        for memory, initial in zip(memories, program.initial, strict=True):
            memory.content[:] = initial
        for step in program.steps:
            if step.name == "STORE":
                continue
            while not all(ctx.get(channel.job.ready) for channel in dut.channels):
                await ctx.tick()
            await put(ctx, dut.stream, {
                "address": step.fields["address"], "aux": step.aux, "values": 0, "pattern": 0})
            for _ in range(4):
                await ctx.tick()

    async def owners(ctx):
        for step in program.steps:
            if step.aux:
                await put(ctx, dut.owner, MEMORY if step.name == "LOAD" else EPILOGUE)

    async def jobs(ctx):
        rng = random.Random(f"{seed} jobs")
        for step in queued:
            while rng.random() < stall:
                await ctx.tick()
            known = dict(step.fields)
            pos = known.pop("pos", 0)
            await put(ctx, dut.job, {
                "word": encode(step.name, **known), "rows": known.get("rows", 0),
                "address": known["address"], "pos": pos})

    async def epilogue(ctx):
        rng, port = random.Random(f"{seed} epilogue"), dut.epilogue
        for step in program.steps:
            if step.name != "CONSTANTS":
                continue
            done, size = 0, len(step.words[0])
            while done < size:
                level = ctx.get(port.level)
                take = min(level, size - done, rng.randint(0, 3) if stall else 3)
                for channel, words in zip(dut.channels, step.words, strict=True):
                    assert [ctx.get(channel.words[k]) for k in range(take)] == words[
                        done:done + take]
                done += take
                ctx.set(port.take, take)
                ctx.set(port.skip, done == size)
                ctx.set(port.release, done == size)
                await ctx.tick()
            ctx.set(port.take, 0)
            ctx.set(port.skip, 0)
            ctx.set(port.release, 0)

    async def disturb(ctx):
        """Others write before the unit may."""
        rng = random.Random(f"{seed} disturb")
        ctx.set(dut.write.p.addr, ROOM)
        ctx.set(dut.cache.p.addr, ROOM)
        while True:
            ctx.set(dut.write.valid, rng.random() < stall)
            ctx.set(dut.cache.valid, rng.random() < stall)
            await ctx.tick()

    async def check(ctx):
        while len(signals) < len(queued):
            if ctx.get(dut.done.valid):
                signals.append(ctx.get(dut.done.signal))
            await ctx.tick()
        assert signals == [step.fields["signal"] for step in queued]
        while any(ctx.get(channel.writing) for channel in dut.channels):
            await ctx.tick()
        wanted = [bytearray(initial) for initial in program.initial]
        for lane, beat, content in program.written:
            wanted[lane][beat * BEAT:(beat + 1) * BEAT] = content.to_bytes(BEAT, "little")
        assert [memory.content for memory in memories] == wanted
        for address, word in enumerate(program.scratch):
            ctx.set(dut.read.en, 1)
            ctx.set(dut.read.addr, address)
            await ctx.tick()
            if any(word):       # what nothing wrote is undefined
                assert plain(ctx.get(dut.read.data)) == word, f"scratchpad word {address}"
    simulate(dut, dispatch, owners, jobs, epilogue, check,
             monitors=[disturb, *(memory.bench for memory in memories)], timeout=30000, wave=seed)


def test_a_load_takes_a_word_a_cycle():
    dut = MemoryUnit(CONFIG)

    async def bench(ctx):
        ctx.set(dut.write.ready, 1)
        ctx.set(dut.constants.level, 3)
        await put(ctx, dut.job, {"word": encode("LOAD", words=20, dst=7), "rows": 2})
        cycles, skips = 0, []
        while not ctx.get(dut.done.valid):
            if ctx.get(dut.constants.skip):
                skips.append((cycles, ctx.get(dut.constants.release)))
            await ctx.tick()
            cycles += 1
        # `put` returns a cycle after the job was taken.
        assert cycles + 1 == 40 + MemoryUnit.LATENCY
        assert skips == [(19, 0), (39, 1)]
    simulate(dut, bench, timeout=200)


def test_users_of_constants_have_the_numbers_of_dispatch():
    assert (EPILOGUE, MEMORY) == (Owner.EPILOGUE, Owner.MEMORY)
    assert (K, V) == (0, 1)


@pytest.mark.parametrize("component", [Channel, MemoryUnit, ConstantsArbiter])
def test_verilog_is_clean(component, tmp_path):
    files = write(convert(component(SMALL), "unit"), tmp_path)
    subprocess.run(
        ["verilator", "--lint-only", "-Wall", "--top-module", "unit",
         *(f"-Wno-{name}" for name in WAIVED), *map(str, files)],
        check=True)
