# SPDX-License-Identifier: Apache-2.0
"""When every instruction of a command was dispatched, began and ended.

Cycles count from the first one of the command.  The parts report in order, so that the n-th event
of a queue belongs to the n-th instruction that was dispatched to it.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from rtl_gen.spec.formats import PATTERNS, stream_beats
from rtl_gen.spec.isa import Queue

from ..trace import Step, trace
from .recorder import Recording

Cycles = npt.NDArray[np.int64]

#: Bits of ``offered`` and ``taken``.
_QUEUES = (Queue.MEMORY, Queue.MATMUL, Queue.VECTOR)
#: Bits of ``done``.
_MEMORY, _BANK, _EPILOGUE, _SOFTMAX, _VECTOR = range(5)


@dataclasses.dataclass(kw_only=True)
class Instruction:
    """One executed instruction; of a control instruction, only ``dispatched`` means anything."""

    step: Step
    #: It goes into its queue; it has its counters; its unit takes it; its effects are visible.
    dispatched: int
    offered: int
    taken: int
    done: int
    #: A product: first cycle with a step, the cycle after its last step.
    engine: tuple[int, int] = (0, 0)
    #: A product with results: the epilogue begins with it.
    loaded: int | None = None
    #: Beats that every channel reads for it.
    beats: int = 0

    @property
    def queue(self) -> Queue:
        return self.step.queue


class Timeline:
    """The instructions of one recording, in program order.

    Parameters
    ----------
    recording : Recording

    Attributes
    ----------
    log : array of records, one a cycle
        Of the cycles in which the status record's counters count.
    instructions : list of Instruction
    """

    def __init__(self, recording: Recording) -> None:
        self.config = recording.config
        # `running` says of the cycle before whether it counts.
        on = np.flatnonzero(recording.log["running"])
        self.log = recording.log[on[0] - 1:on[-1]] if len(on) else recording.log[:0]
        self.instructions = self._dispatched(recording)
        self._units()
        self._engine()
        self._reports()

    @property
    def cycles(self) -> int:
        """Cycles of the command, as its status record counts them."""
        return len(self.log)

    def of(self, *queues: Queue) -> list[Instruction]:
        """The instructions of some queues, in program order."""
        return [found for found in self.instructions if found.queue in queues]

    @functools.cached_property
    def products(self) -> list[Instruction]:
        """Those of the engine."""
        return self.of(Queue.MATMUL)

    def _dispatched(self, recording: Recording) -> list[Instruction]:
        log = self.log
        at = np.flatnonzero(log["issue"] | log["control"])
        steps = trace(recording.program, recording.registers, given=recording.given,
                      start=recording.entry, limit=len(at) + 1)
        found = []
        for cycle, pc, step in zip(at.tolist(), log["pc"][at].tolist(), steps, strict=False):
            if step.pc != pc:   # a stop token ended the loop
                step = Step(pc, recording.program[pc][0], recording.program[pc][1])
            found.append(Instruction(step=step, dispatched=cycle, offered=cycle, taken=cycle,
                                     done=cycle, beats=_beats(step, self.config.beat_bytes)))
        return found

    def _units(self) -> None:
        """When queues' heads had their counters, and when units took them."""
        for bit, queue in enumerate(_QUEUES):
            taken = _ones(self.log["taken"], bit)
            offers = _ones(self.log["offered"], bit)
            # The first offer behind the instruction before.
            starts = offers[np.searchsorted(offers, np.concatenate([[-1], taken[:-1]]), "right")]
            _set("offered", self.of(queue), starts)
            _set("taken", self.of(queue), taken)

    def _engine(self) -> None:
        """When the engine worked at each product, and when the epilogue began with it."""
        log = self.log
        ends = np.flatnonzero(log["last"]) + 1
        busy = np.flatnonzero((log["entries"] != 0) | (log["wait_weights"] | log["wait_rows"]) != 0)
        starts = busy[np.searchsorted(busy, np.concatenate([[0], ends[:-1]]))]
        _set("engine", self.products, list(zip(starts.tolist(), ends.tolist(), strict=True)))
        _set("loaded", [found for found in self.products if found.step.values["last"]],
             np.flatnonzero(log["loaded"]))

    def _reports(self) -> None:
        reporters: list[list[Instruction]] = [[] for _ in range(5)]
        for found in self.instructions:
            if found.queue != Queue.CONTROL:
                reporters[_reporter(found.step)].append(found)
        for bit, whose in enumerate(reporters):
            _set("done", whose, _ones(self.log["done"], bit))

    def layers(self) -> tuple[int, int, int]:
        """(first cycle, cycle after the last, layers): the engine's time for the loop's passes but
        the last one, or for all of the program if there is no loop."""
        tops = [k + 1 for k, found in enumerate(self.instructions[:-1])
                if found.step.name == "LOOP"
                and self.instructions[k + 1].step.pc < found.step.pc]
        starts = []
        if tops:
            body = self.instructions[tops[0]].step.pc
            starts = [next(found.engine[0] for found in self.instructions[k:]
                           if found.queue == Queue.MATMUL)
                      for k, found in enumerate(self.instructions)
                      if found.step.pc == body]
        # Passes of one step of decode: the first step's.
        steps = [found.dispatched for found in self.instructions if found.step.name == "NEXT"]
        starts = [start for start in starts if not steps or start < steps[0]]
        if len(starts) > 1:
            return starts[0], starts[-1], len(starts) - 1
        return 0, self.cycles, 1


def _ones(column: npt.NDArray[np.uint8], bit: int) -> Cycles:
    return np.flatnonzero(column >> bit & 1)


def _set(name: str, instructions: Sequence[Instruction], values: Iterable[object]) -> None:
    """One value each; a recording without as many is of a card that broke its word."""
    known = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(known) != len(instructions):
        raise RuntimeError(f"the recording must have {len(instructions)} events {name!r}, "
                           f"not {len(known)}")
    for found, value in zip(instructions, known, strict=True):
        setattr(found, name, value)


def _reporter(step: Step) -> int:
    if step.queue == Queue.MATMUL:
        if not step.values["last"]:
            return _BANK
        return _SOFTMAX if step.values["dest"] else _EPILOGUE
    return _MEMORY if step.queue == Queue.MEMORY else _VECTOR


def _beats(step: Step, beat_bytes: int) -> int:
    """Beats that each channel reads for an instruction."""
    v = step.values
    if step.name == "LOAD":
        return int(v["rows"] * -(-4 * v["words"] // beat_bytes))
    if step.name != "MATMUL":
        return 0
    aux = ((v["scale"] == 1) + (v["norm"] > 0) + v["bias"]) if v["last"] else 0
    return sum(stream_beats(v["rows"], aux, v["beats"] * (1 + v["wide"]), PATTERNS[v["pattern"]],
                            beat_bytes))
