# SPDX-License-Identifier: Apache-2.0
"""Dot products of one beat of weights with the columns of one half.

The slots are cut into chains, and the sums of the chains are added.  What a vendor's multipliers
offer decides how a chain is built; the result and its latency are the same in every way of building
it.
"""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..common import tree_sum
from ..spec.config import CardConfig
from .delay import delay
from .select import half_columns

#: Bits of a dot product: 64 products of signed bytes.
DOT_BITS = 22


def chain(config: CardConfig) -> int:
    """Slots of one chain: their sum fits 18 bits, and there are four chains at least."""
    return min(8, config.beat_bytes // 4)


def latency(config: CardConfig) -> int:
    """Cycles from operands to dot products.

    Operands, product, a cycle for each link of the chain, and two for the sum of chains.
    """
    return chain(config) + 4


def staggered(platform) -> bool:
    """Whether link p of a chain takes its operands p cycles after the first: in cascaded DSPs."""
    return getattr(platform, "dsp48", False)


def link(config: CardConfig, slot: int) -> int:
    """The place of a slot in its chain."""
    return slot * chain(config) // config.beat_bytes


class Products(wiring.Component):
    """Dot products by plain multiplication.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    valid : ``In(1)``
        These operands matter.  Registers stand still otherwise: nothing moves, in logic and in
        simulation, while the engine waits.
    weights : ``In(B signed bytes)``
    near, far : ``In(B × columns of a half signed bytes)``
        Digits, slot by slot, the lowest column first.
    take_near, take_far : ``In(B)``
        Which of the two each slot takes: at most one; it takes zero without.
    dots : ``Out(columns of a half × DOT_BITS)``
        :func:`latency` cycles later, signed.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        slots, columns = config.beat_bytes, half_columns(config)
        super().__init__({
            "valid": In(1), "weights": In(8 * slots),
            "near": In(8 * slots * columns), "far": In(8 * slots * columns),
            "take_near": In(slots), "take_far": In(slots),
            "dots": Out(DOT_BITS * columns)})

    def elaborate(self, platform):
        m = Module()
        slots, columns = self.config.beat_bytes, half_columns(self.config)
        chains = slots // chain(self.config)

        def register(value, name, enable):
            out = Signal.like(value, name=name, reset_less=True)
            with m.If(enable):
                m.d.sync += out.eq(value)
            return out

        multiply, add = Signal(), Signal()
        m.d.sync += [multiply.eq(self.valid), add.eq(multiply)]
        weights = register(self.weights, "weights", self.valid)
        width = 8 * columns
        digits = register(Cat(
            Mux(self.take_near[slot], self.near.word_select(slot, width), 0)
            | Mux(self.take_far[slot], self.far.word_select(slot, width), 0)
            for slot in range(slots)), "digits", self.valid)
        for column in range(columns):
            products = [
                register(weights.word_select(slot, 8).as_signed()
                         * digits.word_select(slot * columns + column, 8).as_signed(),
                         f"product_{column}_{slot}", multiply) for slot in range(slots)]
            sums = [register(tree_sum(products[first::chains]), f"chain_{column}_{first}", add)
                    for first in range(chains)]
            dot = Signal(signed(DOT_BITS), name=f"dot_{column}", reset_less=True)
            m.d.sync += dot.eq(tree_sum(sums))
            m.d.comb += self.dots.word_select(column, DOT_BITS).eq(
                delay(m, dot, latency(self.config) - 4))
        return m
