# SPDX-License-Identifier: Apache-2.0
"""Which activation each weight meets: shared alignment by ratio, then 8 : 1 in every slot.

Positions that a slot keeps ascend, so of its window it can meet few.  At ratio 2 eight slots share
16 activations, and slot k of them meets number k to k + 8: eight of them, one for each position
modulo 8, go through a multiplexer of its own (*near*); the ninth (*far*) goes around it, through an
adder of the multiplier.  At ratio 4 four slots share 16 activations, and each pair of them looks at
one half, near all.  Patterns whose slots may look anywhere take another step with the halves
crossed; in each step those slots count whose activation is there.

*Candidates* of half of the columns are one vector of bits: for each pair of slots, ``CHOICES``
candidates, of each one digit for each column of the half, lowest first.
"""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..spec.config import CardConfig
from ..spec.formats import NEAR_CHOICES, PATTERNS, index, reach

#: Slots that share their candidates.
PAIR = 2
#: Near candidates of a slot.
NEAR = NEAR_CHOICES
#: Candidates of a pair: near ones; in place of one of them for the second slot, which is the far
#: one of the first; the far one of the second.
CHOICES = NEAR + 2


def half_columns(config: CardConfig) -> int:
    """Columns of one half: they share the entry and the plane address."""
    return config.tokens // 2


def half_bits(config: CardConfig) -> int:
    """Bits of the candidates of one half."""
    return config.beat_bytes // PAIR * CHOICES * 8 * half_columns(config)


def window_bits(config: CardConfig) -> int:
    """Bits of one window of one column."""
    return 4 * config.beat_bytes * 8


def asked_for(config: CardConfig) -> set[tuple[int, int, int]]:
    """Which candidates the patterns of a configuration take, and where from.

    Returns
    -------
    set of (pair, candidate, source)
        Sources are those of :class:`Align`: lower and upper half of a window at ratio 2, the half
        of a group that is a pair's own and the other one at ratio 4.
    """
    found = set()
    for pattern in PATTERNS:
        if pattern.m not in config.group_sizes:
            continue
        for slot in range(config.beat_bytes):
            for place in reach(pattern, slot):
                where = index(pattern, slot, place)
                near, replaced = where % NEAR, (slot - 1) % NEAR
                candidate = near
                if where >= NEAR and not pattern.halved:
                    candidate = NEAR + slot % PAIR
                elif slot % PAIR and near == replaced:
                    candidate = NEAR
                sources = (0, 1) if pattern.ratio == 2 else (2, 3) if pattern.halved else (2,)
                found |= {(slot // PAIR, candidate, source) for source in sources}
    return found


class Align(wiring.Component):
    """Candidates of one half from the windows of its columns; combinational.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    windows : ``In(columns of a half × 4B bytes)``
        Four blocks of each column, lowest column first.
    block : ``In(2)``
        The block of the window that the entry starts at.
    ratio : ``In(2)``
        Logarithm of the ratio, 0..2.
    cross : ``In(1)``
        At ratio 4: slots 0 and 1 of four look at the upper half of their group, 2 and 3 at the
        lower one.
    candidates : ``Out(half_bits(config))``
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "windows": In(half_columns(config) * window_bits(config)),
            "block": In(2), "ratio": In(2), "cross": In(1), "candidates": Out(half_bits(config))})

    def elaborate(self, platform):
        m = Module()
        beat, columns = 8 * self.config.beat_bytes, half_columns(self.config)
        size = 8 * columns
        four = [self.windows.word_select(column, 4 * beat) for column in range(columns)]

        def digits(column_bits, place):
            """The digits of all columns at a place."""
            return Cat(bits.word_select(place, 8) for bits in column_bits)

        # A multiplexer of four for every candidate: two halves of a window at ratio 2, of a group
        # at ratio 4.
        sources = [[] for _ in range(4)]
        asked = asked_for(self.config)
        for pair in range(self.config.beat_bytes // PAIR):
            first = PAIR * pair % NEAR          # the number of its first slot among eight
            window, group = PAIR * pair // NEAR * 2 * NEAR, pair // 2 * 2 * NEAR
            near = [k if k >= first else k + NEAR for k in range(NEAR)]
            for candidate, (place, fourth) in enumerate((
                    *zip(near, range(NEAR), strict=True),
                    (first + NEAR, first), (first + 1 + NEAR, 0))):
                half = pair % 2 * NEAR
                places = (window + place, 2 * self.config.beat_bytes + window + place,
                          group + half + fourth, group + NEAR - half + fourth)
                # What no pattern takes may be anything: what another one takes, or nothing.
                taken = [k for k in range(4) if (pair, candidate, k) in asked]
                for k, source in enumerate(sources):
                    at = places[k if k in taken else max(taken)] if taken else None
                    source.append(Const(0, size) if at is None else digits(four, at))
        second, many = Signal(), Signal(half_bits(self.config))
        m.d.comb += [
            second.eq(Mux(self.ratio[1], self.cross, self.block[1])),
            many.eq(Mux(self.ratio[1],
                        Mux(second, Cat(sources[3]), Cat(sources[2])),
                        Mux(second, Cat(sources[1]), Cat(sources[0]))))]
        m.d.comb += self.candidates.eq(many)

        # A dense slot looks at its own activation only.
        with m.If(self.ratio == 0):
            for slot in range(self.config.beat_bytes):
                candidate = slot // PAIR * CHOICES + slot % 4
                one = [Cat(bits[8 * slot + beat * block:][:8] for block in range(4)
                           ).word_select(self.block, 8) for bits in four]
                m.d.comb += self.candidates.word_select(candidate, size).eq(Cat(one))
        return m


def near_halves(candidates: Value, slot: int, choice: Value) -> tuple[Value, Value]:
    """Two of a slot's near candidates, between which bit 2 of ``choice`` decides.

    Multiplexers of four: a LUT6 a bit.

    Parameters
    ----------
    candidates : Value
        Those of the slot's pair.
    """
    width = len(candidates) // CHOICES
    level = [candidates.word_select(k, width) for k in range(NEAR)]
    if slot % PAIR:
        level[(slot - 1) % NEAR] = candidates.word_select(NEAR, width)
    for bit in choice[:2]:
        level = [Mux(bit, high, low) for low, high in zip(level[::2], level[1::2], strict=True)]
    return level[0], level[1]


def far(candidates: Value, slot: int) -> Value:
    """The far candidate of a slot."""
    return candidates.word_select(NEAR + slot % PAIR, len(candidates) // CHOICES)
