# SPDX-License-Identifier: Apache-2.0
"""FP32 maximum."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .bits import NAN, nonfinite, unpack
from .pipe import Pipe


class Max(wiring.Component):
    """``max(a, b)``, every cycle.

    Members
    -------
    en : ``In(1)``
        All registers hold while it is 0.
    a, b : ``In(32)``
    o : ``Out(32)``
        The maximum of what came :data:`LATENCY` cycles before.
    nonfinite : ``Out(1)``
        With ``o``: an operand is an infinity or NaN.
    """

    LATENCY = 1
    leaf_name = "fp_max"

    def __init__(self) -> None:
        super().__init__({
            "en": In(1), "a": In(32), "b": In(32), "o": Out(32), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m, self.en)
        a, b = unpack(self.a), unpack(self.b)
        # Patterns are compared as they are: a subnormal, which counts as zero, is below all other
        # magnitudes anyhow, and of two with one sign either will do.
        first, zero, nan = Signal(), Signal(), Signal()
        m.d.comb += [
            first.eq(Mux(a.sign != b.sign, b.sign, (self.a[:31] > self.b[:31]) ^ a.sign)),
            zero.eq(Mux(first, a.zero, b.zero)), nan.eq(a.nan | b.nan)]
        chosen = Mux(first, self.a, self.b)
        m.d.comb += [
            self.o.eq(pipe(
                Mux(nan, NAN, Cat(Mux(zero, 0, chosen[:31]), chosen[31])), "result")),
            self.nonfinite.eq(pipe(nonfinite(self.a) | nonfinite(self.b), "seen")),
        ]
        return m
