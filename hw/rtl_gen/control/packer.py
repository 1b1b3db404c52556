# SPDX-License-Identifier: Apache-2.0
"""Records of 32-bit words, packed into beats."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import layouts
from ..spec.config import CardConfig

#: A word of a record.
WORD = data.StructLayout({"word": 32, "last": 1})


class Packer(wiring.Component):
    """Packs records into beats, the last of each filled up with zeros.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    address : ``In(stream.Signature(32))``
        Beat address of each record, taken with its first word.
    i : ``In(stream.Signature(WORD))``
    o : ``Out(stream.Signature(layouts.channel_write))``
    busy : ``Out(1)``
        A record has begun, and not all of its beats were taken.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "address": In(stream.Signature(32)), "i": In(stream.Signature(WORD)),
            "o": Out(stream.Signature(layouts.channel_write(config))), "busy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        words = self.config.beat_bytes // 4
        place = Signal(range(words))
        parts = [Signal(32, name=f"part_{k}", reset_less=True) for k in range(words)]
        inside = Signal()

        m.d.comb += [
            self.i.ready.eq((inside | self.address.valid) & ~self.o.valid),
            self.address.ready.eq(~inside & self.i.valid & ~self.o.valid),
            self.busy.eq(inside | self.o.valid), self.o.p.data.eq(Cat(*parts))]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [self.o.valid.eq(0), self.o.p.address.eq(self.o.p.address + 1)]
        with m.If(self.address.valid & self.address.ready):
            m.d.sync += self.o.p.address.eq(self.address.payload)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [inside.eq(~self.i.p.last), place.eq(place + 1)]
            with m.If(self.i.p.last):
                m.d.sync += place.eq(0)
            with m.If(self.i.p.last | (place == words - 1)):
                m.d.sync += self.o.valid.eq(1)
            for k, part in enumerate(parts):
                with m.If(place == k):
                    m.d.sync += part.eq(self.i.p.word)
                with m.Elif(place == 0):
                    m.d.sync += part.eq(0)
        return m
