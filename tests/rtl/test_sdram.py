# SPDX-License-Identifier: Apache-2.0
"""The SDRAM controller against a chip that checks every command's time."""

import dataclasses
import random

import pytest

from rtl_gen.boards.sdram import Chip, Sdram
from tests.rtl.bench import feed, plain, simulate
from tests.rtl.sdram_chip import SdramChip, bench

#: Few rows and columns, so that random places meet in rows and banks.
SMALL = Chip(row_bits=11, column_bits=5)
POWER_UP = 2_000.0


def controller(clock_hz: float, chip: Chip = SMALL,
               beat_bytes: int = 16) -> tuple[Sdram, SdramChip]:
    dut = Sdram(chip, clock_hz=clock_hz, beat_bytes=beat_bytes, power_up=POWER_UP)
    return dut, SdramChip(chip, clock_hz=clock_hz, power_up=POWER_UP, seed=f"noise {clock_hz}")


def watch(dut, into: list):
    """Monitor: beats as they come."""
    async def run(ctx):
        into.clear()
        while True:
            _, _, came = await ctx.tick().sample(dut.o)
            if came.valid:
                into.append(came.data)
    return run


def random_requests(rng: random.Random, dut: Sdram, count: int) -> list[dict[str, int]]:
    """Runs of beats up and down the chip, some of them near each other."""
    places = [rng.randrange(1 << dut.address_bits) for _ in range(6)]
    found = []
    while len(found) < count:
        start, write = rng.choice(places), rng.random() < 0.5
        for k in range(rng.choice((1, 1, 2, 8, 20))):
            found.append({"address": (start + k) % (1 << dut.address_bits), "write": write,
                          "data": rng.getrandbits(8 * dut.beat_bytes) if write else 0})
    return found


@pytest.mark.parametrize("stall", [0.0, 0.3, 0.95])
@pytest.mark.parametrize(("clock_mhz", "beat_bytes", "cas"), [
    (25, 16, 2), (40, 16, 2), (66, 32, 2), (100, 16, 2), (133, 64, 3)])
def test_what_was_written_is_read_and_every_command_has_its_time(clock_mhz, beat_bytes, cas, stall):
    chip_type = dataclasses.replace(SMALL, cas=cas)
    dut, chip = controller(clock_mhz * 1e6, chip_type, beat_bytes)
    rng = random.Random(f"sdram {clock_mhz} {stall}")
    requests = random_requests(rng, dut, 250 if stall < 0.9 else 60)
    memory, expected, came = {}, [], []
    for request in requests:
        if request["write"]:
            memory[request["address"]] = request["data"]
        else:
            expected.append(memory.get(request["address"], 0))

    async def settle(ctx):
        while len(came) < len(expected):
            await ctx.tick()

    simulate(dut, feed(dut.i, requests, stall=stall, seed=f"{clock_mhz}"), settle,
             monitors=(bench(chip, dut.pins), watch(dut, came)), timeout=100_000, wave="sdram")
    assert [plain(value) for value in came] == expected
    # From the mode on a refresh an interval, each at most a beat and a row late.
    after = [moment for moment in chip.refreshes if moment > chip.mode_set]
    wanted = (chip.now - chip.mode_set) / chip_type.refresh
    late = (4 * dut.words + 20) * chip.period
    for number, moment in enumerate(after, 1):
        assert moment <= chip.mode_set + number * chip_type.refresh + late
    assert len(after) >= wanted - 1


def test_beats_that_follow_each_other_take_no_cycle_between():
    dut, chip = controller(25e6, Chip())
    count, came = 400, []
    requests = [{"address": k, "write": write, "data": k} for write in (1, 0) for k in range(count)]
    spent = []

    async def measure(ctx):
        cycles = 0
        while len(came) < count:
            await ctx.tick()
            cycles += 1
        spent.append(cycles)

    simulate(dut, feed(dut.i, requests), measure,
             monitors=(bench(chip, dut.pins), watch(dut, came)), timeout=100_000)
    words, rows = 2 * count * dut.words, 2 * count * dut.words / 512
    refreshes = len(chip.refreshes) - 8
    # Power-up, a new row every 512 words, and of each refresh the rows that it closes.
    assert words <= spent[0] <= words + 8 * rows + 8 * refreshes + 100
    assert came == list(range(count))


def test_streams_in_both_halves_of_the_chip_do_not_close_each_others_rows():
    dut, chip = controller(25e6, Chip())
    half, count, came = 1 << dut.address_bits - 1, 200, []
    requests = [{"address": k // 2 + half * (k % 2), "write": 0, "data": 0} for k in range(count)]

    async def settle(ctx):
        while len(came) < count:
            await ctx.tick()

    simulate(dut, feed(dut.i, requests), settle,
             monitors=(bench(chip, dut.pins), watch(dut, came)), timeout=100_000)
    refreshes = len(chip.refreshes) - 8
    beyond = chip.commands - 10 - count * dut.words
    assert beyond <= 4 * refreshes + 8


@pytest.mark.parametrize(("change", "message"), [
    ({"clock_hz": 5e6}, "clock_hz must leave 64 cycles between refreshes"),
    ({"beat_bytes": 12}, "beat_bytes must be a power of two in 4..1024, not 12"),
])
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        Sdram(Chip(), **{"clock_hz": 25e6, "beat_bytes": 16} | change)
