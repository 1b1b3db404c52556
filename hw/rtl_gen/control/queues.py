# SPDX-License-Identifier: Apache-2.0
"""The way of an instruction from dispatch to its unit, and what is unfinished."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import Queue, layouts
from ..spec import isa
from .counters import Counters
from .dispatch import QUEUES, Reporter
from .flight import ISSUE, Flight

#: Instructions that wait in each queue.
DEPTH = 64


class Queues(wiring.Component):
    """The queues of the units, the dependency counters between them, and who has yet to report.

    An instruction at the head of its queue is offered to its unit when its counters are above zero;
    they lose one then, at most a few cycles before the unit takes it.

    Members
    -------
    clear : ``In(1)``
        Counters to zero.
    i : array of 3 ``In(stream.Signature(layouts.JOB))``
        From dispatch, in the order of ``QUEUES``.
    o : array of 3 ``Out(stream.Signature(layouts.JOB))``
        To the units.
    held, empty : ``Out(3)``
        The head waits for its counters; there is none.
    here : ``In(layouts.DONE)``, done : ``In(ArrayLayout(layouts.DONE, len(Reporter)))``
        Reports of dispatch and of the units.
    request, wait, grant : counters of the control instruction
    issue, issued, room : from and to ``Dispatch``
    busy : ``Out(len(Reporter))``, oldest : ``Out(ArrayLayout(ISSUE, len(Reporter)))``
        Unfinished instructions.
    writes : ``Out(1)``
        One of them writes HBM.
    started : ``Out(1)``
        An instruction was offered to its unit.
    """

    def __init__(self):
        jobs = stream.Signature(layouts.JOB)
        super().__init__({
            "clear": In(1), "i": In(jobs).array(len(QUEUES)), "o": Out(jobs).array(len(QUEUES)),
            "held": Out(len(QUEUES)), "empty": Out(len(QUEUES)),
            "here": In(layouts.DONE),
            "done": In(data.ArrayLayout(layouts.DONE, len(Reporter))),
            "request": In(1), "wait": In(isa.COUNTERS), "grant": Out(1),
            "issue": In(ISSUE), "issued": In(len(Reporter)), "room": Out(len(Reporter)),
            "busy": Out(len(Reporter)), "oldest": Out(data.ArrayLayout(ISSUE, len(Reporter))),
            "writes": Out(1), "started": Out(1)})

    def elaborate(self, platform):
        m = Module()
        control = len(QUEUES)
        m.submodules.counters = counters = Counters(
            requesters=control + 1, reporters=len(Reporter) + 1)
        m.d.comb += [
            counters.clear.eq(self.clear), counters.done[len(Reporter)].eq(self.here),
            counters.wait[control].eq(self.wait), self.grant.eq(counters.grant[control]),
            counters.request.eq(Cat(self.held, self.request)),
            self.started.eq(counters.grant.any())]
        m.d.comb += [counters.done[k].eq(self.done[k]) for k in range(len(Reporter))]

        for k, (i, o) in enumerate(zip(self.i, self.o, strict=True)):
            name = QUEUES[k].name.lower()
            m.submodules[name] = queue = Queue(layouts.JOB, depth=DEPTH)
            connect(m, flipped(i), queue.i)
            granted = Signal(name=f"granted_{name}")
            m.d.comb += [
                o.payload.eq(queue.o.payload), o.valid.eq(queue.o.valid & granted),
                queue.o.ready.eq(o.ready & granted),
                counters.wait[k].eq(layouts.view("NOP", queue.o.p.word).wait),
                self.held[k].eq(queue.o.valid & ~granted), self.empty[k].eq(~queue.o.valid)]
            with m.If(o.valid & o.ready):
                m.d.sync += granted.eq(0)
            with m.If(counters.grant[k]):
                m.d.sync += granted.eq(1)

        writers = []
        for reporter in Reporter:
            m.submodules[f"flight_{reporter.name.lower()}"] = flight = Flight()
            m.d.comb += [
                flight.issue.eq(self.issue), flight.issued.eq(self.issued[reporter]),
                flight.done.eq(self.done[reporter].valid), self.room[reporter].eq(flight.room),
                self.busy[reporter].eq(flight.busy), self.oldest[reporter].eq(flight.oldest)]
            writers.append(flight.writes)
        m.d.comb += self.writes.eq(Cat(*writers).any())
        return m
