# SPDX-License-Identifier: Apache-2.0
"""The vector unit: random instructions that overlap, a scratchpad, and somebody for SAMPLE."""

import random
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.triggers import ClockCycles, RisingEdge

from cardsim import numerics as nx
from rtl_gen.spec import isa
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.isa import ScalarFn, VectorFn

from .instructions import config, fresh, job, plane, serve
from .stimulus import from_int, numbers
from .streams import CASES, HEAVY, compare, exchange, pack, reset, watch
from .vector_model import VectorModel
from .vector_program import ROOM, Instruction, Mixture, anything, fill

#: What the unit gives.
STREAMS = tuple(f"m_axis_{name}" for name in ("write", "plane", "fresh", "scale", "sample_job"))
#: Cycles from the last payload until the last instruction has ended, at most.
PATIENCE = 20_000


class Program:
    """Instructions that run without a pause, and what they are to give.

    Attributes
    ----------
    ends : list of (int, dict)
        Signal of each instruction, and how many payloads of each stream must be out when it ends.
    """

    def __init__(self, card: CardConfig, rng: random.Random) -> None:
        self.rng, self.model = rng, VectorModel(card, self._put)

    def start(self, *, wild: bool = False, magnitude: float = 0.0) -> None:
        """Begin anew, with other numbers in the scratchpad, or with one in both signs."""
        self.jobs: list[tuple[int, int]] = []
        self.ends: list[tuple[int, dict[str, int]]] = []
        self.streams: dict[str, list[tuple[int, int]]] = {name: [] for name in STREAMS}
        model = self.model
        model.nonfinite = model.range = False
        words = model.memory[:ROOM]
        values = numbers(self.rng, words.size, wild=wild)
        if magnitude:
            values = np.copysign(np.float32(magnitude), values)
        words[:] = nx.bits(values).reshape(words.shape)

    def add(self, instructions: Iterable[Instruction]) -> None:
        """Execute instructions on the model."""
        for name, fields in instructions:
            word, pos = isa.encode(name, **fields), self.rng.randrange(2000)
            self.jobs.append(job(word, pos=pos, step=self.rng.getrandbits(32)))
            if name == "SAMPLE":
                self.streams["m_axis_sample_job"].append(self.jobs[-1])
            self.model.execute(*isa.decode(word), pos)
            self.ends.append((fields.get("signal", 0),
                              {name: len(payloads) for name, payloads in self.streams.items()}))

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


def functions(rng: random.Random) -> Iterator[Instruction]:
    """Every function of VECTOR and SCALAR, on any numbers; what is left in a scalar is shown."""
    for vector in VectorFn:
        d = rng.randrange(16)
        yield "SCALAR", {"fn": ScalarFn.SET, "d": d, "imm": anything(rng)}
        yield "VECTOR", {"fn": vector, "a": rng.randrange(100), "b": rng.randrange(100),
                         "dst": rng.randrange(200, 300), "words": rng.choice([1, 17, 50]), "s": d,
                         "signal": rng.getrandbits(16)}
    for scalar in ScalarFn:
        yield "SCALAR", {"fn": scalar, "d": rng.randrange(16), "a": rng.randrange(16),
                         "b": rng.randrange(16), "imm": anything(rng)}
    for number in range(16):
        yield "VECTOR", {"fn": VectorFn.ADDS, "a": rng.randrange(100), "dst": 300 + number,
                         "words": 1, "s": number}


