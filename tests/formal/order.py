# SPDX-License-Identifier: Apache-2.0
"""What a queue is: everything comes out once, unchanged, in order.

Data do not steer a queue, so one bit is enough: one payload, any one, is 1 and all others 0.  The
bit must come out where that payload's place is.
"""

from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Order(wiring.Component):
    """Marks one payload and watches for it.

    Parameters
    ----------
    most : int
        Payloads inside at once, at most; more is an error.
    through : bool
        A payload may come out in the cycle in which it goes in.

    Members
    -------
    choose : ``In(1)``
        Mark the payload that goes in now, if none is marked yet; free.
    mark : ``Out(1)``
        The payload that goes in.
    push, pop : ``In(1)``
        A payload goes in, comes out.
    shown, out : ``In(1)``
        A payload is shown at the output, and which.
    """

    def __init__(self, *, most: int, through: bool = False):
        self.most, self.through = most, through
        super().__init__({"choose": In(1), "mark": Out(1), "push": In(1), "pop": In(1),
                          "shown": In(1), "out": In(1)})

    def elaborate(self, platform):
        m = Module()
        inside, ahead = Signal(range(self.most + 2)), Signal(range(self.most + 2))
        marked, gone, here, passes = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            self.mark.eq(self.choose & ~marked), passes.eq(self.through & (inside == 0)),
            here.eq((marked & ~gone & (ahead == 0)) | (passes & self.mark)),
            Assert(inside <= self.most)]
        m.d.sync += inside.eq(inside + self.push - self.pop)
        with m.If(self.push & self.mark):
            m.d.sync += [marked.eq(1), gone.eq(passes & self.pop),
                         ahead.eq(Mux(inside == 0, 0, inside - self.pop))]
        with m.Elif(marked & self.pop):
            m.d.sync += [gone.eq(gone | here), ahead.eq(ahead - (ahead != 0))]
        with m.If(self.shown):
            m.d.comb += Assert(self.out == here)
        # Nothing comes out before it went in.
        with m.If(self.pop):
            m.d.comb += Assert((inside != 0) | (passes & self.push))
        return m
