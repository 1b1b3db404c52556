# SPDX-License-Identifier: Apache-2.0
"""Programs for people: one line an instruction."""

from collections.abc import Iterator, Sequence

from rtl_gen.spec import isa
from rtl_gen.spec.formats import PATTERNS
from rtl_gen.spec.isa import COUNTERS, WORD_BYTES, Register, VectorFn

from .errors import UserError
from .program import Program

_HEADER = ("opcode", "wait", "signal")


def words(data: bytes) -> list[int]:
    """Instruction words of a program's image."""
    if not data or len(data) % WORD_BYTES:
        raise UserError(f"a program must have a multiple of {WORD_BYTES} bytes, and some, not "
                        f"{len(data)}")
    return [int.from_bytes(data[at:at + WORD_BYTES], "little")
            for at in range(0, len(data), WORD_BYTES)]


def _value(name: str, key: str, value: int) -> str:
    if key.endswith("_reg") or key in ("rd", "rs"):
        return f"{key}={Register(value).name}"
    if key == "pattern" and value < len(PATTERNS):
        return f"pattern={PATTERNS[value].name}"
    if key == "fn" and name == "VECTOR" and value < len(VectorFn):
        return f"fn={VectorFn(value).name}"
    if key in ("address", "inv", "count", "eps") and value > 9:
        return f"{key}={value:#x}"
    return f"{key}={value}"


def _counters(mask: int) -> str:
    return ",".join(str(number) for number in range(COUNTERS) if mask >> number & 1)


def line(word: int) -> str:
    """One instruction; a word that is none says so."""
    try:
        name, values = isa.decode(word)
    except ValueError as error:
        return f"?        {word:#066x}  {error}"
    parts = [_value(name, key, value) for key, value in values.items()
             if value and key not in _HEADER]
    parts += [f"{key}={_counters(values[key])}" for key in ("wait", "signal") if values[key]]
    return f"{name:<8} {' '.join(parts)}".rstrip()


def listing(program: Program | Sequence[int]) -> Iterator[str]:
    """The lines of a program: notes, numbers and instructions."""
    notes = program.notes if isinstance(program, Program) else {}
    every = program.words() if isinstance(program, Program) else program
    for number, word in enumerate(every):
        if number in notes:
            yield f"# {notes[number]}"
        yield f"{number:5}  {line(word)}"
