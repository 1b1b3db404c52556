# SPDX-License-Identifier: Apache-2.0
"""FP32 reciprocal, square root and reciprocal square root of one number at a time."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from .bits import BIAS, nonfinite, pack, unpack


class Root(enum.Enum, shape=unsigned(2)):
    """What :class:`Divide` computes."""

    RCP = 0
    SQRT = 1
    RSQRT = 2


class Divide(wiring.Component):
    """``rcp``, ``sqrt`` and ``rsqrt`` = ``rcp(sqrt)``, correctly rounded, a bit a cycle.

    Members
    -------
    i : ``In(stream.Signature({op: Root, a: 32}))``
    o : ``Out(stream.Signature({value: 32, nonfinite: 1}))``
        One result per operand; ``nonfinite``: the operand or a result is an infinity or NaN.
    """

    #: Cycles from an operand to its result, ``rcp`` or ``sqrt``; ``rsqrt`` takes twice as long.
    LATENCY = 28
    leaf_name = "fp_divide"
    #: Bits of quotient or root that are found one by one: mantissa and guard bit.
    BITS = 25

    i: stream.Interface
    o: stream.Interface

    def __init__(self) -> None:
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"op": Root, "a": unsigned(32)}))),
            "o": Out(stream.Signature(data.StructLayout({"value": 32, "nonfinite": 1}))),
        })

    def elaborate(self, platform):
        m = Module()

        a = Signal(32)              # operand
        root = Signal()             # a square root is next, or under way
        again = Signal()            # its reciprocal is wanted
        seen = Signal()             # an infinity or NaN
        quotient = Signal(self.BITS)
        # Both below 4 times the divisor or root, the two bits that a step takes included.
        rest = Signal(28)
        radicand = Signal(50)
        left = Signal(range(self.BITS + 1))

        parts = unpack(a)
        trial = Signal(28)
        divisor = Signal(28)
        less = Signal(signed(29))
        m.d.comb += [
            trial.eq(Mux(root, Cat(radicand[48:], rest[:26]), Cat(Const(0, 1), rest[:27]))),
            divisor.eq(Mux(root, Cat(Const(1, 2), quotient), parts.mantissa)),
            less.eq(trial - divisor),
        ]

        # 2^48 / mantissa is below 2^25, but for a power of two, which needs no division.
        power = Signal()
        m.d.comb += power.eq(~a[:23].any())
        exponent = Signal(signed(11))
        m.d.comb += exponent.eq(Mux(
            root, ((parts.exponent - BIAS) >> 1) + BIAS,
            2 * BIAS - 1 + power - parts.exponent))
        # What gives zero, infinity or NaN whatever the mantissa.
        zero = Mux(root, parts.zero, parts.infinite)
        infinite = Mux(root, parts.infinite & ~parts.sign, parts.zero)
        nan = parts.nan | (root & parts.sign & ~parts.zero)
        value = Signal(32)
        m.d.comb += value.eq(pack(
            sign=parts.sign, exponent=exponent,
            mantissa=Mux(~root & power, 1 << 23, quotient[1:]),
            guard=quotient[0] & (root | ~power),
            sticky=rest.any(), zero=zero, infinite=infinite, nan=nan))

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [
                    a.eq(self.i.p.a),
                    root.eq(self.i.p.op != Root.RCP),
                    again.eq(self.i.p.op == Root.RSQRT),
                    seen.eq(0),
                ]
                with m.If(self.i.valid):
                    m.next = "START"
            with m.State("START"):
                # An odd exponent less the bias is an even exponent.
                m.d.sync += [
                    radicand.eq(Mux(parts.exponent[0], parts.mantissa << 25,
                                    parts.mantissa << 26)),
                    rest.eq(Mux(root, 0, 1 << 23)),
                    quotient.eq(0),
                    left.eq(self.BITS),
                    seen.eq(seen | nonfinite(a)),
                ]
                m.next = "STEP"
            with m.State("STEP"):
                m.d.sync += [
                    quotient.eq(Cat(less >= 0, quotient)),
                    rest.eq(Mux(less >= 0, less[:28], trial)),
                    radicand.eq(radicand << 2),
                    left.eq(left - 1),
                ]
                with m.If(left == 1):
                    m.next = "ROUND"
            with m.State("ROUND"):
                m.d.sync += [a.eq(value), root.eq(0), again.eq(0)]
                m.next = "DONE"
                with m.If(again):
                    m.next = "START"
            with m.State("DONE"):
                m.d.comb += [
                    self.o.valid.eq(1),
                    self.o.p.value.eq(a),
                    self.o.p.nonfinite.eq(seen | nonfinite(a)),
                ]
                with m.If(self.o.ready):
                    m.next = "IDLE"

        return m
