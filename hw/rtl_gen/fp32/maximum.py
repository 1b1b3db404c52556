# SPDX-License-Identifier: Apache-2.0
"""FP32 maximum."""

from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .bits import clean, key, nonfinite
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
        a, b = clean(self.a), clean(self.b)
        m.d.comb += [
            self.o.eq(pipe(Mux(key(a) > key(b), a, b), "result")),
            self.nonfinite.eq(pipe(nonfinite(self.a) | nonfinite(self.b), "seen")),
        ]
        return m
