# SPDX-License-Identifier: Apache-2.0
"""Which activation each weight meets: shared alignment by ratio, then 16 : 1 in every slot.

*Candidates* of half of the columns are one vector of bits: for each group of four slots, for each
of the 16 indices, one digit for each column of the half, lowest first.
"""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..spec.config import CardConfig

#: Slots that share their candidates.
GROUP = 4
#: Candidates of a slot.
CHOICES = 16


def half_columns(config: CardConfig) -> int:
    """Columns of one half: they share the entry and the plane address."""
    return config.tokens // 2


def half_bits(config: CardConfig) -> int:
    """Bits of the candidates of one half."""
    return config.beat_bytes // GROUP * CHOICES * 8 * half_columns(config)


def window_bits(config: CardConfig) -> int:
    """Bits of one window of one column."""
    return 4 * config.beat_bytes * 8


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
    candidates : ``Out(half_bits(config))``
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "windows": In(half_columns(config) * window_bits(config)),
            "block": In(2), "ratio": In(2), "candidates": Out(half_bits(config))})

    def elaborate(self, platform):
        m = Module()
        beat, columns = 8 * self.config.beat_bytes, half_columns(self.config)
        groups = self.config.beat_bytes // GROUP

        def signal(value, name):
            out = Signal.like(value, name=name)
            m.d.comb += out.eq(value)
            return out

        # What each ratio sees of each column.
        one, two, four = [], [], []
        for column in range(columns):
            four.append(signal(self.windows.word_select(column, 4 * beat), f"four_{column}"))
            two.append(signal(
                Mux(self.block[1], four[-1][2 * beat:], four[-1][:2 * beat]), f"two_{column}"))
            one.append(signal(
                Mux(self.block[0], two[-1][beat:], two[-1][:beat]), f"one_{column}"))

        def gather(sources, choices, position):
            """Those choices of all groups, from the bytes that ``position`` names."""
            return Cat(source.word_select(position(group, index), 8) for group in range(groups)
                       for index in choices for source in sources)

        # A dense slot looks at its own four only: the others need no multiplexer.
        own, others = range(GROUP), range(GROUP, CHOICES)
        parts = []
        for choices in own, others:
            part = Mux(
                self.ratio[1],
                gather(four, choices, lambda group, index: group * CHOICES + index),
                gather(two, choices, lambda group, index: group // 2 * CHOICES + index))
            if choices == own:
                dense = gather(one, choices, lambda group, index: group * GROUP + index)
                part = Mux(self.ratio == 0, dense, part)
            parts.append(signal(part, f"choices_{choices.start}"))
        m.d.comb += self.candidates.eq(Cat(
            part.word_select(group, len(part) // groups) for group in range(groups)
            for part in parts))
        return m


def select(choices: Value, index: Value) -> Value:
    """One of the ``CHOICES`` equal pieces of ``choices``, a group's part of the candidates.

    A tree of multiplexers: on Xilinx four LUT6, two MUXF7 and a MUXF8 a bit.
    """
    width = len(choices) // CHOICES
    level = [choices.word_select(k, width) for k in range(CHOICES)]
    for bit in index:
        level = [Mux(bit, high, low) for low, high in zip(level[::2], level[1::2], strict=True)]
    return level[0]
