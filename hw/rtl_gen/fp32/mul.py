# SPDX-License-Identifier: Apache-2.0
"""FP32 product."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .bits import BIAS, nonfinite, pack, unpack
from .pipe import Pipe
from .product import product


class Mul(wiring.Component):
    """``mul(a, b)``, every cycle.

    Members
    -------
    en : ``In(1)``
        All registers hold while it is 0.
    a, b : ``In(32)``
    o : ``Out(32)``
        The product of what came :data:`LATENCY` cycles before.
    nonfinite : ``Out(1)``
        With ``o``: an operand or the result is an infinity or NaN.
    """

    LATENCY = 4
    leaf_name = "fp_mul"

    def __init__(self) -> None:
        super().__init__({
            "en": In(1), "a": In(32), "b": In(32), "o": Out(32), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m, self.en)

        # 1 to 3.
        # Zeros take their result from flags.
        a, b = unpack(self.a, flushed=True), unpack(self.b, flushed=True)
        mantissas = product(m, pipe, platform, a.mantissa, b.mantissa, "product")
        exponents_3 = pipe.delay(a.exponent + b.exponent, 3, "exponents")
        sign_3 = pipe.delay(a.sign ^ b.sign, 3, "sign")
        zero_3 = pipe.delay(a.zero | b.zero, 3, "zero")
        infinite_3 = pipe.delay(a.infinite | b.infinite, 3, "infinite")
        nan_3 = pipe.delay(
            a.nan | b.nan | (a.infinite & b.zero) | (b.infinite & a.zero), 3, "nan")

        # 4: the product of two numbers in [1, 2) is in [1, 4).
        high = mantissas[47]
        exponent = Signal(signed(10))
        m.d.comb += exponent.eq(exponents_3 + Mux(high, 1 - BIAS, -BIAS))
        m.d.comb += self.o.eq(pipe(pack(
            sign=sign_3, exponent=exponent,
            mantissa=Mux(high, mantissas[24:], mantissas[23:47]),
            guard=Mux(high, mantissas[23], mantissas[22]),
            sticky=mantissas[:22].any() | (high & mantissas[22]),
            zero=zero_3, infinite=infinite_3, nan=nan_3), "result"))
        m.d.comb += self.nonfinite.eq(nonfinite(self.o))

        return m
