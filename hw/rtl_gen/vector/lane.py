# SPDX-License-Identifier: Apache-2.0
"""One FP32 lane of the vector unit."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..emit import Leaf
from ..fp32 import Add, Max, Mul
from .delay import delay
from .peak import limited

#: What a lane does with one element; all of it in every cycle anew.
OP = data.StructLayout({
    "valid": 1,
    "limit": 1,         # a is made finite first, as for quantising
    "multiply": 1,      # product = a · b, or a · s; else a
    "by_scalar": 1,
    "add": 1,           # result = product + b, or product + s; else product
    "plus_scalar": 1,
    "negate": 1,        # what is added changes its sign
    "square": 1,        # term = result²; else a
    "maximum": 1,       # result = max(a, b)
    "fold": 1,          # peak = max(peak, a)
    "first": 1,         # peak starts anew
})


class VectorLane(wiring.Component):
    """Multiply, add, square and maximum, an element every cycle, never stalling.

    Members
    -------
    a, b, s : ``In(32)``
        Elements of the operands, and the scalar.
    op : ``In(OP)``
    product : ``Out(32)``
        Of what came :data:`PRODUCT` cycles before.
    term : ``Out(32)``
        What a sum takes, of what came :data:`TERM` cycles before.
    result : ``Out(32)``
        Of what came :data:`LATENCY` cycles before.
    peak : ``Out(32)``
        Maximum of the elements that came with ``fold``, since ``first``.
    nonfinite : ``Out(1)``
        An operation read or made an infinity or NaN.
    """

    PRODUCT = 1 + Mul.LATENCY
    TERM = PRODUCT + Add.LATENCY + Mul.LATENCY
    LATENCY = PRODUCT + Add.LATENCY
    leaf_name = "vector_lane"

    def __init__(self) -> None:
        super().__init__({
            "a": In(32), "b": In(32), "s": In(32), "op": In(OP),
            "product": Out(32), "term": Out(32), "result": Out(32), "peak": Out(32),
            "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        units = (("multiplier", Mul()), ("adder", Add()), ("squarer", Mul()), ("maximum", Max()))
        for name, unit in units:
            m.submodules[name] = Leaf(unit)
        multiplier, adder, squarer, maximum = (unit for _, unit in units)

        a, b, s = (delay(m, port, 1, name) for name, port in zip(
            "abs", (self.a, self.b, self.s), strict=True))
        # ops[k] belongs to the elements k cycles after the register.
        ops, valid = [self.op], [self.op.valid]
        for k in range(self.TERM):
            ops.append(delay(m, ops[-1], 1, f"op_{k}"))
            valid.append(delay(m, valid[-1], 1, f"valid_{k}", reset_less=False))
        ops, valid = ops[1:], valid[1:]
        op = ops[0]

        operand = Signal(32)
        m.d.comb += [
            operand.eq(Mux(op.limit, limited(a), a)),
            multiplier.en.eq(1), multiplier.a.eq(operand),
            multiplier.b.eq(Mux(op.by_scalar, s, b))]
        at = Mul.LATENCY
        product = Signal(32)
        m.d.comb += [
            product.eq(Mux(ops[at].multiply, multiplier.o, delay(m, operand, at, "operand"))),
            self.product.eq(product)]

        addend = delay(m, Mux(op.plus_scalar, s, b), at, "addend")
        m.d.comb += [
            adder.en.eq(1), adder.a.eq(product),
            adder.b.eq(Cat(addend[:31], addend[31] ^ ops[at].negate))]
        at += Add.LATENCY
        total = Signal(32)
        m.d.comb += total.eq(Mux(
            ops[at].add, adder.o, delay(m, product, Add.LATENCY, "unadded")))
        m.d.comb += [
            squarer.en.eq(1), squarer.a.eq(total), squarer.b.eq(total),
            self.term.eq(Mux(ops[at + Mul.LATENCY].square, squarer.o,
                             delay(m, a, at + Mul.LATENCY, "element")))]

        # The running maximum stays in the register of its unit.
        m.d.comb += [
            maximum.en.eq(valid[0] & (op.maximum | op.fold)), maximum.a.eq(a),
            maximum.b.eq(Mux(op.fold, Mux(op.first, a, maximum.o), b)), self.peak.eq(maximum.o)]

        m.d.comb += self.result.eq(Mux(
            ops[at].maximum, delay(m, maximum.o, at - Max.LATENCY, "larger"), total))

        def seen(unit, latency, name):
            return unit.nonfinite & valid[latency] & getattr(ops[latency], name)

        m.d.sync += self.nonfinite.eq(Cat(
            seen(multiplier, Mul.LATENCY, "multiply"), seen(adder, at, "add"),
            seen(squarer, at + Mul.LATENCY, "square"), seen(maximum, Max.LATENCY, "maximum"),
            seen(maximum, Max.LATENCY, "fold")).any())
        return m
