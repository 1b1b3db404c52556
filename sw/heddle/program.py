# SPDX-License-Identifier: Apache-2.0
"""Programs, and the builder that finds their dependency counters.

A program is written as if instructions were executed one after another.  The builder runs its
control flow, sees which instructions touch the same cells in different queues, and lets the later
one wait for the earlier one where nothing else orders them.  :mod:`heddle.check` verifies the
result without knowing how it was made.

A program is a row of *sections*, one of which may be a loop body.  Waits within one execution of a
section are found alone.  Between a section and the next, the instructions on both sides must have a
*role*, and every section that may follow must have the waiting role, every one that may precede the
signalling role: so tokens never pile up.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from rtl_gen.spec import isa
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.isa import COUNTERS, FORMATS, Queue
from rtl_gen.spec.rules import Values

from .effects import Cells, Stage
from .errors import UserError
from .order import Known, Order
from .trace import Plain, Step, trace

#: The queues that work beside control's.
_UNITS = (Queue.VECTOR, Queue.MEMORY, Queue.MATMUL, Queue.SEND_PREVIOUS, Queue.SEND_NEXT,
          Queue.RECEIVE_PREVIOUS, Queue.RECEIVE_NEXT)
#: A loop is followed this often: its first, a middle and its last pass.
_PASSES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """Instructions with their waits and signals.

    Attributes
    ----------
    instructions : tuple of (name, fields)
    notes : dict
        What the instruction of that number begins, for listings.
    """

    instructions: tuple[Plain, ...]
    notes: dict[int, str]

    def words(self) -> list[int]:
        """The instruction words."""
        return [isa.encode(name, **fields) for name, fields in self.instructions]

    def moved(self, base: int) -> "Program":
        """The same program, to lie from instruction ``base`` of the program memory on."""
        return Program(
            notes={base + number: text for number, text in self.notes.items()},
            instructions=tuple(
                (name, {**fields, "target": fields["target"] + base}
                 if name in ("LOOP", "NEXT") else fields)
                for name, fields in self.instructions))

    def image(self) -> bytes:
        """The words as they lie in memory."""
        return b"".join(word.to_bytes(isa.WORD_BYTES, "little") for word in self.words())

    def __len__(self) -> int:
        return len(self.instructions)


#: Who waits for whom: numbers of instructions, or roles between sections.
_Edges = dict[tuple[Stage, Queue], list[tuple[int, int]]]
_RoleEdges = dict[tuple[Stage, Queue], list[tuple[str, str]]]


class Builder:
    """Writes a program, then orders it.

    Parameters
    ----------
    config : CardConfig
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        self._plain: list[Plain] = []
        self._roles: list[str | None] = []
        self._sections: list[int] = []
        self._notes: dict[int, str] = {}
        self._loops: dict[int, int] = {}
        self._counters_of_loops: set[int] = set()
        #: Instructions that start when everything before them in these queues is complete.
        self._settling: dict[int, tuple[Queue, ...]] = {}
        #: Instructions that start when nobody else reads what they read.
        self._owning: set[int] = set()

    def __len__(self) -> int:
        return len(self._plain)

    def section(self) -> int:
        """Begin a section; returns the number of its first instruction, to jump to."""
        self._sections.append(len(self))
        return len(self)

    def note(self, text: str) -> None:
        """Say in listings what the next instruction begins."""
        self._notes[len(self)] = text

    def emit(self, name: str, role: str | None = None, /, **fields: int) -> None:
        """Append an instruction; fields that are left out are 0."""
        for field in FORMATS[name][2]:
            value = fields.get(field.name, 0)
            if value not in field.limits:
                raise UserError(f"{field.name} of {name} must be at most {field.limits.stop - 1}, "
                                f"not {value}: the model is too large for this card")
        self._plain.append((name, fields))
        self._roles.append(role)

    def patch(self, number: int, **fields: int) -> None:
        """Give an instruction fields that were not known when it was written."""
        self._plain[number][1].update(fields)

    def settle(self) -> None:
        """Hold all that follows until everything before is complete."""
        self.after(*_UNITS)
        self.emit("NOP")

    def after(self, *queues: Queue) -> None:
        """Hold the next instruction until everything before it in some queues is complete."""
        self._settling[len(self)] = queues

    def own(self) -> None:
        """Hold the next instruction until those before it that read the same have done so: who
        then waits for it has not to wait for them."""
        self._owning.add(len(self))

    def passes(self, register: int, count: int) -> None:
        """Set the counter of a loop; ordering follows no more than a few of its passes."""
        self._loops[len(self)] = min(count, _PASSES)
        self._counters_of_loops.add(register)
        self.emit("ADDI", rd=register, imm=count)

    def finish(self, *starts: dict[int, int], given: Sequence[int] = ()) -> Program:
        """Order the program.

        Parameters
        ----------
        starts : dict
            Registers with which it touches, in one of its runs from them, all that it ever may
            touch together.
        given : sequence of int
            Words for its GIVEN.
        """
        if len(self) > self._config.program_words:
            raise UserError(f"program_words of {self._config.name} must be at least {len(self)} "
                            f"for this model, not {self._config.program_words}")
        short = [(name, {**fields, "imm": self._loops[number]} if number in self._loops else fields)
                 for number, (name, fields) in enumerate(self._plain)]
        # Steps of decode never overlap.
        settling = self._settling | {number: _UNITS for number, (name, _) in enumerate(short)
                                     if name == "NEXT"}
        shortened = [{register: min(value, _PASSES) if register in self._counters_of_loops
                      else value for register, value in start.items()} for start in starts]
        inside, across = _Orderer(self._config, short, self._roles, self._sections,
                                  settling, self._owning).edges(shortened, given)
        bits = self._counters(inside, across)
        return Program(notes=self._notes, instructions=tuple(
            (name, {**fields, **bits[number]})
            for number, (name, fields) in enumerate(self._plain)))

    def _counters(self, inside: _Edges, across: _RoleEdges) -> dict[int, Values]:
        """Wait and signal bits by instruction: one counter for each pair of stage and queue."""
        bits: dict[int, Values] = defaultdict(lambda: {"wait": 0, "signal": 0})
        holders = defaultdict(list)
        for number, role in enumerate(self._roles):
            if role is not None:
                holders[role].append(number)
        used = len(inside) + len(across)
        if used > COUNTERS:
            raise RuntimeError(f"the program must need at most {COUNTERS} counters, not {used}")
        for counter, pairs in enumerate(inside.values()):
            for source, sink in pairs:
                bits[source]["signal"] |= 1 << counter
                bits[sink]["wait"] |= 1 << counter
        for counter, named in enumerate(across.values(), len(inside)):
            for source_role, sink_role in named:
                for number in holders[source_role]:
                    bits[number]["signal"] |= 1 << counter
                for number in holders[sink_role]:
                    bits[number]["wait"] |= 1 << counter
        return bits


