# SPDX-License-Identifier: Apache-2.0
"""A memory channel between an AXI4 memory of somebody else and what takes its entries and words."""

import logging
import random
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge
from cocotbext.axi import AxiBus, AxiRam

from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.formats import PATTERNS

from .axi import hold_back, watch_requests
from .channel_streams import Stream, make_stream, place
from .instructions import config
from .streams import CASES, STALLS, drive, pack, reset, transfers, watch

#: Beats of the part that is read; as many are written.
ROOM = 4096
#: Beats of the memory; it sees the low bits of addresses only.
MEMORY = 4 * ROOM


def anywhere(rng: random.Random, beat_bytes: int) -> int:
    """Byte address for a channel's memory to begin at."""
    return (rng.getrandbits(43) * MEMORY + rng.randrange(MEMORY - 2 * ROOM)) * beat_bytes


def far(rng: random.Random, address: int) -> int:
    """A beat address at which the memory has the same beat."""
    return rng.randrange(2**32 // MEMORY) * MEMORY + address


async def start(dut: Any, card: CardConfig, base: int, content: bytes, stall: float) -> AxiRam:
    """Memory with ``content`` from ``base`` on, reset, and all that watches the port."""
    logging.getLogger(f"cocotb.{dut._name}.m_axi").setLevel(logging.WARNING)
    for name in ("take", "word_take", "word_skip", "drain", "flush"):
        getattr(dut, name).value = 0
    dut.base.value = base
    memory = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.aclk, dut.aresetn,
                    reset_active_level=False, size=MEMORY * card.beat_bytes)
    memory.write(base % memory.size, content)
    hold_back(memory, stall)
    await reset(dut)
    watch_requests(dut, card.beat_bytes)
    return memory


def number(rng: random.Random, most: int, stall: float) -> int:
    """How many of ``most`` are taken in this cycle."""
    return most if not stall else 0 if rng.random() < stall else rng.randint(0, most)


async def take_entries(dut: Any, streams: list[Stream], width: int, stall: float,
                       seed: str) -> None:
    """Take all entries, none to two a cycle, and compare them."""
    rng, done = random.Random(seed), 0
    wanted = [(one.pattern.name, *entry) for one in streams for entry in one.entries]
    while done < len(wanted):
        # Half a cycle after the edge that changes them, and before the one that takes them.
        await FallingEdge(dut.aclk)
        there = int(dut.some.value).bit_count()
        assert there <= len(wanted) - done, "more entries than there are"
        taken = number(rng, there, stall)
        ports = [dut.entries__0, dut.entries__1]
        if dut.swap.value:
            ports.reverse()
        for port in ports[:taken]:
            name, weights, index = wanted[done]
            bits = int(port.value)
            found = [(bits >> 8 * slot & 255 ^ 128) - 128 for slot in range(width)]
            assert found == weights, f"entry {done}, {name}: weights must be {weights}, not {found}"
            found = [bits >> 8 * width + 4 * slot & 15 for slot in range(width)]
            assert all(one in (None, place) for one, place in zip(index, found, strict=True)), \
                f"entry {done}, {name}: indices must be {index}, not {found}"
            done += 1
        dut.take.value = taken
    await FallingEdge(dut.aclk)
    dut.take.value = 0


async def take_words(dut: Any, streams: list[Stream], stall: float, seed: str) -> None:
    """Take all words, none to three a cycle, and skip what follows each block in its beat."""
    rng = random.Random(seed)
    for block in [block for one in streams for block in one.blocks]:
        done, skip = 0, False
        while not skip:
            await FallingEdge(dut.aclk)
            taken = number(rng, min(int(dut.word_level.value), len(block) - done), stall)
            bits = int(dut.words.value)
            found = [bits >> 32 * k & 0xFFFFFFFF for k in range(taken)]
            assert found == block[done:done + taken], f"words {done} of a block: {found}"
            done += taken
            # The end may be known with the last word or only later.
            skip = done == len(block) and rng.random() >= stall / 2
            dut.word_take.value, dut.word_skip.value = taken, int(skip)
    await FallingEdge(dut.aclk)
    dut.word_take.value = dut.word_skip.value = 0


