# SPDX-License-Identifier: Apache-2.0
"""Finds races: conflicting instructions that the dependency counters leave unordered.

``sim`` executes in program order and gives the right answer whether or not a program waits where it
must; a card does not.  The checker follows the counters of an executed program alone: it knows
nothing of how the program was made.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

from rtl_gen.spec import rules
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.isa import COUNTER_MAX, COUNTERS, FORMATS, Queue
from rtl_gen.spec.registers import Error

from .effects import Cells, Span, Stage
from .order import Known, Order
from .trace import Plain, Step, trace


class Race(Exception):
    """A program that a card may execute in another order than written, or not at all."""


class _Counter:
    """Signals of one dependency counter that nobody waited for yet."""

    def __init__(self) -> None:
        self.tokens: deque[Known] = deque()
        self.source: Stage | None = None
        #: Who waited last: its queue, stage and number.
        self.sink: tuple[Queue, Stage, int] | None = None


class Checker:
    """Checks one execution of a program.

    Parameters
    ----------
    config : CardConfig
    program : sequence of (name, fields)
    """

    def __init__(self, config: CardConfig, program: Sequence[Plain]) -> None:
        self._config, self._program = config, program
        self._cells = Cells(config)
        self._order = Order(self._cells)
        self._counters = [_Counter() for _ in range(COUNTERS)]
        self._steps: list[Step] = []
        #: HBM writes that no fence has awaited.
        self._writes: list[tuple[int, Span]] = []

    def run(self, registers: dict[int, int], *, given: Sequence[int] = (),
            limit: int = 1_000_000) -> int:
        """Check the execution that starts with ``registers`` and the tokens ``given``; returns its
        instructions.

        A program that goes on for more than ``limit`` instructions is a :class:`RuntimeError`.

        Raises
        ------
        Race
            For the first instruction that is illegal, waits in vain or is not ordered after one
            that it conflicts with.
        """
        for step in trace(self._program, registers, given=given, limit=limit):
            self._check(step, len(given))
            self._steps.append(step)
        left = [number for number, counter in enumerate(self._counters) if counter.tokens]
        if left:
            raise Race(f"counters {left} must be zero at the end")
        return len(self._steps)

    def _check(self, step: Step, given: int) -> None:
        name, v = step.name, step.values
        if any(v[field.name] not in field.limits for field in FORMATS[name][2]):
            raise Race(f"{self._what(step)} has a field out of range")
        error = rules.check(self._config, name, v, len(self._program), given)
        if error != Error.NONE:
            raise Race(f"{self._what(step)} must be legal, not {error.name}")
        known = self._order.before(step)
        for number in range(COUNTERS):
            if v["wait"] >> number & 1:
                known = np.maximum(known, self._take(number, step, known))
        for stage, other, access in self._order.conflicts(step, known):
            cell = self._cells.name(access.cells.start)
            before = self._what(self._steps[other])
            raise Race(f"{self._what(step)} conflicts around {cell} with {before}, whose "
                       f"{stage.name.lower()} stage need not be done")
        self._check_hbm(step)
        self._order.add(step, known)
        for number in range(COUNTERS):
            if v["signal"] >> number & 1:
                self._give(number, step)

    def _take(self, number: int, step: Step, known: Known) -> Known:
        counter = self._counters[number]
        if not counter.tokens:
            raise Race(f"{self._what(step)} waits for counter {number}, which no earlier "
                       "instruction signals")
        # Two queues that wait for one counter take its tokens in no known order, unless the one is
        # through when the other starts.
        if counter.sink is not None:
            queue, stage, last = counter.sink
            if queue != step.queue and known[stage] < last:
                raise Race(f"{self._what(step)} and another queue both wait for counter {number}")
        counter.sink = step.queue, self._cells.completes(step), len(self._steps)
        return counter.tokens.popleft()

    def _give(self, number: int, step: Step) -> None:
        counter = self._counters[number]
        stage = self._cells.completes(step)
        # Tokens of stages that end in no known order say nothing of who gave them.
        if counter.source not in (None, stage):
            raise Race(f"{self._what(step)} and another stage both signal counter {number}")
        counter.source = stage
        counter.tokens.append(self._order.after[-1])
        if len(counter.tokens) > COUNTER_MAX:
            raise Race(f"{self._what(step)} takes counter {number} above {COUNTER_MAX}")

    def _check_hbm(self, step: Step) -> None:
        if step.values.get("fence"):
            self._writes.clear()
        reads, writes = self._cells.reads_hbm(step), self._cells.writes_hbm(step)
        if reads is not None:
            for other, span in self._writes:
                if span.start < reads.stop and reads.start < span.stop:
                    raise Race(f"{self._what(step)} reads what {self._what(self._steps[other])} "
                               "writes, without a fence in between")
        if writes is not None:
            self._writes.append((len(self._steps), writes))

    def _what(self, step: Step) -> str:
        return f"instruction {step.pc} ({step.name})"


def check(config: CardConfig, program: Sequence[Plain], registers: dict[int, int],
          given: Sequence[int] = ()) -> int:
    """Check one execution of a program; see :class:`Checker`."""
    return Checker(config, program).run(registers, given=given)
