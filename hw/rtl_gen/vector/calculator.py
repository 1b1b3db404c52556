# SPDX-License-Identifier: Apache-2.0
"""One FP32 operation at a time."""

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..emit import Leaf
from ..fp32 import Add, Divide, Max, Mul, Root
from ..spec.isa import ScalarFn


class Function(enum.Enum, shape=unsigned(3)):
    """Functions of the calculator, numbered as those of SCALAR; SET gives b."""

    SET = int(ScalarFn.SET)
    ADD = int(ScalarFn.ADD)
    SUB = int(ScalarFn.SUB)
    MUL = int(ScalarFn.MUL)
    MAX = int(ScalarFn.MAX)
    RCP = int(ScalarFn.RCP)
    RSQRT = int(ScalarFn.RSQRT)


OPERATION = data.StructLayout({"fn": Function, "a": 32, "b": 32})


class Calculator(wiring.Component):
    """Add, subtract, multiply, maximum, reciprocal and reciprocal square root of scalars.

    Members
    -------
    i : ``In(stream.Signature({fn, a, b}))``
    o : ``Out(stream.Signature(32))``
        The result; the next operation is taken when this one has been.
    nonfinite : ``Out(1)``
        For a cycle: an infinity or NaN was read or made.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self) -> None:
        super().__init__({
            "i": In(stream.Signature(OPERATION)), "o": Out(stream.Signature(32)),
            "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        units = (("adder", Add()), ("multiplier", Mul()), ("maximum", Max()), ("root", Divide()))
        for name, unit in units:
            m.submodules[name] = Leaf(unit)
        adder, multiplier, maximum, root = (unit for _, unit in units)

        held = Signal(OPERATION, reset_less=True)
        fn = held.fn.as_value()
        is_fn = {name: fn == member.value for name, member in Function.__members__.items()}
        for unit in (adder, multiplier, maximum):
            m.d.comb += [unit.en.eq(1), unit.a.eq(held.a)]
        m.d.comb += [
            adder.b.eq(Cat(held.b[:31], held.b[31] ^ is_fn["SUB"])),
            multiplier.b.eq(held.b), maximum.b.eq(held.b),
            root.i.p.a.eq(held.a),
            root.i.p.op.as_value().eq(
                Mux(is_fn["RSQRT"], Root.RSQRT.value, Root.RCP.value))]

        left = Signal(range(max(Add.LATENCY, Mul.LATENCY, Max.LATENCY) + 1))
        result = Signal(32, reset_less=True)
        m.d.comb += self.o.payload.eq(result)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += held.eq(self.i.payload)
                with m.If(self.i.valid):
                    m.next = "START"
            with m.State("START"):
                m.d.sync += [left.eq(Add.LATENCY), result.eq(held.b)]
                with m.Switch(fn):
                    with m.Case(Function.SET.value):
                        m.next = "DONE"
                    with m.Case(Function.RCP.value, Function.RSQRT.value):
                        m.d.comb += root.i.valid.eq(1)
                        m.next = "ROOT"
                    with m.Case(Function.MUL.value):
                        m.d.sync += left.eq(Mul.LATENCY)
                        m.next = "WAIT"
                    with m.Case(Function.MAX.value):
                        m.d.sync += left.eq(Max.LATENCY)
                        m.next = "WAIT"
                    with m.Default():
                        m.next = "WAIT"
            with m.State("WAIT"):
                # The operands stand still: the pipelines give the result from `left` cycles on.
                m.d.sync += left.eq(left - 1)
                with m.If(left == 1):
                    for unit, chosen in ((adder, ~is_fn["MUL"] & ~is_fn["MAX"]),
                                         (multiplier, is_fn["MUL"]), (maximum, is_fn["MAX"])):
                        with m.If(chosen):
                            m.d.sync += [result.eq(unit.o), self.nonfinite.eq(unit.nonfinite)]
                    m.next = "DONE"
            with m.State("ROOT"):
                m.d.comb += root.o.ready.eq(1)
                m.d.sync += [result.eq(root.o.p.value),
                             self.nonfinite.eq(root.o.valid & root.o.p.nonfinite)]
                with m.If(root.o.valid):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.o.valid.eq(1)
                m.d.sync += self.nonfinite.eq(0)
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m
