# SPDX-License-Identifier: Apache-2.0
"""Frames between the host and a board on a serial line.

The host sends a request and waits for its answer; the board sends nothing else.  Both begin with a
header, its fields little-endian and in the order below; ``size`` bytes follow it where they are
payload, and the CRC-32 (IEEE 802.3) of all that, its lowest byte first.

A frame that is not whole is never carried out.  The board then waits until the line has been
silent for its gap and answers with FAULT; so the host's frame after that answer begins anew.  A
request whose answer does not come is sent again with its number: the board carries out a write of
registers with the number of the last one only once.
"""

import enum
import zlib

#: Fields of a request's and of an answer's header, and the bytes of each.
REQUEST = (("magic", 1), ("kind", 1), ("number", 1), ("size", 2), ("address", 4))
ANSWER = (("magic", 1), ("code", 1), ("number", 1), ("size", 2))
REQUEST_BYTES = sum(size for _, size in REQUEST)
ANSWER_BYTES = sum(size for _, size in ANSWER)
CRC_BYTES = 4
#: First byte of a request and of an answer.
REQUEST_MAGIC, ANSWER_MAGIC = 0xC3, 0x3C
#: Longest payload.
LONGEST = 2048
#: Of this text; a board says in HELLO which it knows.
REVISION = 1


class Kind(enum.IntEnum):
    """What a request asks for.  ``size`` is that of the payload of WRITE and SET, and of the
    answer's payload otherwise."""

    HELLO = 1       #: who is there (see ``HELLO_WORDS``); forgets the number of the last SET
    READ = 2        #: memory from byte ``address`` on, whole beats
    WRITE = 3       #: the same, written
    GET = 4         #: control registers from ``address`` on, whole words
    SET = 5         #: the same, written
    RESET = 6       #: resets the card, not its memory


class Code(enum.IntEnum):
    """What came of a request."""

    DONE = 0
    FAULT = 1       #: something came that was no whole frame; nothing was done
    KIND = 2        #: no such request
    SIZE = 3        #: a size that the request cannot have
    ADDRESS = 4     #: a place that is none, or between two
    REFUSED = 5     #: the card refused to read or write a register; those before it were written


#: 32-bit words of HELLO's answer: revision of this text, bytes of a beat, bytes of memory, clock
#: (Hz), and silence after which a frame has ended (µs).
HELLO_WORDS = ("revision", "beat_bytes", "memory", "clock", "gap")


def request(kind: int, number: int, size: int, address: int, payload: bytes = b"") -> bytes:
    """A request's bytes."""
    values = {"magic": REQUEST_MAGIC, "kind": kind, "number": number, "size": size,
              "address": address}
    return _frame(REQUEST, values, payload)


def answer(code: int, number: int, payload: bytes = b"") -> bytes:
    """An answer's bytes."""
    values = {"magic": ANSWER_MAGIC, "code": code, "number": number, "size": len(payload)}
    return _frame(ANSWER, values, payload)


def _frame(fields: tuple[tuple[str, int], ...], values: dict[str, int], payload: bytes) -> bytes:
    header = b"".join(values[name].to_bytes(size, "little") for name, size in fields)
    return header + payload + zlib.crc32(header + payload).to_bytes(CRC_BYTES, "little")
