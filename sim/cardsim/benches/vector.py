# SPDX-License-Identifier: Apache-2.0
"""The vector unit: random instructions that overlap, a scratchpad, and somebody for SAMPLE."""

import random
from collections.abc import Iterable
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.triggers import ClockCycles, RisingEdge

from cardsim import numerics as nx
from rtl_gen.spec import isa
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.isa import ScalarFn, VectorFn

from .instructions import config, fresh, job, plane, serve, signals
from .stimulus import from_int, numbers
from .streams import STALLS, compare, exchange, pack, reset, watch
from .vector_model import VectorModel
from .vector_program import ROOM, Instruction, Mixture, anything, fill

Floats = npt.NDArray[np.float32]
#: Cycles from the last payload until the last instruction has ended, at most.
PATIENCE = 20_000


class Program:
    """Instructions that run without a pause, and what they are to give."""

    def __init__(self, card: CardConfig, rng: random.Random) -> None:
        self.rng, self.model = rng, VectorModel(card, self._put)
        self.start(wild=False)

    def start(self, *, wild: bool) -> None:
        """Begin anew, with other numbers in the scratchpad."""
        self.jobs: list[tuple[int, int]] = []
        self.signals: list[int] = []
        self.streams: dict[str, list[tuple[int, int]]] = {
            f"m_axis_{name}": [] for name in ("write", "plane", "fresh", "scale", "sample_job")}
        model = self.model
        model.nonfinite = model.range = False
        words = model.memory[:ROOM]
        words[:] = nx.bits(numbers(self.rng, words.size, wild=wild)).reshape(words.shape)

    def add(self, instructions: Iterable[Instruction]) -> None:
        """Execute instructions on the model."""
        for name, fields in instructions:
            word, pos = isa.encode(name, **fields), self.rng.randrange(2000)
            self.jobs.append(job(word, pos=pos, step=self.rng.getrandbits(32)))
            self.signals.append(fields.get("signal", 0))
            if name == "SAMPLE":
                self.streams["m_axis_sample_job"].append(self.jobs[-1])
            self.model.execute(*isa.decode(word), pos)

    def _put(self, name: str, **f: Any) -> None:
        lane_bits = (self.model.config.vector_lanes - 1).bit_length()
        match name:
            case "plane":
                payload = plane(f)
            case "fresh":
                payload = fresh(f)
            case "scale":
                payload = pack([(f["addr"], 16), (f["lane"], lane_bits), (f["kind"], 1),
                                (f["scale"], 16)]), 0
            case _:
                payload = pack([(f["addr"], 16), *((v, 32) for v in f["data"])]), 0
        self.streams[f"m_axis_{name}"].append(payload)


def functions(rng: random.Random) -> Iterable[Instruction]:
    """Every function of VECTOR and SCALAR, on any numbers; what is left in a scalar is shown."""
    for vector in VectorFn:
        words, d = rng.choice([1, 2, 17]), rng.randrange(16)
        yield "SCALAR", {"fn": ScalarFn.SET, "d": d, "imm": anything(rng)}
        yield "VECTOR", {"fn": vector, "a": rng.randrange(100), "b": rng.randrange(100),
                         "dst": rng.randrange(200, 300), "words": words, "s": d,
                         "signal": rng.getrandbits(16)}
    for scalar in ScalarFn:
        yield "SCALAR", {"fn": scalar, "d": rng.randrange(16), "a": rng.randrange(16),
                         "b": rng.randrange(16), "imm": anything(rng)}
    for number in range(16):
        yield "VECTOR", {"fn": VectorFn.ADDS, "a": rng.randrange(100), "dst": 300 + number,
                         "words": 1, "s": number}


def keep(dut: Any, memory: Floats) -> None:
    """Carry out what the unit writes to the scratchpad, from now on."""
    tdata, tvalid, tready = (getattr(dut, f"m_axis_write_{part}")
                             for part in ("tdata", "tvalid", "tready"))

    async def bench() -> None:
        while True:
            await RisingEdge(dut.aclk)
            if tvalid.value and tready.value:
                word = int(tdata.value)
                memory[word & 0xFFFF] = from_int(word >> 16, memory.shape[1])
    cocotb.start_soon(bench())


def sample(dut: Any, rng: random.Random) -> None:
    """Answer every SAMPLE after some cycles."""
    tvalid, tready = dut.m_axis_sample_job_tvalid, dut.m_axis_sample_job_tready
    dut.sample_done.value = 0

    async def bench() -> None:
        while True:
            await RisingEdge(dut.aclk)
            if tvalid.value and tready.value:
                for _ in range(rng.randrange(20)):
                    await RisingEdge(dut.aclk)
                dut.sample_done.value = 1 | rng.getrandbits(16) << 1
                await RisingEdge(dut.aclk)
                dut.sample_done.value = 0
    cocotb.start_soon(bench())


@cocotb.test(timeout_time=4, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def programs_equal_the_reference(dut: Any, stall: float) -> None:
    card, seed = config(), f"vector {stall}"
    rng = random.Random(seed)
    program, mixture = Program(card, rng), Mixture(rng, card, wild=False)
    model = program.model
    memory = np.zeros((card.scratch_words, card.vector_lanes), np.float32)
    await reset(dut)
    for port in ("read__0", "read__1"):
        serve(dut, port, memory)
    keep(dut, memory)
    sample(dut, random.Random(f"{seed} sample"))
    done, nonfinite, out_of_range = (watch(dut, name) for name in ("done", "nonfinite", "range"))

    for number, wild in enumerate((False, False, True, False, True)):
        program.start(wild=wild)
        memory[:] = nx.from_bits(model.memory)
        if not number:
            program.add(fill(card))
        program.add(functions(rng) if number == 4 else mixture.take(20 if stall > 0.5 else 50))
        # A QUANT ends before its statistics; the norms need them.
        program.add(("NORM", mixture.norm(token)) for token in range(card.tokens))
        got = await exchange(
            dut, {"s_axis_job": program.jobs},
            {name: len(payloads) for name, payloads in program.streams.items()}, stall, seed)
        for _ in range(PATIENCE):
            if len(signals(done)) == len(program.signals):
                break
            await RisingEdge(dut.aclk)
        await ClockCycles(dut.aclk, 4)
        compare(signals(done), program.signals, hex)
        for name, payloads in program.streams.items():
            compare(got[name], payloads, lambda pair, name=name: f"{pair[0]:#x} of {name}")
        compare(nx.bits(memory).tolist(), model.memory.tolist())
        assert int(dut.norms.value) == int.from_bytes(model.norms.tobytes(), "little")
        assert bool(nonfinite) == model.nonfinite, f"lot {number}"
        assert bool(out_of_range) == model.range, f"lot {number}"
        for seen in (done, nonfinite, out_of_range):
            seen.clear()
