# SPDX-License-Identifier: Apache-2.0
"""The program memory: instruction words, decoded and bound to their handlers when first met."""

import dataclasses
from collections.abc import Callable
from typing import Any

from rtl_gen.spec import isa, rules
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.isa import POSITIONS, Queue, Register
from rtl_gen.spec.registers import Error

Registers = list[int]
Operands = tuple[int, int, int]     # rows, beats, address
MASK = 0xFFFFFFFF


@dataclasses.dataclass(slots=True)
class Instruction:
    """A word of the program.

    Attributes
    ----------
    error : Error
        What is wrong with it whatever the registers hold.
    position : int
        Register of the position that counts.
    operands : (rows, beats, address)
        Zero where it has no such; GIVEN has its number in place of the address.
    resolve : callable or None
        Finds the operands, if they depend on registers.
    legal : dict
        The highest position at which the rules are known to hold, by operands.
    handler : object
        Carries it out; None for control instructions.
    """

    name: str
    word: int
    fields: dict[str, int]
    error: Error
    wait: tuple[int, ...] = ()
    signal: tuple[int, ...] = ()
    position: int = Register.POS
    operands: Operands = (0, 0, 0)
    resolve: Callable[[Registers], Operands] | None = None
    legal: dict[Operands, int] = dataclasses.field(default_factory=dict)
    handler: Any = None


def bits(mask: int) -> tuple[int, ...]:
    """Numbers of the bits that are set."""
    return tuple(k for k in range(mask.bit_length()) if mask >> k & 1)


def decode(word: int) -> Instruction:
    """The instruction of a word, without a handler."""
    try:
        name, fields = isa.decode(word)
    except ValueError:
        return Instruction("", word, {}, Error.ILLEGAL_OPCODE)
    instruction = Instruction(name, word, fields, Error.NONE, bits(fields["wait"]),
                              bits(fields["signal"]), POSITIONS[fields.get("sequence", 0)])
    if isa.FORMATS[name][1] in (Queue.MEMORY, Queue.MATMUL):
        instruction.operands = fields.get("rows", 0), fields.get("beats", 0), fields["address"]
        instruction.resolve = _resolver(fields)
    elif name == "GIVEN":
        rs, imm = fields["rs"], fields["imm"]
        instruction.resolve = lambda registers: (0, 0, registers[rs] + imm & MASK)
    return instruction


def _resolver(f: dict[str, int]) -> Callable[[Registers], Operands] | None:
    """What finds operands; None if they depend on no register."""
    rows, beats = f.get("rows", 0), f.get("beats", 0)
    rows_reg, beats_reg = f.get("rows_reg", 0), f.get("beats_reg", 0)
    address, address_reg = f["address"], f["address_reg"]
    index_reg, stride = f.get("index_reg", 0), f.get("stride", 0)
    if not (rows_reg or beats_reg or address_reg or index_reg):
        return None

    def resolve(registers: Registers) -> Operands:
        return (registers[rows_reg] if rows_reg else rows,
                registers[beats_reg] if beats_reg else beats,
                address + registers[address_reg] + registers[index_reg] * stride & MASK)

    return resolve


def check(config: CardConfig, instruction: Instruction, position: int, operands: Operands,
          program_words: int, given: int = 0) -> Error:
    """The first rule that is broken; ``given`` counts the given tokens."""
    if instruction.name == "GIVEN":     # another command has another list
        return rules.check(config, "GIVEN", {"number": operands[2]}, program_words, given)
    if position <= instruction.legal.get(operands, -1):
        return Error.NONE
    found = _rules(config, instruction, operands, program_words, position)
    if not found:
        # What is legal at one position is legal at all below.  So is, often, what is legal at the
        # end of the lane row or of the context: then the next positions need no look.
        ends = config.context - 1, position | config.channels - 1
        instruction.legal[operands] = next((
            end for end in ends
            if not _rules(config, instruction, operands, program_words, end)), position)
    return found


def _rules(config: CardConfig, instruction: Instruction, operands: Operands,
           program_words: int, position: int) -> Error:
    values = {**instruction.fields, "pos": position}
    resolved = dict(zip(("rows", "beats", "address"), operands, strict=True))
    values |= {name: value for name, value in resolved.items() if name in values}
    return rules.check(config, instruction.name, values, program_words)
