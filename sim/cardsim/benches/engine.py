# SPDX-License-Identifier: Apache-2.0
"""The matmul engine: random instructions, in chunks side by side, with fresh K and V."""

import random
from collections.abc import Sequence
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles

from .engine_model import Values
from .engine_program import Program, shuffle
from .instructions import config, fresh, job, plane, row, signals
from .streams import CASES, compare, drive, exchange, offer, pack, reset, transfers, watch


def entries(program: Program, channel: int) -> list[int]:
    """All entries of a channel: weights below, indices above."""
    return [pack([*((w, 8) for w in weights), *((i, 4) for i in index)])
            for one in program.jobs
            for weights, index in zip(one.weights[channel].tolist(), one.index[channel].tolist(),
                                      strict=True)]


async def channel(dut: Any, number: int, words: list[int], stall: float, seed: str) -> None:
    """Show the engine the next entries of a channel, none to two, until it has used all."""
    rng = random.Random(seed)
    ports = [getattr(dut, f"entries__{number}__{k}") for k in range(2)]
    swap, some = getattr(dut, f"swap__{number}"), getattr(dut, f"some__{number}")

    def show(there: Sequence[int]) -> None:
        some.value = (1 << len(there)) - 1
        swap.value = swapped = rng.randrange(2)
        for k, port in enumerate(ports):        # what is not there may be anything
            place = k ^ swapped
            port.value = there[place] if place < len(there) else rng.getrandbits(len(port))

    await offer(dut, getattr(dut, f"take__{number}"), show, words, 2, stall, seed)


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize((("stall", "hold"), CASES))
async def sums_equal_the_reference(dut: Any, stall: float, hold: float) -> None:
    card, seed = config(), f"engine {stall} {hold}"
    program, channels = Program(card, seed), range(card.channels)
    shuffle(program, 60 if stall < 0.5 else 30)
    for number in range(8):     # more short rows, one after another, than fit in the engine
        program.matmul(rows=8, beats=1, first=1, last=1, keep=number > 0)
    for c in channels:
        getattr(dut, f"some__{c}").value = 0
    await reset(dut)
    done, used, *waits = (watch(dut, name) for name in (
        "done", "entries_used", "wait_weights", "wait_rows"))
    finished, fresh_in, *planes_in = (transfers(dut, name) for name in (
        "m_axis_rows", "s_axis_fresh", "s_axis_planes_0", "s_axis_planes_1"))

    # What the dependency counters of a card order: nothing is overwritten before it was read, and
    # no instruction starts before what it reads is there.
    row_ends = [0, *(rows for one, (rows, _, _) in zip(program.jobs, program.ends, strict=True)
                     if one.last)]

    def ended(after: Values) -> bool:
        return len(signals(done)) >= after["done"] and len(finished) >= row_ends[after["last"]]

    def ready(index: int) -> bool:
        needs = program.given[index][1]
        return (len(fresh_in) >= needs["fresh"]
                and all(len(words) >= n for words, n in zip(planes_in, needs["planes"],
                                                            strict=True)))

    for name, payload, words in (("fresh", fresh, program.fresh), *(
            (f"planes_{k}", plane, words) for k, words in enumerate(program.planes))):
        cocotb.start_soon(drive(
            dut, f"s_axis_{name}", [payload(word) for word, _ in words], stall / 2, seed + name,
            lambda index, words=words: ended(words[index][1])))     # type: ignore[misc]
    cocotb.start_soon(drive(
        dut, "s_axis_job", [job(**one) for one, _ in program.given], stall, f"{seed} job", ready))
    used_up = [cocotb.start_soon(channel(dut, c, entries(program, c), stall, f"{seed} channel {c}"))
               for c in channels]

    wanted = {"m_axis_rows": [row(values) for values in program.rows],
              "m_axis_epilogue_job": [job(**one) for one in program.given_on],
              **{f"m_axis_write_{c}": [(pack([(address, 32), (beat, 8 * card.beat_bytes)]), 0)
                                       for address, beat in program.written[c]]
                 for c in channels}}
    got = await exchange(dut, {}, {name: len(what) for name, what in wanted.items()}, hold, seed)
    for task in used_up:
        await task
    await ClockCycles(dut.aclk, 50)
    for name, what in wanted.items():
        compare(got[name], what, lambda pair: f"{pair[0]:#x}")
        assert not getattr(dut, f"{name}_tvalid").value, f"{name}: more than expected"
    compare(signals(done), program.done, hex)
    assert sum(number for number in used if number != 3) == program.entries()
    assert bool(waits[0]) or not stall, "a step must have waited for entries"
    assert bool(waits[1]) or not hold, "a step must have waited for rows"
