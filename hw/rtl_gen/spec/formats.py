# SPDX-License-Identifier: Apache-2.0
"""How weights lie in memory: N:M patterns, position metadata, and a lane's stream of beats."""

import dataclasses
import math

#: Value beats of one supergroup: its metadata come first, as whole beats.
SUPERGROUP = 16
#: Metadata units of one beat; a unit is ``beat_bytes / 2`` bits.
UNITS_PER_BEAT = 16


@dataclasses.dataclass(frozen=True)
class Pattern:
    """One stored N:M pattern; N is a power of two (others are stored as the next one)."""

    code: int
    n: int
    m: int
    #: "none", "choice" (number of the choice in the order of ``itertools.combinations``),
    #: "bitmap" (bit i: position i is kept) or "positions" (four bits each, ascending).
    coding: str
    #: Metadata bits of one group of ``n`` values.
    bits: int

    @property
    def name(self) -> str:
        return "dense" if self.m == 1 else f"{self.n}:{self.m}"

    @property
    def ratio(self) -> int:
        """Dense positions per stored value."""
        return self.m // self.n

    @property
    def entries(self) -> int:
        """Engine beats that one value beat becomes: a beat covers at most one window per cycle."""
        return max(1, self.ratio // 4)

    @property
    def units(self) -> int:
        """Metadata units of one value beat: ``beat_bytes / n`` groups of ``bits`` bits."""
        return 2 * self.bits // self.n

    @property
    def halved(self) -> bool:
        """An entry takes two steps of the engine: each slot looks at one half of its 16-wide group
        in the one and at the other half in the other.
        """
        return self.ratio >= 4 and self.m == 16

    def slot(self, value: int) -> tuple[int, int, int]:
        """Where slot ``value`` of a beat looks: (engine beat, 16-wide group, ordinal in it).

        Up to ratio 4, slots go through the groups in order.  Beyond it, groups of four slots
        serve the same 16-wide group of each of the ``entries`` windows: all of them the lower
        group of M, then the upper one if M is 8.
        """
        if self.ratio <= 4:
            per_group = 16 // self.ratio
            return 0, value // per_group, value % per_group
        turn, place = divmod(value % 4, self.n)
        upper, entry = divmod(turn, self.entries)
        return entry, value // 4, upper * self.n + place


PATTERNS = (
    Pattern(0, 1, 1, "none", 0),
    Pattern(1, 2, 4, "choice", 3),
    Pattern(2, 4, 8, "bitmap", 8),
    Pattern(3, 8, 16, "bitmap", 16),
    Pattern(4, 1, 4, "choice", 2),
    Pattern(5, 2, 8, "choice", 5),
    Pattern(6, 4, 16, "positions", 16),
    Pattern(7, 1, 8, "choice", 3),
    Pattern(8, 2, 16, "positions", 8),
    Pattern(9, 1, 16, "choice", 4),
)
DENSE = PATTERNS[0]


def stored_as(n: int, m: int) -> Pattern:
    """The pattern in which groups of ``m`` with at most ``n`` kept values are stored.

    >>> stored_as(2, 4).name, stored_as(3, 4).name, stored_as(3, 8).name, stored_as(0, 4).name
    ('2:4', 'dense', '4:8', '1:4')
    """
    if m not in (4, 8, 16):
        raise ValueError(f"M of an N:M pattern must be 4, 8 or 16, not {m}")
    if not 0 <= n <= m:
        raise ValueError(f"N of an N:M pattern must be in 0..{m}, not {n}")
    kept = 1 << max(0, n - 1).bit_length()
    if kept == m:
        return DENSE
    return next(p for p in PATTERNS if (p.n, p.m) == (kept, m))


def parse(text: str) -> tuple[int, int]:
    """``"2:4"`` as (2, 4); ``"dense"`` as (1, 1)."""
    if text == "dense":
        return 1, 1
    n, colon, m = text.partition(":")
    if not (colon and n.isdigit() and m.isdigit()):
        raise ValueError(f"pattern must be dense or N:M as in 2:4, not {text!r}")
    stored_as(int(n), int(m))
    return int(n), int(m)


def meta_beats(values: int, pattern: Pattern) -> int:
    """Metadata beats of ``values`` value beats."""
    full, rest = divmod(values, SUPERGROUP)
    return full * pattern.units + math.ceil(rest * pattern.units / UNITS_PER_BEAT)


def stream_beats(rows: int, aux: int, beats: int, pattern: Pattern, beat_bytes: int) -> tuple[int,
int, int]:
    """Beats of one lane's stream for one instruction: (row constants, metadata, values).

    The stream is the row constants (``rows`` records of ``aux`` 32-bit words, padded to a beat),
    then supergroups of
    metadata and values.  ``beats`` is the number of value beats of one row.
    """
    values = rows * beats
    return math.ceil(4 * rows * aux / beat_bytes), meta_beats(values, pattern), values


#: Activations among which a slot's multiplexer chooses.
NEAR_CHOICES = 8


def index(pattern: Pattern, slot: int, place: int) -> int:
    """The index (4 bits) with which ``slot`` takes activation ``place`` of its 16-wide group.

    Raises
    ------
    ValueError
        The slot cannot meet it in this pattern.
    """
    ordinal = slot % NEAR_CHOICES
    if pattern.ratio == 1:
        legal, found = place == slot % 4, place
    elif pattern.ratio == 2:
        legal = ordinal <= place <= ordinal + NEAR_CHOICES
        found = place % NEAR_CHOICES + (NEAR_CHOICES if place == ordinal + NEAR_CHOICES else 0)
    elif pattern.halved:
        legal, found = place < 2 * NEAR_CHOICES, place
    else:
        legal, found = place // NEAR_CHOICES == slot % 4 // 2, place % NEAR_CHOICES
    if not legal:
        raise ValueError(f"slot {slot} of {pattern.name} cannot meet activation {place}")
    return found


def reach(pattern: Pattern, slot: int) -> list[int]:
    """The activations of its 16-wide group that a slot may meet in streams of a pattern.

    >>> reach(stored_as(2, 4), 3), reach(stored_as(1, 4), 1)
    ([5, 6, 7], [4, 5, 6, 7])
    """
    if pattern.m == 1:
        return [slot % 4]
    if pattern.halved:
        return list(range(2 * NEAR_CHOICES))
    if pattern.ratio > 4:
        first = slot % 4 // 2 * NEAR_CHOICES
        return list(range(first, first + NEAR_CHOICES))
    ordinal = pattern.slot(slot)[2]
    first = ordinal // pattern.n * pattern.m + ordinal % pattern.n
    return list(range(first, first + pattern.m - pattern.n + 1))
