# SPDX-License-Identifier: Apache-2.0
"""Which instructions a program carries out, one after another, with their operands resolved.

This is control flow only: registers are computed, data are not.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from rtl_gen.spec.isa import FORMATS, POSITIONS, Queue, Register
from rtl_gen.spec.rules import Values

#: An instruction before it is encoded: its name and its fields.
Plain = tuple[str, Values]

_WORD = (1 << 32) - 1


@dataclasses.dataclass(frozen=True)
class Step:
    """One executed instruction."""

    pc: int
    name: str
    #: Fields, with registers applied to ``rows``, ``beats`` and ``address``; ``pos``, that of
    #: its sequence; and of a GIVEN ``number``, which of the given words it takes.
    values: Values

    @property
    def queue(self) -> Queue:
        return FORMATS[self.name][1]


def resolve(name: str, fields: Values, registers: Sequence[int]) -> Values:
    """The operands of an instruction as dispatch sees them."""
    v = {**fields, "pos": registers[POSITIONS[fields.get("sequence", 0)]]}
    for operand in ("rows", "beats"):
        if v.get(f"{operand}_reg"):
            v[operand] = registers[v[f"{operand}_reg"]]
    if "address_reg" in v:
        index = v.get("stride", 0) * registers[v.get("index_reg", 0)]
        v["address"] = v["address"] + registers[v["address_reg"]] + index & _WORD
    if name == "GIVEN":
        v["number"] = registers[v["rs"]] + v["imm"] & _WORD
    return v


def trace(program: Sequence[Plain], registers: dict[int, int], *,
          given: Sequence[int] = (), start: int = 0, limit: int = 1_000_000) -> Iterator[Step]:
    """Run the control flow of ``program`` from instruction ``start`` to HALT.

    Parameters
    ----------
    program : sequence of (name, fields)
        Fields that are left out are 0.
    registers : dict
        Initial values; those left out are 0.
    given : sequence of int
        What GIVEN reads; :class:`RuntimeError` for a number beyond it.
    limit : int
        Instructions after which :class:`RuntimeError` is raised: a program without end.

    Notes
    -----
    No token is ever a stop token.  TOKEN keeps its value where none is given.
    """
    regs = [registers.get(number, 0) for number in Register]
    pc = start
    for _ in range(limit):
        if pc >= len(program):
            raise RuntimeError(f"the program must end with HALT, not run past {pc}")
        name, fields = program[pc]
        regs[Register.ZERO] = 0
        full = {field.name: fields.get(field.name, 0) for field in FORMATS[name][2]}
        full |= {key: fields.get(key, 0) for key in ("wait", "signal")}
        yield Step(pc, name, resolve(name, full, regs))
        pc += 1
        match name:
            case "HALT":
                return
            case "ADDI":
                regs[full["rd"]] = regs[full["rs"]] + full["imm"] & _WORD
            case "SHRI":
                regs[full["rd"]] = regs[full["rs"]] >> full["imm"]
            case "GIVEN":
                number = regs[full["rs"]] + full["imm"] & _WORD
                if number >= len(given):
                    raise RuntimeError(f"instruction {pc - 1} (GIVEN) must name one of "
                                       f"{len(given)} given words, not {number}")
                regs[full["rd"]] = given[number]
            case "LOOP":
                regs[full["rd"]] = regs[full["rd"]] - 1 & _WORD
                pc = full["target"] if regs[full["rd"]] else pc
            case "NEXT":
                for register, gain in ((Register.STEP, 1), (Register.POS, 1), (Register.LEN, 1),
                                       (Register.LEFT, -1)):
                    regs[register] = regs[register] + gain & _WORD
                if regs[Register.STEP] < len(given):
                    regs[Register.TOKEN] = given[regs[Register.STEP]]
                pc = full["target"] if regs[Register.LEFT] else pc
    raise RuntimeError(f"the program must end within {limit} instructions")
