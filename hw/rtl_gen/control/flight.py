# SPDX-License-Identifier: Apache-2.0
"""Which instructions are on their way: what an error is blamed on, and what drained means."""

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..common import Queue

#: Instructions of one reporter between dispatch and report: those in its queue and those in the
#: unit.
DEPTH = 128

ISSUE = data.StructLayout({"pc": 16, "sequence": 16, "writes": 1})


class Flight(wiring.Component):
    """The unfinished instructions of one reporter, in order.

    Members
    -------
    issue : ``In(ISSUE)``, issued : ``In(1)``
        An instruction is dispatched; only while there is ``room``.
    room : ``Out(1)``
    done : ``In(1)``
        The oldest has finished.
    busy : ``Out(1)``
        There is one.
    writes : ``Out(1)``
        There is one that writes HBM.
    oldest : ``Out(ISSUE)``
        Valid while ``busy``, from the third cycle after dispatch on.
    """

    def __init__(self):
        super().__init__({
            "issue": In(ISSUE), "issued": In(1), "room": Out(1), "done": In(1),
            "busy": Out(1), "writes": Out(1), "oldest": Out(ISSUE)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(ISSUE, depth=DEPTH)
        count, writers = Signal(range(DEPTH + 2)), Signal(range(DEPTH + 2))
        m.d.comb += [
            queue.i.payload.eq(self.issue), queue.i.valid.eq(self.issued),
            queue.o.ready.eq(self.done), self.oldest.eq(queue.o.payload),
            self.room.eq(queue.i.ready), self.busy.eq(count != 0), self.writes.eq(writers != 0)]
        m.d.sync += [
            count.eq(count + self.issued - self.done),
            writers.eq(writers + (self.issued & self.issue.writes)
                       - (self.done & queue.o.payload.writes))]
        return m