def jobs(rng: random.Random, streams: list[Stream], addresses: list[int]) -> list[tuple[int, int]]:
    """Payloads of the jobs."""
    return [(pack([(far(rng, address), 32), (one.aux, 20), (one.values, 23),
                   (one.pattern.code, 4)]), 0)
            for one, address in zip(streams, addresses, strict=True)]


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize((("stall", "hold"), CASES))
async def streams_and_writes_equal_the_reference(dut: Any, stall: float, hold: float) -> None:
    card, seed = config(), f"channel {stall} {hold}"
    rng, width = random.Random(seed), card.beat_bytes
    patterns = [one for one in PATTERNS if one.m in (1, *card.group_sizes)]
    most = min(card.aux_words, 256)     # what the queue holds, or a long block
    streams = [make_stream(rng, card, pattern, rng.choice([0, 1, 16, rng.randrange(1, 60)]),
                           rng.choice([[], [most], [rng.randrange(1, 12) for _ in range(5)]]))
               for pattern in patterns * (6 if stall < 0.5 else 1)]
    rng.shuffle(streams)
    addresses, content = place(rng, streams, card, ROOM)
    # With a flush writes go out in other bursts, one by one at the end.
    flush = bool(hold)
    written: dict[int, int] = {}
    writes = []
    for _ in range(30 if stall < 0.5 else 10):
        first = far(rng, ROOM + rng.randrange(ROOM - 40))
        for address in range(first, first + rng.choice([1, 3, 40])):
            beat = written[address % MEMORY] = rng.getrandbits(8 * width)
            writes.append((pack([(address, 32), (beat, 8 * width)]), 0))

    base = anywhere(rng, width)
    memory = await start(dut, card, base, bytes(content), stall)
    read_beats, write_beats, *errors = (watch(dut, name) for name in (
        "read_beat", "write_beat", "read_error", "write_error"))
    dut.flush.value = flush
    tasks = [cocotb.start_soon(task) for task in (
        drive(dut, "s_axis_job", jobs(rng, streams, addresses), stall / 2, f"{seed} jobs"),
        drive(dut, "s_axis_write", writes, stall / 2, f"{seed} writes"),
        take_entries(dut, streams, width, hold, f"{seed} entries"),
        take_words(dut, streams, hold, f"{seed} words"))]
    for task in tasks:
        await task
    await ClockCycles(dut.aclk, 2)
    while dut.reading.value or dut.writing.value:
        await RisingEdge(dut.aclk)
    await ClockCycles(dut.aclk, 50)
    assert not dut.some.value, "there must be no more entries"
    assert not dut.word_level.value, "there must be no more words"
    assert sum(read_beats) == sum(len(one.beats) for one in streams)
    assert sum(write_beats) == len(writes)
    assert errors == [[], []]
    for address, value in written.items():
        found = memory.read((base + address * width) % memory.size, width)
        assert int.from_bytes(found, "little") == value, f"beat {address}"


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(stall=STALLS)
async def after_a_drain_nothing_is_under_way(dut: Any, stall: float) -> None:
    """Nobody takes anything; a reset then makes the channel as new."""
    card, rng = config(), random.Random(f"drain {stall}")
    streams = [make_stream(rng, card, pattern, 200, [8]) for pattern in PATTERNS[:3]]
    addresses, content = place(rng, streams, card, ROOM)
    await start(dut, card, anywhere(rng, card.beat_bytes), bytes(content), stall)
    asked = transfers(dut, "s_axis_job")
    cocotb.start_soon(drive(dut, "s_axis_job", jobs(rng, streams, addresses), 0, ""))
    while len(asked) < len(streams):
        await RisingEdge(dut.aclk)
    assert dut.reading.value
    dut.drain.value = 1
    await ClockCycles(dut.aclk, 2)
    while dut.reading.value:
        await RisingEdge(dut.aclk)
    beats = watch(dut, "read_beat")
    await ClockCycles(dut.aclk, 100)
    assert not dut.m_axi_arvalid.value, "no burst may be asked for after a drain"
    assert not beats, "no beat may come after a drain"
    # As new.
    dut.drain.value, dut.aresetn.value = 0, 0
    await ClockCycles(dut.aclk, 2)
    dut.aresetn.value = 1
    tasks = [cocotb.start_soon(task) for task in (
        drive(dut, "s_axis_job", jobs(rng, streams, addresses), 0, ""),
        take_entries(dut, streams, card.beat_bytes, 0, ""), take_words(dut, streams, 0, ""))]
    for task in tasks:
        await task