class Monitor:
    """Keeps the scratchpad, counts what comes, and notes with what every instruction ends."""

    def __init__(self, dut: Any, memory: npt.NDArray[np.float32]) -> None:
        self.dut, self.memory = dut, memory
        self.clear()
        cocotb.start_soon(self._run())

    def clear(self) -> None:
        """Forget what came."""
        self.count = dict.fromkeys(STREAMS, 0)
        self.ends: list[tuple[int, dict[str, int]]] = []

    async def _run(self) -> None:
        dut = self.dut
        ports = [(name, getattr(dut, f"{name}_tvalid"), getattr(dut, f"{name}_tready"))
                 for name in STREAMS]
        while True:
            await RisingEdge(dut.aclk)
            for name, tvalid, tready in ports:
                if tvalid.value and tready.value:
                    self.count[name] += 1
                    if name == "m_axis_write":
                        word = int(dut.m_axis_write_tdata.value)
                        self.memory[word & 0xFFFF] = from_int(word >> 16, self.memory.shape[1])
            if (done := int(dut.done.value)) & 1:
                self.ends.append((done >> 1, dict(self.count)))

    async def all_ended(self, count: int) -> None:
        """Wait until so many instructions have ended."""
        for _ in range(PATIENCE):
            if len(self.ends) >= count:
                break
            await RisingEdge(self.dut.aclk)
        await ClockCycles(self.dut.aclk, 4)


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


def lots(card: CardConfig, rng: random.Random,
         size: int) -> Iterator[tuple[dict[str, Any], Iterable[Instruction]]]:
    """(numbers in the scratchpad, instructions): one program after another."""
    mixture = Mixture(rng, card, wild=False)

    def norms() -> Iterator[Instruction]:
        """A QUANT ends before its statistics are there; a norm needs them."""
        for token in range(card.tokens):
            yield "NORM", mixture.norm(token)

    yield {}, chain(fill(card), mixture.take(size), norms())
    yield {}, chain(mixture.slices(max(8, size // 4)), norms())
    mixture.wild = True
    yield {"wild": True}, chain(mixture.take(size), norms())
    # Only the sums of squared deviations overflow; the SCALAR waits for them.
    yield {"magnitude": 2.0**62}, chain(mixture.slices(4), [("SCALAR", {"fn": ScalarFn.SET})])
    yield {"wild": True}, functions(rng)


@cocotb.test(timeout_time=4, timeout_unit="ms")
@cocotb.parametrize((("stall", "hold"), CASES))
async def programs_equal_the_reference(dut: Any, stall: float, hold: float) -> None:
    card, seed = config(), f"vector {stall} {hold}"
    rng = random.Random(seed)
    program = Program(card, rng)
    model, memory = program.model, np.zeros((card.scratch_words, card.vector_lanes), np.float32)
    await reset(dut)
    for port in ("read__0", "read__1"):
        serve(dut, port, memory)
    sample(dut, random.Random(f"{seed} sample"))
    monitor = Monitor(dut, memory)
    nonfinite, out_of_range = watch(dut, "nonfinite"), watch(dut, "range")
    for number, (options, instructions) in enumerate(lots(card, rng, 12 if hold > HEAVY else 40)):
        program.start(**options)
        memory[:] = nx.from_bits(model.memory)
        program.add(instructions)
        got = await exchange(
            dut, {"s_axis_job": program.jobs},
            {name: len(payloads) for name, payloads in program.streams.items()}, stall, seed,
            # So that heads end with their scales, not with their last words.
            hold=hold, holds={"m_axis_scale": 0.99, "m_axis_fresh": 0.0} if hold > HEAVY else {})
        await monitor.all_ended(len(program.ends))
        for name, payloads in program.streams.items():
            compare([(name, hex(word)) for word, _ in got[name]],
                    [(name, hex(word)) for word, _ in payloads])
        for (signal, out), (wanted, least) in zip(monitor.ends, program.ends, strict=True):
            assert signal == wanted, f"lot {number}"
            early = [name for name in STREAMS if out[name] < least[name]]
            assert not early, f"lot {number}: an instruction ended before its payloads of {early}"
        compare(nx.bits(memory).tolist(), model.memory.tolist())
        assert int(dut.norms.value) == int.from_bytes(model.norms.tobytes(), "little")
        assert bool(nonfinite) == model.nonfinite, f"lot {number}"
        assert bool(out_of_range) == model.range, f"lot {number}"
        monitor.clear()
        nonfinite.clear()
        out_of_range.clear()
