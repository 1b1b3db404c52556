# SPDX-License-Identifier: Apache-2.0
"""The epilogue between the engine, the scratchpad, the scale memory and the softmax."""

import random
from collections.abc import Sequence
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from cardsim import numerics as nx
from rtl_gen.spec.config import CardConfig

from .epilogue_model import EpilogueModel, Floats, Job, memories, random_job
from .instructions import config, job, row, serve, signals
from .stimulus import from_int, to_int
from .streams import CASES, compare, drive, exchange, offer, pack, reset, transfers, watch

#: Words of constants that a channel shows.
WORDS = 3
#: Cycles from the last score to its 1/sum, at least: a softmax takes longer.
SUM_AFTER = 20


def results(values: Floats) -> int:
    """1/sum by result and token."""
    return pack([(int(nx.bits(one)), 32) for one in values.ravel()])


def write_port(dut: Any, scratch: Floats) -> list[tuple[int, int]]:
    """Take all results into the scratchpad; addresses and words, as they come."""
    words: list[tuple[int, int]] = []
    lanes = scratch.shape[1]

    async def bench() -> None:
        dut.m_axis_write_tready.value = 1
        while True:
            await RisingEdge(dut.aclk)
            if dut.m_axis_write_tvalid.value:
                payload = int(dut.m_axis_write_tdata.value)
                address, word = payload & 0xFFFF, payload >> 16
                words.append((address, word))
                scratch[address] = from_int(word, lanes)
    cocotb.start_soon(bench())
    return words


async def softmax(dut: Any, jobs: list[tuple[Job, Floats]], seed: str) -> None:
    """Play the softmax: each of ``jobs`` is pending from when it is handed over to its 1/sum.

    Instructions come with what ``results`` shows after them.
    """
    rng = random.Random(seed)
    begun, scores = transfers(dut, "m_axis_prob_job"), transfers(dut, "m_axis_scores")
    needed = ended = 0
    left = None     # cycles until 1/sum is there, from the last score on
    while ended < len(jobs):
        await RisingEdge(dut.aclk)
        one, after = jobs[ended]
        if left is None and len(scores) >= needed + one.rows * one.fields["columns"]:
            needed += one.rows * one.fields["columns"]
            left = SUM_AFTER + rng.randrange(100)
        elif left:
            left -= 1
        elif left == 0:
            dut.results.value = results(after)
            left, ended = None, ended + 1
        pending = {other.fields["dest"] for other, _ in jobs[ended:len(begun)]}
        dut.pending.value = sum(1 << dest - 1 for dest in pending)


async def check_skips(dut: Any, jobs: list[Job]) -> None:
    """``word_skip`` comes with the last constants of an instruction, and only then."""
    ends, taken = set(), 0
    for one in jobs:
        taken += len(one.words(0))
        ends.add(taken)
    taken = 0
    while True:
        await RisingEdge(dut.aclk)
        now = int(dut.word_take.value)
        taken += now
        assert int(dut.word_skip.value) == (now > 0 and taken in ends), f"after {taken} constants"


def constants(dut: Any, card: CardConfig, jobs: list[Job], stall: float, seed: str) -> Any:
    """Show the constants of all channels; a task that ends when all are taken."""
    rng = random.Random(seed)
    ports = [getattr(dut, f"words__{number}") for number in range(card.channels)]

    def show(there: Sequence[Sequence[int]]) -> None:   # what is not there may be anything
        dut.word_level.value = len(there)
        for number, port in enumerate(ports):
            port.value = pack([(there[k][number] if k < len(there) else rng.getrandbits(32), 32)
                               for k in range(WORDS)])

    of_channels = ([word for one in jobs for word in one.words(number)]
                   for number in range(card.channels))
    cocotb.start_soon(check_skips(dut, jobs))
    return cocotb.start_soon(offer(dut, dut.word_take, show, list(zip(*of_channels, strict=True)),
                                   WORDS, stall, f"{seed} level"))


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize((("stall", "hold"), CASES), ("corners", (0.0, 0.02)))
async def results_equal_the_reference(dut: Any, stall: float, hold: float, corners: float) -> None:
    card, seed = config(), f"epilogue {stall} {hold} {corners}"
    rng = random.Random(seed)
    scratch, scales, norms = memories(rng, card, corners)
    model = EpilogueModel(card, scratch.copy(), scales, norms)
    jobs, attended = [], []
    for _ in range(30 if stall < 0.5 else 12):
        one = random_job(rng, card, softmax=rng.random() < 0.4, corners=corners)
        jobs.append(one)
        model.run(one)
        if one.fields["dest"]:
            attended.append((one, model.results.copy()))

    dut.pending.value, dut.results.value = 0, 0
    dut.norms.value = pack([(int(nx.bits(x)), 32) for x in norms.ravel()])
    dut.word_level.value = 0
    await reset(dut)
    serve(dut, "read", scratch)
    serve(dut, "k_read", (scales & 0xFFFF).astype(np.uint16))
    done, nonfinite = watch(dut, "done"), watch(dut, "nonfinite")
    written = write_port(dut, scratch)
    tasks = [constants(dut, card, jobs, stall, f"{seed} constants"),
             *(cocotb.start_soon(task) for task in (
                 softmax(dut, attended, f"{seed} softmax"),
                 drive(dut, "s_axis_job", [job(one.word, rows=one.rows, len=one.length)
                                           for one in jobs], stall, f"{seed} jobs"),
                 drive(dut, "s_axis_rows", [row(values) for one in jobs for values in one.sums()],
                       stall, f"{seed} rows")))]
    wanted = {"m_axis_prob_job": [job(one.word, rows=one.rows, len=one.length)
                                  for one, _ in attended],
              "m_axis_scores": [(to_int(word), 0) for word in model.scores]}
    got = await exchange(dut, {}, {name: len(what) for name, what in wanted.items()}, hold, seed)
    for task in tasks:
        await task
    await ClockCycles(dut.aclk, 100)
    for name, what in wanted.items():
        compare(got[name], what, lambda pair: f"{pair[0]:#x}")
        assert not getattr(dut, f"{name}_tvalid").value, f"{name}: more than expected"
    compare(written, [(address, to_int(word)) for address, word in model.written],
            lambda pair: f"{pair[1]:#x} at {pair[0]}")
    compare(signals(done), model.done, hex)
    assert bool(nonfinite) == model.nonfinite
    assert model.nonfinite == (corners > 0)
