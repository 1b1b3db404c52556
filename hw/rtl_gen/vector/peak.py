# SPDX-License-Identifier: Apache-2.0
"""The largest magnitude of a slice."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

#: The largest finite number: what infinities and NaNs count as.
LARGEST = 0x7F7F_FFFF
#: Comparisons between two registers.
LEVELS = 2


def limited(bits: Value) -> Value:
    """FP32 bits as they are quantised: subnormals are zeros, what is not finite the largest number.

    A NaN is positive.
    """
    exponent, fraction, sign = bits[23:31], bits[:23], bits[31]
    top = exponent.all()
    nan = top & fraction.any()
    magnitude = Mux(top, LARGEST, Mux(exponent.any(), bits[:31], 0))
    return Cat(magnitude[:31], sign & ~nan)


def latency(lanes: int) -> int:
    """Cycles of a :class:`Peak`: a level for each halving, one for the words so far."""
    return -(-lanes.bit_length() // LEVELS)


class Peak(wiring.Component):
    """Maximum of unsigned numbers over the words of a slice, a word every cycle.

    Parameters
    ----------
    lanes : int
        Numbers of a word, a power of two.

    Members
    -------
    i : ``In(ArrayLayout(31, lanes))``
    valid, last : ``In(1)``
        There is a word; it ends the slice.
    o : ``Out(31)``
        The maximum, :attr:`LATENCY` cycles after the last word; only then.
    """

    def __init__(self, *, lanes: int):
        self.lanes = lanes
        super().__init__({
            "i": In(data.ArrayLayout(31, lanes)), "valid": In(1), "last": In(1), "o": Out(31)})

    @property
    def LATENCY(self) -> int:
        """Cycles from a word to the maximum up to it."""
        return latency(self.lanes)

    def elaborate(self, platform):
        m = Module()
        names = iter(range(2 * self.lanes))

        def larger(a, b):
            result = Signal(31, name=f"larger_{next(names)}")
            m.d.comb += result.eq(Mux(a > b, a, b))
            return result

        values, valid, last = [self.i[k] for k in range(self.lanes)], self.valid, self.last
        levels = self.lanes.bit_length() - 1
        for level in range(levels):
            values = [larger(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
            if level % LEVELS == LEVELS - 1:
                registers = [Signal(31, name=f"stage_{level}_{k}", reset_less=True)
                             for k in range(len(values))]
                m.d.sync += [r.eq(v) for r, v in zip(registers, values, strict=True)]
                values = registers
                valid_next = Signal(name=f"valid_{level}")
                last_next = Signal(name=f"last_{level}")
                m.d.sync += [valid_next.eq(valid), last_next.eq(last)]
                valid, last = valid_next, last_next

        start = Signal(init=1)
        value = larger(values[0], Mux(start, Const(0, 31), self.o))
        with m.If(valid):
            m.d.sync += [self.o.eq(value), start.eq(last)]
        return m
