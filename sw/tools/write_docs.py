# SPDX-License-Identifier: Apache-2.0
"""Write what of docs/ is generated: docs/isa.md, docs/registers.md, pins of units, boards.

    python sw/tools/write_docs.py            writes them
    python sw/tools/write_docs.py --check    exits with status 1 if one is out of date
"""

import argparse
import functools
import pathlib
import sys

import board_tables
import pin_tables

from rtl_gen.spec import config, formats, isa, link, registers, rules

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
GENERATED = "<!-- Written by sw/tools/write_docs.py; edit hw/rtl_gen/spec instead. -->\n"


def _table(head: tuple[str, ...], rows) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows]) + "\n"


def _bits(fields, low: int):
    for field in fields:
        high = low + field.width - 1
        yield (f"{high}:{low}" if high > low else str(low), f"`{field.name}`",
               "signed" if field.signed else "", field.doc)
        low = high + 1


def isa_page() -> str:
    """The instruction set."""
    parts = [f"# Instruction set\n\n{GENERATED}\nEvery instruction is a word of {isa.WORD_BITS} bits, little-endian, fields "
             "from the lowest bit up; bits beyond an instruction's fields are zero. What the instructions do together is in "
             "[architecture](architecture.md), their arithmetic in [numerics](numerics.md).\n\n"
             "All instructions begin with\n\n", _table(
                 ("bits", "field", "", "meaning"), _bits(isa.HEADER, 0))]
    parts.append("\nWords are refused at dispatch when a rule does not hold; C, T, V and the capacities are those of the card's "
                 "configuration. For all queues but control:\n\n")
    parts += [f"* {text}\n" for text, _ in rules.COMMON]
    parts.append("\n## Registers\n\n" + _table(("number", "name"), [(int(r), r.name) for r in isa.Register]))
    start = sum(field.width for field in isa.HEADER)
    for name, (opcode, queue, fields, doc) in isa.FORMATS.items():
        parts.append(f"\n## {name}\n\nOpcode `{opcode:#04x}`, {queue.name.lower()} queue. {doc}\n")
        if fields:
            parts.append("\n" + _table(("bits", "field", "", "meaning"), _bits(fields, start)))
        if name in rules.RULES:
            parts.append("\nLegal if\n\n" + "".join(f"* {text}\n" for text, _ in rules.RULES[name]))
        if name in ("LOOP", "NEXT"):
            parts.append("\nLegal if `target` is an instruction of the program.\n")
        if name == "GIVEN":
            parts.append("\nLegal if rs + imm is below the number of given tokens.\n")
        kinds = {"VECTOR": isa.VectorFn, "SCALAR": isa.ScalarFn}.get(name)
        if kinds:
            parts.append("\n" + _table(("fn", "function"), [(int(fn), fn.name) for fn in kinds]))
    parts.append("\n## Patterns of MATMUL\n\nOther N:M are stored as the next power of two of N.\n\n" + _table(
        ("code", "pattern", "positions a value", "coding", "metadata bits a group", "bits a weight"),
        [(p.code, p.name, p.ratio, p.coding, p.bits,
          f"{(8 * p.n + p.bits) / p.m:g}") for p in formats.PATTERNS]))
    return "".join(parts)


def registers_page() -> str:
    """What the host sees."""
    offsets = [(f"`{offset:#05x}`", name) for name, offset in registers.CONTROL.items()]
    offsets += [(f"`{registers.CHANNEL_BASE:#05x}` + 8c", "byte address of channel c on its port (low, high)"),
                (f"`{registers.STATUS_BASE:#05x}`", "status record, read only")]
    parts = [f"# Registers and records\n\n{GENERATED}\n", registers.__doc__.split("\n", 1)[1].strip(),
             "\n\n## Control port\n\n", _table(("offset", "register"), offsets)]
    parts.append("\n## As a Vitis kernel\n\nArguments by number; c is the channel. A ring's streams have numbers behind them.\n\n")
    (low, *_), (high, *_) = registers.arguments(0)
    parts.append(_table(("number", "argument", "offset", "bytes"), [
        (0, f"`{low}`, of the command record's byte address", f"`{registers.CONTROL[low]:#05x}`", 4),
        (1, f"`{high}`", f"`{registers.CONTROL[high]:#05x}`", 4),
        (f"{registers.FIRST_BUFFER} + c", "`hbm00` …: the channel's buffer", f"`{registers.CHANNEL_BASE:#05x}` + 8c", 8)]))
    for title, words, magic in (("Command record", registers.COMMAND, registers.COMMAND_MAGIC),
                                ("Status record", registers.STATUS, registers.STATUS_MAGIC),
                                ("Result record", registers.RESULT, None)):
        parts.append(f"\n## {title}\n\n")
        if magic is not None:
            parts.append(f"`magic` is `{magic:#010x}`.\n\n")
        parts.append(_table(("word", "name"), list(enumerate(words))))
    parts.append(f"\n## Frames of a ring's links\n\n{link.__doc__.split(chr(10), 2)[2].strip()}\n\n")
    low, rows = 0, []
    for name, bits, meaning in link.FIELDS:
        rows.append((f"{low + bits - 1}:{low}" if bits > 1 else low, f"`{name}`", meaning))
        low += bits
    parts.append(_table(("bit", "field of a trailer", "meaning"), [*rows, ("highest 32", "", "CRC-32.")]))
    parts.append("\n" + _table(("state", "name"), [(int(s), s.name) for s in link.State]))
    parts.append("\n" + _table(("failure", "name"), [(int(f), f.name) for f in link.Failure]))
    parts.append("\n## Errors\n\n" + _table(("code", "name"), [(int(e), e.name) for e in registers.Error]))
    parts.append("\n## Sticky bits\n\n" + _table(("bit", "name"), [
        (int(s).bit_length() - 1, s.name) for s in registers.Sticky]))
    parts.append("\n## Named configurations\n\n" + _table(
        ("name", "C = V", "B", "T", "MHz", "digest"),
        [(c.name, c.channels, c.beat_bytes, c.tokens, c.clock_mhz, f"`{c.digest:#010x}`")
         for c in config.CONFIGS.values()]))
    return "".join(parts)


def unit_page(name: str) -> str:
    """A unit's page with its tables of pins made anew."""
    text = (DOCS / "units" / f"{name}.md").read_text()
    for unit, page in pin_tables.PAGES.items():
        if page == name:
            text = pin_tables.renewed(text, unit)
    return text


def boards_page() -> str:
    """The page of boards with its table made anew."""
    return board_tables.renewed((DOCS / "boards.md").read_text())


PAGES = {"isa.md": isa_page, "registers.md": registers_page, "boards.md": boards_page} | {
    f"units/{name}.md": functools.partial(unit_page, name)
    for name in dict.fromkeys(pin_tables.PAGES.values())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    stale = []
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    if check and stale:
        print(f"{', '.join(stale)} out of date: run python sw/tools/write_docs.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