class _Orderer:
    """Finds who must wait for whom by following an execution."""

    def __init__(self, config: CardConfig, plain: Sequence[Plain], roles: Sequence[str | None],
                 sections: Sequence[int], settling: dict[int, tuple[Queue, ...]],
                 owning: set[int]) -> None:
        self._plain, self._roles, self._starts = plain, roles, set(sections)
        self._settling, self._owning = settling, owning
        self._cells = Cells(config)
        #: By who waits: for whom.
        self._inside: dict[int, set[int]] = defaultdict(set)
        self._across: dict[str, set[str]] = defaultdict(set)

    def edges(self, starts: Sequence[dict[int, int]], given: Sequence[int]
              ) -> tuple[_Edges, _RoleEdges]:
        """Pairs (signals, waits) in program order: of instructions, and of roles across
        sections."""
        for registers in starts:
            self._follow(registers, given)
        return self._chains()

    def _follow(self, registers: dict[int, int], given: Sequence[int]) -> None:
        """Find what one run needs beyond the waits that are known."""
        self._order = Order(self._cells)
        self._steps: list[Step] = []
        #: By executed instruction, which execution of a section it belongs to.
        self._turns: list[int] = []
        #: Executed instruction by (turn, number) and by (turn, role).
        self._by_number: dict[tuple[int, int], int] = {}
        self._by_role: dict[tuple[int, str], int] = {}
        turn = -1
        for step in trace(self._plain, registers, given=given):
            turn += step.pc in self._starts
            known = self._learned(step, turn)
            if step.pc in self._settling:
                known = self._settle(step, turn, known)
            # `conflicts` sees what `_wait` adds to `known`.
            owns = step.pc in self._owning
            for stage, other, _ in self._order.conflicts(step, known, owns=owns):
                np.maximum(known, self._wait(step, turn, stage, other), out=known)
            self._note(step, turn)
            self._order.add(step, known)

    def _learned(self, step: Step, turn: int) -> Known:
        """What a step knows by the waits found so far."""
        known = self._order.before(step).copy()
        for source in self._inside.get(step.pc, ()):
            known = np.maximum(known, self._order.after[self._by_number[turn, source]])
        for before in self._across.get(self._roles[step.pc] or "", ()):
            known = np.maximum(known, self._order.after[self._by_role[turn - 1, before]])
        return known

    def _settle(self, step: Step, turn: int, known: Known) -> Known:
        """Let a step start only when everything before it in some queues is complete."""
        for queue in self._settling[step.pc]:
            last = next((k for k in reversed(range(len(self._steps)))
                         if self._steps[k].queue == queue), None)
            if last is not None:
                stage = self._order.cells.completes(self._steps[last])
                if known[stage] < last:
                    known = np.maximum(known, self._wait(step, turn, stage, last))
        return known

    def _wait(self, step: Step, turn: int, stage: Stage, other: int) -> Known:
        """Order ``step`` after executed instruction ``other``; returns what it knows from that."""
        source = self._signaller(stage, other, turn)
        if self._turns[source] == turn:
            self._inside[step.pc].add(self._steps[source].pc)
        else:
            before, after = self._roles[self._steps[source].pc], self._roles[step.pc]
            if before is None or after is None or self._turns[source] != turn - 1:
                raise RuntimeError(
                    f"instruction {step.pc} ({step.name}) must come after {self._steps[source].pc} "
                    f"({self._steps[source].name}) of an earlier section, and both need a role")
            self._across[after].add(before)
        return self._order.after[source]

    def _signaller(self, stage: Stage, other: int, turn: int) -> int:
        """The instruction whose end tells that ``other`` is through ``stage``.

        One of this turn of the section is best: it needs no role.
        """
        completes = self._order.cells.completes
        if stage in (Stage.SEND_PREVIOUS, Stage.SEND_NEXT):
            # The vector unit awaits them sooner or later, and is awaited anyway.
            for number in range(other, len(self._steps)):
                if self._turns[number] == turn and self._order.after[number][stage] >= other \
                        and completes(self._steps[number]) == Stage.VECTOR:
                    return number
        # Results in the scratchpad are awaited anyway: their signal serves for what they overtook.
        ends = Stage.EPILOGUE if stage == Stage.ENGINE else stage
        later = [number for number in range(other, len(self._steps))
                 if completes(self._steps[number]) == ends]
        here = [number for number in later if self._turns[number] == turn]
        named = [number for number in later if self._roles[self._steps[number].pc] is not None]
        return next(iter(here or named or later), other)

    def _note(self, step: Step, turn: int) -> None:
        number, role = len(self._steps), self._roles[step.pc]
        self._steps.append(step)
        self._turns.append(turn)
        self._by_number[turn, step.pc] = number
        if role is not None:
            self._by_role[turn, role] = number

    def _chains(self) -> tuple[_Edges, _RoleEdges]:
        """All edges by stage and queue, those left out that an earlier wait makes needless."""
        by_pc = {step.pc: step for step in self._steps}
        # Roles lie in one order in all sections that have them.
        by_role = {role: step for step in self._steps
                   if (role := self._roles[step.pc]) is not None}
        completes = self._order.cells.completes
        inside: _Edges = {}
        for sink in sorted(self._inside):
            for source in sorted(self._inside[sink], reverse=True):
                chain = inside.setdefault((completes(by_pc[source]), by_pc[sink].queue), [])
                if not chain or source > chain[-1][0]:
                    chain.append((source, sink))
        across: _RoleEdges = {}
        for after in sorted(self._across, key=lambda role: by_role[role].pc):
            for before in sorted(self._across[after], key=lambda role: -by_role[role].pc):
                key = completes(by_role[before]), by_role[after].queue
                named = across.setdefault(key, [])
                if not named or by_role[before].pc > by_role[named[-1][0]].pc:
                    named.append((before, after))
        return inside, across
