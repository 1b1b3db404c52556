# SPDX-License-Identifier: Apache-2.0
"""The digest of the contract: what a card was built from and what a host was written for."""

import dataclasses
import hashlib
import json

from . import formats, isa, link, registers, tables

#: Raised by hand where the meaning of a word changes and nothing below does.
REVISION = 4


def text() -> str:
    """Everything that the digest covers, as JSON; comments and descriptions are left out."""
    def layout(fields: tuple[isa.Field, ...]) -> list[tuple[str, int, bool]]:
        return [(field.name, field.width, field.signed) for field in fields]

    return json.dumps({
        "revision": REVISION,
        "header": layout(isa.HEADER),
        "formats": {name: (opcode, queue, layout(fields))
                    for name, (opcode, queue, fields, _) in isa.FORMATS.items()},
        "enums": {kind.__name__: {member.name: int(member) for member in kind}
                  for kind in (isa.Register, isa.VectorFn, isa.ScalarFn, registers.Error,
                               registers.Sticky, link.Kind, link.State, link.Failure)},
        "counters": (isa.COUNTERS, isa.COUNTER_MAX),
        "records": (registers.COMMAND_MAGIC, registers.STATUS_MAGIC, registers.COMMAND,
                    registers.STATUS, registers.RESULT, registers.RING, registers.LINK,
                    registers.STOP),
        "link": (link.TRAILER, link.CRC_BITS, link.NUMBER_BITS),
        "patterns": [dataclasses.astuple(pattern) for pattern in formats.PATTERNS],
        "supergroup": (formats.SUPERGROUP, formats.UNITS_PER_BEAT),
        "tables": (tables.EXP_LOG2E, tables.EXP, tables.GELU),
    }, sort_keys=True)


#: 32 bits that change with anything in the contract; cards report it in their status record.
DIGEST = int.from_bytes(hashlib.sha256(text().encode()).digest()[:4], "little")
