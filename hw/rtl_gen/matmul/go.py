# SPDX-License-Identifier: Apache-2.0
"""Whether a step goes."""

from amaranth import Cat, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..spec.config import CardConfig


class Go(wiring.Component):
    """A step goes when all lanes have what it needs.

    All channels are asked and answered in the same cycle, which is the card's widest decision.  It
    is a module of its own so that synthesis makes it flat, whatever is deep beside it.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    valid : ``In(1)``
        There is a step.
    pair, stay : ``In(1)``
        It uses two entries; it leaves them for another one.
    place : ``In(1)``
        There is a place for the row that it ends, or it ends none.
    some : ``In(2).array(C)``
        Each channel has one entry, and two.
    writing, taken : ``In(C)``
        Lanes with a merged entry on its way out, and those whose is taken now.
    blocked : ``Out(1)``
        A merged entry is not taken.
    free, enough : ``Out(1)``
        Nothing but entries is missing; no entry is missing.
    fire : ``Out(1)``
        The step goes.
    take : ``Out(2)``
        Entries used: 1, or 2, or 0.
    """

    leaf_name = "go"

    def __init__(self, config: CardConfig):
        self.config = config
        channels = config.channels
        super().__init__({
            "valid": In(1), "pair": In(1), "stay": In(1), "place": In(1),
            "some": In(2).array(channels), "writing": In(channels), "taken": In(channels),
            "blocked": Out(1), "free": Out(1), "enough": Out(1), "fire": Out(1), "take": Out(2)})

    def elaborate(self, platform):
        m = Module()
        one, two = (Cat(some[k] for some in self.some).all() for k in range(2))
        m.d.comb += [
            self.blocked.eq((self.writing & ~self.taken).any()),
            self.free.eq(self.place & ~self.blocked),
            self.enough.eq(Mux(self.pair, two, one)),
            self.fire.eq(self.valid & self.enough & self.free),
            self.take.eq(Mux(self.fire & ~self.stay, Mux(self.pair, 2, 1), 0))]
        return m
