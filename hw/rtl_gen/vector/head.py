# SPDX-License-Identifier: Apache-2.0
"""Scales of new heads of K and V."""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Queue
from ..emit import Leaf
from ..fp32 import Mul
from ..spec.config import CardConfig
from .delay import delay
from .rounding import LIMIT, LIMIT_WIDE
from .scales import cache_layout

#: Heads under way.
HEADS = 16

#: What becomes of a head.
TARGET = data.StructLayout({"kind": 1, "token": 2, "head": 6, "wide": 1})
#: A head to be cached: where it is, and where its scale goes.
HEAD = data.StructLayout({
    "target": TARGET, "a": 16, "position": 13, "base": 16, "heads": 7})
#: A head to be read again and multiplied by ``factor``.
AGAIN = data.StructLayout({"target": TARGET, "a": 16, "factor": 32})


def _round(numerator: int, denominator: int) -> int:
    """The quotient, to nearest even."""
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole & 1))


def _limit_reciprocal(limit: int) -> int:
    """FP32 bits of 1/limit, for a limit that is no power of two."""
    places = limit.bit_length()
    return (127 - places << 23) + _round(1 << places + 23, limit) - (1 << 23)


#: Fractions of the reciprocals of 1 + f/128, as FP32 rounds them; that of 1 is a power of two.
RECIPROCALS = tuple(0 if f == 0 else _round(1 << 31, 128 + f) - (1 << 23) for f in range(128))


class Heads(wiring.Component):
    """Finds a head's scale by its largest magnitude: BF16, rounded up, with its reciprocal.

    A BF16 number has so few fractions that a table gives the reciprocal at once.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    i : ``In(stream.Signature(HEAD))``
        Heads that are being measured, in order.
    peak : ``In({valid, magnitude, wide})``
        The largest magnitude of the next head.
    again : ``Out(stream.Signature(AGAIN))``
        Heads to be read again.
    scale : ``Out(stream.Signature(cache_layout))``
        Their scales.
    """

    i: stream.Interface
    again: stream.Interface
    scale: stream.Interface

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(HEAD)),
            "peak": In(data.StructLayout({"valid": 1, "magnitude": 31, "wide": 1})),
            "again": Out(stream.Signature(AGAIN)),
            "scale": Out(stream.Signature(cache_layout(config)))})

    def elaborate(self, platform):
        m = Module()
        config = self.config

        # Both uses of a head have their own queue; the queues of results take all heads that
        # these let in.
        target = data.StructLayout({"target": TARGET, "a": 16})
        place = data.StructLayout({
            "position": 13, "base": 16, "heads": 7, "head": 6, "kind": 1})
        m.submodules.targets = targets = Queue(target, depth=HEADS)
        m.submodules.places = places = Queue(place, depth=HEADS)
        m.d.comb += [
            self.i.ready.eq(targets.i.ready & places.i.ready),
            targets.i.valid.eq(self.i.valid & places.i.ready),
            places.i.valid.eq(self.i.valid & targets.i.ready),
            targets.i.p.target.eq(self.i.p.target), targets.i.p.a.eq(self.i.p.a),
            places.i.p.position.eq(self.i.p.position), places.i.p.base.eq(self.i.p.base),
            places.i.p.heads.eq(self.i.p.heads), places.i.p.head.eq(self.i.p.target.head),
            places.i.p.kind.eq(self.i.p.target.kind)]

        # peak / limit, rounded up.
        m.submodules.divide = divide = Leaf(Mul())
        m.d.comb += [
            divide.en.eq(1), divide.a.eq(self.peak.magnitude),
            divide.b.eq(Mux(
                self.peak.wide, _limit_reciprocal(LIMIT_WIDE), _limit_reciprocal(LIMIT)))]
        there = delay(m, self.peak.valid, Mul.LATENCY + 1, "there", reset_less=False)
        scale = Signal(16, reset_less=True)
        m.d.sync += scale.eq(divide.o[16:] + divide.o[:16].any())

        table = Array(Const(value, 23) for value in RECIPROCALS)
        exponent, fraction = scale[7:15], scale[:7]
        factor = Mux(scale.any(), Cat(table[fraction], 253 + ~fraction.any() - exponent), 0)
        m.submodules.factors = factors = fifo.SyncFIFO(width=32, depth=HEADS + 2)
        m.submodules.scales = scales = fifo.SyncFIFO(width=16, depth=HEADS + 2)
        m.d.comb += [
            factors.w_en.eq(there), factors.w_data.eq(factor),
            scales.w_en.eq(there), scales.w_data.eq(scale)]

        both = factors.r_rdy & targets.o.valid
        m.d.comb += [
            self.again.valid.eq(both), self.again.p.target.eq(targets.o.p.target),
            self.again.p.a.eq(targets.o.p.a), self.again.p.factor.eq(factors.r_data),
            targets.o.ready.eq(both & self.again.ready), factors.r_en.eq(both & self.again.ready)]

        # The entry is base + row · heads + head: a product and a sum, a register behind each.
        lanes = config.vector_lanes.bit_length() - 1
        layout = data.StructLayout({"lane": range(config.vector_lanes), "kind": 1})
        rest, entry = Signal(16, reset_less=True), Signal(16, reset_less=True)
        product = Signal(16, reset_less=True)
        known = [Signal(layout, name=f"known_{k}", reset_less=True) for k in range(2)]
        valid = [Signal(name=f"valid_{k}") for k in range(2)]
        moves = [Signal(name=f"moves_{k}") for k in range(2)]
        p = places.o.p
        m.d.comb += [
            moves[1].eq(~valid[1] | (self.scale.ready & scales.r_rdy)),
            moves[0].eq(~valid[0] | moves[1]), places.o.ready.eq(moves[0])]
        with m.If(moves[0]):
            m.d.sync += [
                valid[0].eq(places.o.valid), product.eq(p.position[lanes:] * p.heads),
                rest.eq(p.base + p.head), known[0].lane.eq(p.position), known[0].kind.eq(p.kind)]
        with m.If(moves[1]):
            m.d.sync += [valid[1].eq(valid[0]), entry.eq(rest + product), known[1].eq(known[0])]
        m.d.comb += [
            self.scale.valid.eq(valid[1] & scales.r_rdy), self.scale.p.addr.eq(entry),
            self.scale.p.lane.eq(known[1].lane), self.scale.p.kind.eq(known[1].kind),
            self.scale.p.scale.eq(scales.r_data),
            scales.r_en.eq(valid[1] & self.scale.ready)]
        return m
