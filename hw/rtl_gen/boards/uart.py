# SPDX-License-Identifier: Apache-2.0
"""Bytes over a serial line: eight bits, no parity, one stop bit."""

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

#: Bits of a bit's fraction that is counted: rates need not divide the clock.
_FRACTION = 16
#: Cycles of the shortest bit: its middle is found to half a cycle.
SHORTEST_BIT = 4


def step(clock_hz: float, baud: float) -> int:
    """How much of a bit one clock cycle is, in units of 2^-16.

    Raises
    ------
    ValueError
        If a bit is shorter than :data:`SHORTEST_BIT` cycles.
    """
    if not 0 < baud <= clock_hz / SHORTEST_BIT:
        raise ValueError(f"baud must be at most a {SHORTEST_BIT}th of the clock "
                         f"({clock_hz / SHORTEST_BIT:g}), not {baud:g}")
    return round((1 << _FRACTION) * baud / clock_hz)


class Receiver(wiring.Component):
    """Bytes from the line.

    Parameters
    ----------
    clock_hz, baud : float

    Members
    -------
    line : ``In(1)``
        The pin; high when nothing is sent.
    o : ``Out({valid, byte, error})``
        A byte, for one cycle; ``error`` if its stop bit was low.
    """

    def __init__(self, *, clock_hz: float, baud: float) -> None:
        self.step = step(clock_hz, baud)
        super().__init__({
            "line": In(1, init=1),
            "o": Out(data.StructLayout({"valid": 1, "byte": 8, "error": 1}))})

    def elaborate(self, platform):
        m = Module()
        # The pin knows nothing of the clock.
        line = Signal(3, init=-1)
        m.d.sync += line.eq(Cat(self.line, line))
        level = line[1]
        phase, middle = Signal(_FRACTION + 1), Signal()
        m.d.comb += middle.eq(phase[-1])
        left, shift = Signal(range(11)), Signal(9, reset_less=True)
        m.d.sync += self.o.valid.eq(0)
        with m.If(left == 0):
            # The start bit's middle is half a bit from its edge, which is seen up to a cycle late;
            # so is the middle.  A cycle less, and both are right on average.
            m.d.sync += phase.eq((1 << _FRACTION - 1) + 2 * self.step)
            with m.If(~level & line[2]):
                m.d.sync += left.eq(10)
        with m.Else():
            m.d.sync += phase.eq(phase[:_FRACTION] + self.step)
            with m.If(middle):
                m.d.sync += [left.eq(left - 1), shift.eq(Cat(shift[1:], level))]
                with m.If((left == 10) & level):
                    m.d.sync += left.eq(0)      # no start bit, but a spike
                with m.Elif(left == 1):
                    m.d.sync += [self.o.valid.eq(1), self.o.byte.eq(shift[1:]),
                                 self.o.error.eq(~level)]
        return m


class Transmitter(wiring.Component):
    """Bytes to the line, one after another without a pause.

    Parameters
    ----------
    clock_hz, baud : float

    Members
    -------
    i : ``In(stream(8))``
    line : ``Out(1)``
        The pin, from a register.
    """

    def __init__(self, *, clock_hz: float, baud: float) -> None:
        self.step = step(clock_hz, baud)
        super().__init__({"i": In(stream.Signature(8)), "line": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        phase, ends = Signal(_FRACTION + 1), Signal()
        left, shift = Signal(range(11)), Signal(10, init=-1)
        m.d.comb += [ends.eq(phase[-1]), self.i.ready.eq((left == 0) | ((left == 1) & ends))]
        m.d.sync += self.line.eq(Cat(shift[0] | (left == 0)))
        with m.If(left != 0):
            m.d.sync += phase.eq(phase[:_FRACTION] + self.step)
            with m.If(ends):
                m.d.sync += [left.eq(left - 1), shift.eq(Cat(shift[1:], Const(1, 1)))]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [left.eq(10), shift.eq(Cat(Const(0, 1), self.i.payload, Const(1, 1)))]
            with m.If(left == 0):
                m.d.sync += phase.eq(self.step)
        return m
