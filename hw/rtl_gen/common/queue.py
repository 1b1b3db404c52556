# SPDX-License-Identifier: Apache-2.0
"""First-in first-out queue that keeps the payload's shape."""

from amaranth import Module, Shape, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from .ram import Ram


class Queue(wiring.Component):
    """First-in first-out queue (``lib.fifo`` flattens the payload; in wide memories there is none).

    Parameters
    ----------
    shape : payload shape
    depth : int
        Entries, at least 3: less would not carry one payload a cycle.
    style : str
        That of its memory, as of :class:`Ram`; ``depth`` is then a power of two.

    Members
    -------
    i : ``In(stream.Signature(shape))``
    o : ``Out(stream.Signature(shape))``
        One payload a cycle; the first appears two cycles after it was taken in.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape, *, depth: int, style: str = ""):
        if depth < 3:
            raise ValueError(f"depth must be at least 3 for one payload per cycle, not {depth!r}")
        if style and depth & depth - 1:
            raise ValueError(f"depth must be a power of two with a style, not {depth!r}")
        self.shape, self.depth, self.style = shape, depth, style
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        if self.style:
            self._in_ram(m)
            return m
        m.submodules.fifo = queue = fifo.SyncFIFOBuffered(
            width=Shape.cast(self.shape).width, depth=self.depth)
        connect(m, flipped(self.i), queue.w_stream)
        connect(m, flipped(self.o), queue.r_stream)
        return m

    def _in_ram(self, m):
        m.submodules.ram = ram = Ram(self.shape, depth=self.depth, style=self.style)
        tail, head = Signal(range(self.depth)), Signal(range(self.depth))
        count = Signal(range(self.depth + 1))   # in the memory, besides what it shows
        write, read = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(count != self.depth), write.eq(self.i.valid & self.i.ready),
            read.eq((count != 0) & (~self.o.valid | self.o.ready)),
            ram.write_en.eq(write), ram.write_addr.eq(tail), ram.write_data.eq(self.i.payload),
            ram.read_en.eq(read), ram.read_addr.eq(head), self.o.payload.eq(ram.read_data)]
        m.d.sync += [tail.eq(tail + write), head.eq(head + read), count.eq(count + write - read)]
        with m.If(read):
            m.d.sync += self.o.valid.eq(1)
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
