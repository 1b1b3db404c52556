# SPDX-License-Identifier: Apache-2.0
"""Layouts of what goes over a link."""

from amaranth.lib import data

from ..spec import link

#: One beat in 16-bit numbers.
NUMBER = link.NUMBER_BITS
#: A trailer without its CRC.
TRAILER = data.StructLayout(dict(link.TRAILER))


def beat(beat_bytes: int) -> data.StructLayout:
    """A beat of a message, or of a frame: then ``last`` marks the trailer."""
    return data.StructLayout({"data": 8 * beat_bytes, "last": 1})


def check(beat_bytes: int, depth: int, frame_beats: int) -> None:
    """:class:`ValueError` unless a link can be built so."""
    if beat_bytes < link.LEAST_BEAT or beat_bytes & beat_bytes - 1:
        raise ValueError(f"beat_bytes must be a power of two from {link.LEAST_BEAT} up, "
                         f"not {beat_bytes!r}")
    if depth & depth - 1 or not 2 <= depth <= 1 << NUMBER - 2:
        raise ValueError(f"depth must be a power of two in 2..{1 << NUMBER - 2}, not {depth!r}")
    if not 1 <= frame_beats <= depth // 2:
        raise ValueError(f"frame_beats must be in 1..{depth // 2}, half the depth, "
                         f"not {frame_beats!r}")
