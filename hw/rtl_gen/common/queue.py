# SPDX-License-Identifier: Apache-2.0
"""First-in first-out queue that keeps the payload's shape."""

from amaranth import Module, Shape
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped


class Queue(wiring.Component):
    """First-in first-out queue (``lib.fifo`` flattens the payload).

    Parameters
    ----------
    shape : payload shape
    depth : int
        Entries, at least 3: less would not carry one payload a cycle.

    Members
    -------
    i : ``In(stream.Signature(shape))``
    o : ``Out(stream.Signature(shape))``
        One payload a cycle; the first appears two cycles after it was taken in.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape, *, depth: int):
        if depth < 3:
            raise ValueError(f"depth must be at least 3 for one payload per cycle, not {depth!r}")
        self.shape, self.depth = shape, depth
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = queue = fifo.SyncFIFOBuffered(
            width=Shape.cast(self.shape).width, depth=self.depth)
        connect(m, flipped(self.i), queue.w_stream)
        connect(m, flipped(self.o), queue.r_stream)
        return m
