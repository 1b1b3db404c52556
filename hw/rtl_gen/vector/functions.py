# SPDX-License-Identifier: Apache-2.0
"""exp and gelu of a word, on a few units that all lanes share."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..emit import Leaf
from ..fp32 import Exp, Gelu
from .delay import delay

#: Units of each function.
UNITS = 4


class Functions(wiring.Component):
    """exp or gelu of every element of a word, some of them a cycle, one after another.

    They are not in the lanes because nothing needs them there: softmax and the epilogue have their
    own.

    Parameters
    ----------
    lanes : int
        Elements of a word, a power of two.

    Members
    -------
    start : ``In(1)``
        A word is at ``i``, where it stays for :attr:`INTERVAL` cycles, this one included.
    i : ``In(ArrayLayout(32, lanes))``
    exp, erf : ``In(1)``
        With ``start``: exp, not gelu; gelu of the second form.
    o : ``Out(ArrayLayout(32, lanes))``
        The result, :attr:`LATENCY` cycles after ``start``.
    nonfinite : ``Out(1)``
        For a cycle: an operand or a result is an infinity or NaN.
    """

    def __init__(self, *, lanes: int) -> None:
        self.lanes = lanes
        word = data.ArrayLayout(32, lanes)
        super().__init__({
            "start": In(1), "i": In(word), "exp": In(1), "erf": In(1), "o": Out(word),
            "nonfinite": Out(1)})

    @property
    def INTERVAL(self) -> int:
        """Cycles from word to word."""
        return max(1, self.lanes // UNITS)

    @property
    def LATENCY(self) -> int:
        """Cycles from ``start`` to the whole result."""
        return 1 + Gelu.LATENCY + self.INTERVAL

    def elaborate(self, platform):
        m = Module()
        parts, late = self.INTERVAL, Gelu.LATENCY
        units = self.lanes // parts

        # Part by part goes in, from a register on.
        part, going = Signal(range(max(2, parts))), Signal()
        with m.If(self.start):
            m.d.sync += [going.eq(parts > 1), part.eq(1)]
        with m.Elif(going):
            m.d.sync += [going.eq(part != parts - 1), part.eq(part + 1)]
        now = Signal.like(part)
        m.d.comb += now.eq(Mux(self.start, 0, part))
        is_exp, erf = Signal(), Signal()
        with m.If(self.start):
            m.d.sync += [is_exp.eq(self.exp), erf.eq(self.erf)]
        valid = delay(m, self.start | going, 1, "valid", reset_less=False)
        number = delay(m, now, 1, "number")
        operands = Signal(32 * units, reset_less=True)
        m.d.sync += operands.eq(Array(
            Cat(self.i[p * units + k] for k in range(units)) for p in range(parts))[now])

        # exp waits for as long as gelu takes.
        results, seen = [], []
        for k in range(units):
            m.submodules[f"exp_{k}"] = exp = Leaf(Exp())
            m.submodules[f"gelu_{k}"] = gelu = Leaf(Gelu((0, 1)))
            operand = operands.word_select(k, 32)
            m.d.comb += [exp.en.eq(1), exp.a.eq(operand),
                         gelu.en.eq(1), gelu.a.eq(operand), gelu.form.eq(erf)]
            wait = late - Exp.LATENCY
            results.append(Mux(is_exp, delay(m, exp.o, wait, f"exp_late_{k}"), gelu.o))
            seen.append(Mux(is_exp, delay(m, exp.nonfinite, wait, f"seen_{k}"), gelu.nonfinite))
        there = delay(m, valid, late, "there", reset_less=False)
        place = delay(m, number, late, "place")
        m.d.sync += self.nonfinite.eq(there & Cat(seen).any())
        for p in range(parts):
            with m.If(there & (place == p)):
                m.d.sync += [self.o[p * units + k].eq(results[k]) for k in range(units)]
        return m
