# SPDX-License-Identifier: Apache-2.0
"""The memory unit between channels, scratchpad and scale memory: random LOADs and STOREs."""

import itertools
import random
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.task import Task
from cocotb.triggers import ClockCycles, RisingEdge

from cardsim.functional.memory import Memory
from cardsim.functional.state import State

from .instructions import config, serve
from .memory_program import ROOM, Program, streams
from .stimulus import from_int
from .streams import CASES, STALLS, collect, compare, drive, idle, pack, reset

#: Constants of every channel that the unit sees ahead, at most.
SHOWN = 3
#: Cycles that a program may take.
LIMIT = 30_000


async def constants(dut: Any, blocks: list[npt.NDArray[np.uint32]], per_beat: int, stall: float,
                    seed: str) -> None:
    """Play the channels: each LOAD's words [words, channels] in its turn, which it must release.

    Queues fill up with chance 1 - ``stall`` a cycle; behind a LOAD's words there are others.
    """
    rng = random.Random(seed)
    level, words = dut.constants__level, dut.words
    for block in blocks:
        level.value = 0
        while rng.random() < stall:         # somebody else's turn
            await RisingEdge(dut.aclk)
        at = there = 0
        released = False
        while not released:
            if rng.random() >= stall:
                there = min(SHOWN, there + rng.randint(1, SHOWN))
            level.value = there
            # What is not there may be anything.
            words.value = pack([(int(word) if there else rng.getrandbits(32), 32)
                                for word in block[at]])
            await RisingEdge(dut.aclk)
            taken = int(dut.constants__take.value)
            assert taken <= min(there, len(block) - at), f"{taken} words taken after {at}"
            at, there = at + taken, there - taken
            if dut.constants__skip.value and at % per_beat:
                at, there = at + per_beat - at % per_beat, 0
            released = bool(dut.constants__release.value)
            assert released == (at == len(block)), f"release after {at} of {len(block)} words"
    level.value = 0


