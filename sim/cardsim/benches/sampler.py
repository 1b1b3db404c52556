# SPDX-License-Identifier: Apache-2.0
"""The sampler: rows of logits in blocks, for one column or several, result records out."""

import random
from collections.abc import Sequence
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.triggers import ClockCycles, RisingEdge

from cardsim import numerics as nx
from cardsim.functional.sample import Sampler
from cardsim.functional.state import State
from rtl_gen.spec import isa
from rtl_gen.spec.config import CardConfig

from .instructions import config, job, serve, signals
from .stimulus import numbers
from .streams import CASES, compare, exchange, reset, watch

Floats = npt.NDArray[np.float32]
#: Words of the scratchpad that a 16-bit address reaches.
SCRATCHPAD = 1 << 16


def row(rng: random.Random, lanes: int, kind: str) -> Floats:
    """Logits of one row."""
    count = rng.choice([1, lanes, rng.randrange(1, 12 * lanes)])
    match kind:
        case "ties":
            return np.array([rng.choice([-1, -0.0, 0.0, 2]) for _ in range(count)], np.float32)
        case "rising":      # every logit enters the list
            return np.sort(numbers(rng, count))
        case "climbing":    # a new maximum in every word, the sums of which wait for each other
            return np.where(np.arange(count) % lanes == lanes - 1, np.sort(numbers(rng, count)),
                            np.float32(-100))
        case "large":       # differences overflow, which is no event
            return np.array([rng.choice([-3e38, 3e38, 1]) for _ in range(count)], np.float32)
        case "masked":      # an event, though neither maximum nor sum shows it
            return np.where(np.arange(count) % 3 == 1, -nx.INF, numbers(rng, count))
        case _:
            return numbers(rng, count, wild=kind == "wild")


class Rows:
    """Instructions for rows of logits, their scratchpad, and what they are to give."""

    def __init__(self, card: CardConfig, rng: random.Random, memory: Floats) -> None:
        self.card, self.rng, self.memory = card, rng, memory
        memory[:] = nx.NAN      # words that belong to no block are not to be read
        self.jobs: list[tuple[int, int]] = []
        self.records: list[tuple[int, int]] = []
        self.sampled: list[int] = []
        self.signals: list[int] = []
        self._free = 0
        # As after a program that read numbers out of the ordinary: nothing is taken short.
        self.state = State(card)
        self.state.wild = True

    def add(self, kinds: Sequence[str]) -> None:
        """One more row in as many columns as there are ``kinds``, in blocks of random size."""
        rng, lanes, reference = self.rng, self.card.vector_lanes, Sampler(self.state)
        columns = [row(rng, lanes, kind) for kind in kinds]
        # All columns have logits for the same tokens.
        shortest = min(map(len, columns))
        logits = np.stack([column[:shortest] for column in columns])
        total = logits.shape[1]
        base, step, position = rng.randrange(1 << 19), rng.getrandbits(32), rng.randrange(2048)
        target = rng.choice([None, base + rng.randrange(total), 1 << 20])
        k = rng.choice([0, 1, self.card.top_k, rng.randrange(self.card.top_k + 1)])
        at = 0
        while at < total:
            size = min(total - at, lanes * rng.randrange(1, 5))
            words, signal = -(-size // lanes), rng.getrandbits(16)
            stride = words + rng.randrange(3)
            blocks = [self.memory[first:first + words] for first in range(
                self._free, self._free + stride * len(logits), stride)]
            for block, part in zip(blocks, logits[:, at:at + size], strict=True):
                block.ravel()[:size] = part
            self.jobs.append(job(
                isa.encode("SAMPLE", a=self._free, words=words, count=size, token=base + at,
                           first=at == 0, last=at + size == total, k=k, columns=len(logits),
                           stride=stride, signal=signal),
                step=step, pos=position, target=target or 0, target_valid=target is not None))
            self.signals.append(signal)
            reference.take(blocks, size, base + at, target)
            self._free += stride * len(logits) + 1
            at += size
        records = reference.finish(len(logits), k, step, position)
        beat = self.card.beat_bytes // 4
        sent = [word for record in records for word in (*record, *[0] * (-len(record) % beat))]
        # Only the last column's record ends without zeros: the packer adds them.
        del sent[len(sent) - -len(records[-1]) % beat:]
        self.records += [(int(word), int(n == len(sent) - 1)) for n, word in enumerate(sent)]
        self.sampled.append(reference.token)


@cocotb.test(timeout_time=4, timeout_unit="ms")
@cocotb.parametrize((("stall", "hold"), CASES))
async def records_equal_the_reference(dut: Any, stall: float, hold: float) -> None:
    card = config()
    memory = np.empty((SCRATCHPAD, card.vector_lanes), np.float32)
    await reset(dut)
    serve(dut, "read", memory)
    done, sampled, nonfinite = (watch(dut, name) for name in ("done", "sampled", "nonfinite"))
    for kinds in (("random", "ties", "rising", "climbing", "large"), ("masked",), ("wild",)):
        seed = f"sampler {kinds} {stall} {hold}"
        rows = Rows(card, random.Random(seed), memory)
        for kind in kinds * 3:
            rows.add([kind])
        for columns in range(2, card.tokens + 1):
            rows.add(rows.rng.choices(kinds, k=columns))
        got = await exchange(dut, {"s_axis_job": rows.jobs}, {"m_axis_record": len(rows.records)},
                             stall, seed, hold=hold)
        await ClockCycles(dut.aclk, 2)
        compare(got["m_axis_record"], rows.records, lambda pair: f"{pair[0]:#x} last={pair[1]}")
        compare([value >> 1 for value in sampled if value & 1], rows.sampled)
        compare(signals(done), rows.signals, hex)
        assert bool(nonfinite) == bool(rows.state.sticky), kinds
        for seen in (done, sampled, nonfinite):
            seen.clear()


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def columns_share_the_exp_units(dut: Any) -> None:
    card = config()
    memory = np.zeros((SCRATCHPAD, card.vector_lanes), np.float32)     # later ones enter no list
    await reset(dut)
    serve(dut, "read", memory)
    done, cycles = watch(dut, "done"), {}
    for columns in range(1, card.tokens + 1):
        for words in (300, 500):
            word = isa.encode("SAMPLE", words=words, count=words * card.vector_lanes, first=1,
                              columns=columns, stride=500)
            await exchange(dut, {"s_axis_job": [job(word)]}, {}, 0, "rate")
            cycles[columns, words] = 0
            while not done:
                await RisingEdge(dut.aclk)
                cycles[columns, words] += 1
            done.clear()
            await ClockCycles(dut.aclk, 200)    # until the sums that nobody awaits are made
    # docs/units/sampler.md, when lists and the queue are full.
    lanes = card.vector_lanes
    turns = lanes // min(lanes, 4 * card.tokens) + 1
    for columns in range(1, card.tokens + 1):
        found = cycles[columns, 500] - cycles[columns, 300]
        assert abs(found - 200 * max(4, turns * columns)) <= 8, cycles
