# SPDX-License-Identifier: Apache-2.0
"""One lane: the rows of one HBM channel against all columns."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..common import layouts
from ..spec.config import ACC_BITS, CardConfig
from . import bank, products
from .delay import delay
from .dsp48 import Dsp48Products, muxf7
from .products import DOT_BITS, Products
from .select import PAIR, far, half_bits, half_columns, near_halves

#: Bits of a shift: up to 31 for the exponent, 8 for the high digit of a weight.
SHIFT_BITS = 6
#: Bits of what one step adds to one token.
_PAIR_BITS = DOT_BITS + 9
_SHIFTED_BITS = _PAIR_BITS + 39


def combine(config: CardConfig) -> data.StructLayout:
    """How the dot products of a step become terms of tokens."""
    return data.StructLayout({
        "shift": data.ArrayLayout(SHIFT_BITS, config.tokens),
        "digits": 1,        # columns 2t and 2t + 1 are the digits of one activation
        "two_beat": 1,      # both halves hold the same tokens
        "pair": 1})         # the upper half has an entry of its own


class Lane(wiring.Component):
    """Select, multiply, shift, accumulate.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    entries : ``In(bits of layouts.entry(config)).array(2)``
        The next two entries of the channel.
    swap : ``In(1)``
        The first of them is ``entries[1]``, the second ``entries[0]``.
    valid : ``In(1)``
        Entries were taken in the cycle before.
    pair : ``In(1)``
        The upper half of the columns takes the second entry, not the first.
    upper : ``In(2)``
        Which slots look at the upper half of their group, if their pattern halves groups: bit 0 of
        slots 0 and 1 of four, bit 1 of the others; 0 otherwise.
    hold : ``In(1)``
        Keep ``merged``: its write waits.  Nothing may be taken meanwhile.
    merge_all : ``In(1)``, merge_bytes : ``In(B)``
        Take the whole entry, or some of its bytes, from ``fresh_k`` and ``fresh_v``.
    fresh_k : ``In(8B)``, fresh_v : ``In(8T)``
        Byte j of an entry comes from byte j of ``fresh_k``, or byte j mod T of ``fresh_v``.
    merged : ``Out(8B)``
        The first entry's weights, merged, a cycle later.
    candidates : ``In(half_bits(config)).array(2)``
        Of both halves, a cycle after the entries.
    combine : ``In(combine(config))``
        ``COMBINE(config)`` cycles after the entries.
    control : ``In(bank.control(config))``
        ``CONTROL(config)`` cycles after the entries.
    read_en, read_slot, token, result :
        As in :class:`Bank`.
    """

    leaf_name = "lane"

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "entries": In(layouts.entry(config).size).array(2), "swap": In(1), "valid": In(1),
            "pair": In(1), "upper": In(2), "hold": In(1),
            "merge_all": In(1), "merge_bytes": In(config.beat_bytes),
            "fresh_k": In(8 * config.beat_bytes), "fresh_v": In(8 * config.tokens),
            "merged": Out(8 * config.beat_bytes),
            "candidates": In(half_bits(config)).array(2),
            "combine": In(combine(config)), "control": In(bank.control(config)),
            "read_en": In(1), "read_slot": In(range(bank.ROWS)), "token": In(range(config.tokens)),
            "result": Out(ACC_BITS)})

    @staticmethod
    def COMBINE(config: CardConfig) -> int:
        """Cycles from the entries until ``combine``."""
        return products.latency(config)

    @staticmethod
    def CONTROL(config: CardConfig) -> int:
        """Cycles from the entries until ``control``."""
        return Lane.COMBINE(config) + 2

    def elaborate(self, platform):
        m = Module()
        config = self.config
        slots, columns, tokens = config.beat_bytes, half_columns(config), config.tokens

        even, odd = ((entry[:8 * slots], entry[8 * slots:]) for entry in self.entries)

        # The first entry goes to both halves, or the second to the upper one.  Every byte has four
        # places to come from, a LUT for a bit.
        weights, choice, take_near, take_far = (
            [Signal(bits * slots, name=f"{name}_{half}", reset_less=True) for half in range(2)]
            for name, bits in (("weights", 8), ("choice", 3), ("take_near", 1), ("take_far", 1)))
        with m.If(~self.hold):
            for half, other in enumerate((self.swap, self.swap ^ self.pair)):
                for slot in range(slots):
                    index = Mux(other, odd[1].word_select(slot, 4), even[1].word_select(slot, 4))
                    m.d.sync += [
                        choice[half].word_select(slot, 3).eq(index[:3]),
                        take_near[half][slot].eq(~(index[3] ^ self.upper[slot % 4 // 2])),
                        take_far[half][slot].eq(index[3] & ~self.upper.any())]
            for slot in range(slots):
                places = Cat(even[0].word_select(slot, 8), odd[0].word_select(slot, 8),
                             self.fresh_k.word_select(slot, 8),
                             self.fresh_v.word_select(slot % tokens, 8))
                which = [Signal(2, name=f"which_{half}_{slot}") for half in range(2)]
                m.d.comb += [
                    which[0].eq(Mux(self.merge_all, 2, Mux(self.merge_bytes[slot], 3, self.swap))),
                    which[1].eq(Mux(self.pair, ~self.swap, which[0]))]
                m.d.sync += [
                    weights[half].word_select(slot, 8).eq(places.word_select(which[half], 8))
                    for half in range(2)]
        m.d.comb += self.merged.eq(weights[0])

        # Cascaded multipliers take their operands one link after the other.
        staggered = products.staggered(platform)
        if staggered:
            for values, bits in (weights, 8), (choice, 3), (take_near, 1), (take_far, 1):
                for half in range(2):
                    values[half] = Cat(
                        delay(m, values[half].word_select(slot, bits), products.link(config, slot))
                        for slot in range(slots))

        dots = []
        for half in range(2):
            half_products = Dsp48Products(config) if staggered else Products(config)
            m.submodules[f"products_{half}"] = half_products
            choose = muxf7 if staggered else lambda m, select, low, high: Mux(select, high, low)
            pairs = [Signal(half_bits(config) // slots * PAIR, name=f"pair_{half}_{k}")
                     for k in range(slots // PAIR)]
            m.d.comb += [
                Cat(pairs).eq(self.candidates[half]),
                half_products.valid.eq(self.valid), half_products.weights.eq(weights[half]),
                half_products.near.eq(Cat(
                    choose(m, which[2], *near_halves(pairs[slot // PAIR], slot, which))
                    for slot in range(slots) for which in (choice[half].word_select(slot, 3),))),
                half_products.far.eq(Cat(far(pairs[slot // PAIR], slot) for slot in range(slots))),
                half_products.take_near.eq(take_near[half]),
                half_products.take_far.eq(take_far[half])]
            dots += [
                half_products.dots.word_select(k, DOT_BITS).as_signed() for k in range(columns)]

        # The digits of one activation have one exponent: they are added before they are shifted.
        now, add = (Signal(combine(config), name=name) for name in ("now", "add"))
        m.d.sync += [now.eq(self.combine), add.eq(now)]
        shifted = []
        for column in range(tokens):
            value = Signal(signed(_PAIR_BITS), name=f"value_{column}")
            if column % 2:
                m.d.comb += value.eq(Mux(now.digits, 0, dots[column]))
            else:
                both = (dots[column] << 8) + dots[column + 1]
                m.d.comb += value.eq(Mux(now.digits, both, dots[column]))
            shifted.append(Signal(signed(_SHIFTED_BITS), name=f"shifted_{column}", reset_less=True))
            m.d.sync += shifted[-1].eq(value << now.shift[column])

        m.submodules.bank = accumulate = bank.Bank(config)
        for token in range(tokens):
            term = Signal(signed(_SHIFTED_BITS + 1), name=f"term_{token}", reset_less=True)
            value = shifted[token]
            if token == 1 and tokens == 4:      # two tokens of two digits each
                value = Mux(add.digits & ~add.two_beat, shifted[2], value)
            if token < columns:
                value = value + Mux(add.two_beat & add.pair, shifted[token + columns], 0)
            m.d.sync += term.eq(value)
            m.d.comb += accumulate.terms.word_select(token, ACC_BITS).eq(term)
        m.d.comb += [
            accumulate.control.eq(self.control), accumulate.read_en.eq(self.read_en),
            accumulate.read_slot.eq(self.read_slot), accumulate.token.eq(self.token),
            self.result.eq(accumulate.result)]
        return m