class Neighbours:
    """Scratchpad and scale memory of a card, and what the unit has done to them.

    Attributes
    ----------
    scratch, scales : uint32 arrays [words, V], [entries, C]
    asked : list of int
        Payloads of ``row_read``.
    ends : list of (int, dict)
        Signal of every instruction that ended, and the payloads of each stream until then.
    cycles : list of int
        From job to report.
    """

    def __init__(self, dut: Any, seed: str) -> None:
        self.dut, self.card, self.rng = dut, config(), random.Random(seed)
        # The functional card begins every program with what the unit left behind.
        self.state, self.memory = State(self.card), Memory(self.card)
        for channel in self.memory.bytes:
            channel[:ROOM * self.card.beat_bytes] = np.frombuffer(
                self.rng.randbytes(ROOM * self.card.beat_bytes), np.uint8)
        self.scratch, self.scales = (
            np.frombuffer(bytearray(self.rng.randbytes(one.nbytes)), np.uint32).reshape(one.shape)
            for one in (self.state.words, self.state.scales))
        self.asked: list[int] = []
        self.ends: list[tuple[int, dict[str, int]]] = []
        self.cycles: list[int] = []
        self.count = dict.fromkeys(streams(self.card), 0)

    async def reset(self) -> None:
        """Start the clock and everybody who watches."""
        self.dut.constants__level.value = 0
        await reset(self.dut)
        serve(self.dut, "read", self.scratch)
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        dut, memories = self.dut, {"m_axis_write": self.scratch, "m_axis_load": self.scales}
        began = 0
        ports = [(name, *(getattr(dut, f"{name}_{part}") for part in ("tvalid", "tready", "tdata")))
                 for name in self.count]
        for cycle in itertools.count():
            await RisingEdge(dut.aclk)
            if (done := int(dut.done.value)) & 1:
                self.ends.append((done >> 1, dict(self.count)))
                self.cycles.append(cycle - began)
            if dut.s_axis_job_tvalid.value and dut.s_axis_job_tready.value:
                began = cycle
            for name, tvalid, tready, tdata in ports:
                if tvalid.value and tready.value:
                    self.count[name] += 1
                    payload = int(tdata.value)
                    if name == "m_axis_row_read":
                        self.asked.append(payload)
                    elif (memory := memories.get(name)) is not None:
                        word = from_int(payload >> 16, memory.shape[1])
                        memory[payload & 0xFFFF] = word.view(np.uint32)

    async def _rows(self, stall: float, seed: str) -> None:
        """Answer every read of a lane's entry."""
        number = 0
        while True:
            if number == len(self.asked):
                await RisingEdge(self.dut.aclk)
                continue
            entry = self.scales[self.asked[number] & 0xFFFF, self.asked[number] >> 16]
            await drive(self.dut, "s_axis_row", [(int(entry), 0)], stall, f"{seed} {number}")
            number += 1

    def program(self, count: int) -> Program:
        """So many random instructions on what is in the memories now."""
        self.state.words[:], self.state.scales[:] = self.scratch, self.scales
        return Program(self.state, self.memory, self.rng, count)

    def start(self, program: Program, stall: float, hold: float,
              seed: str) -> tuple[list[Task[Any]], dict[str, Task[Any]]]:
        """Begin: tasks of what the unit takes, the last never ends, and of what it gives."""
        self.asked.clear()
        self.ends.clear()
        self.cycles.clear()
        self.count.update(dict.fromkeys(self.count, 0))
        dut, per_beat = self.dut, self.card.beat_bytes // 4
        gives = [cocotb.start_soon(task) for task in (
            drive(dut, "s_axis_job", program.jobs, stall, f"{seed} jobs"),
            constants(dut, program.constants, per_beat, stall, f"{seed} constants"),
            self._rows(stall, f"{seed} rows"))]
        takes = {name: cocotb.start_soon(collect(
            dut, name, len(payloads), hold, f"{seed} {name}", LIMIT))
            for name, payloads in program.streams.items()}
        return gives, takes

    async def run(self, program: Program, stall: float, hold: float, seed: str) -> None:
        """The whole program, with all that it is to give."""
        (*gives, rows), takes = self.start(program, stall, hold, seed)
        got = {name: await task for name, task in takes.items()}
        for task in gives:
            await task
        await ClockCycles(self.dut.aclk, 20)
        rows.cancel()
        for name, payloads in program.streams.items():
            compare([(name, hex(word)) for word, _ in got[name]],
                    [(name, hex(word)) for word, _ in payloads])
            assert not getattr(self.dut, f"{name}_tvalid").value, f"{name}: more than expected"
        # One after another: when an instruction ends all of its own is out, and nothing else.
        compare(self.ends, program.ends)
        if not (stall or hold):
            for took, least in zip(self.cycles, program.cycles, strict=True):
                assert least in (None, took), f"{took} cycles instead of {least}"
        assert (self.scratch == self.state.words).all()
        assert (self.scales == self.state.scales).all()


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize((("stall", "hold"), CASES))
async def programs_equal_the_reference(dut: Any, stall: float, hold: float) -> None:
    seed = f"memory {stall} {hold}"
    neighbours = Neighbours(dut, seed)
    await neighbours.reset()
    for size in (150, 50) if hold < 0.5 else (25,):
        await neighbours.run(neighbours.program(size), stall, hold, f"{seed} {size}")


@cocotb.test(timeout_time=200, timeout_unit="us")
@cocotb.parametrize(stall=STALLS)
async def a_reset_makes_it_as_new(dut: Any, stall: float) -> None:
    seed = f"memory reset {stall}"
    neighbours = Neighbours(dut, seed)
    await neighbours.reset()
    cut = 0
    for number in range(20):
        program = neighbours.program(4)
        gives, takes = neighbours.start(program, stall, stall, f"{seed} {number}")
        await ClockCycles(dut.aclk, neighbours.rng.randrange(4, int(80 / (1.1 - stall))))
        cut += len(neighbours.ends) < len(program.ends)
        for task in (*gives, *takes.values()):
            task.cancel()
        idle(dut)
        dut.constants__level.value = dut.aresetn.value = 0
        await ClockCycles(dut.aclk, 2)
        dut.aresetn.value = 1
        await neighbours.run(neighbours.program(2), stall, stall, f"{seed} {number} anew")
    assert cut, "a reset must have come before the end of a program"
