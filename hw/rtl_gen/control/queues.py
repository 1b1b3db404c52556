# SPDX-License-Identifier: Apache-2.0
"""The way of an instruction from dispatch to its unit, and what is unfinished."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import Queue, layouts
from ..spec import isa
from ..spec.config import CardConfig
from .counters import Counters
from .dispatch import queues, reporters
from .flight import ISSUE, Flight


class Queues(wiring.Component):
    """The queues of the units, the dependency counters between them, and who has yet to report.

    An instruction at the head of its queue is offered to its unit when its counters are above zero;
    they lose one then, at most a few cycles before the unit takes it.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    clear : ``In(1)``
        Counters to zero.
    i : array of ``In(stream.Signature(layouts.JOB))``
        From dispatch, in the order of ``queues(config)``.
    o : array of ``Out(stream.Signature(layouts.JOB))``
        To the units.
    held, empty : ``Out(queues)``
        The head waits for its counters; there is none.
    here : ``In(layouts.DONE)``, done : ``In(ArrayLayout(layouts.DONE, reporters))``
        Reports of dispatch and of the units.
    request, wait, grant : counters of the control instruction
    issue, issued, room : from and to ``Dispatch``
    busy : ``Out(reporters)``, oldest : ``Out(ArrayLayout(ISSUE, reporters))``
        Unfinished instructions.
    writes : ``Out(1)``
        One of them writes HBM.
    started : ``Out(1)``
        An instruction was offered to its unit.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        jobs, ways, reports = (stream.Signature(layouts.JOB), len(queues(config)),
                               len(reporters(config)))
        super().__init__({
            "clear": In(1), "i": In(jobs).array(ways), "o": Out(jobs).array(ways),
            "held": Out(ways), "empty": Out(ways),
            "here": In(layouts.DONE),
            "done": In(data.ArrayLayout(layouts.DONE, reports)),
            "request": In(1), "wait": In(isa.COUNTERS), "grant": Out(1),
            "issue": In(ISSUE), "issued": In(reports), "room": Out(reports),
            "busy": Out(reports), "oldest": Out(data.ArrayLayout(ISSUE, reports)),
            "writes": Out(1), "started": Out(1)})

    def elaborate(self, platform):
        m = Module()
        names, reports = queues(self.config), reporters(self.config)
        control = len(names)
        m.submodules.counters = counters = Counters(
            requesters=control + 1, reporters=len(reports) + 1)
        m.d.comb += [
            counters.clear.eq(self.clear), counters.done[len(reports)].eq(self.here),
            counters.wait[control].eq(self.wait), self.grant.eq(counters.grant[control]),
            counters.request.eq(Cat(self.held, self.request)),
            self.started.eq(counters.grant.any())]
        m.d.comb += [counters.done[k].eq(self.done[k]) for k in range(len(reports))]

        for k, (i, o) in enumerate(zip(self.i, self.o, strict=True)):
            name = names[k].name.lower()
            m.submodules[name] = queue = Queue(layouts.JOB, depth=self.config.queue_depth)
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
        for reporter in reports:
            m.submodules[f"flight_{reporter.name.lower()}"] = flight = Flight()
            m.d.comb += [
                flight.issue.eq(self.issue), flight.issued.eq(self.issued[reporter]),
                flight.done.eq(self.done[reporter].valid), self.room[reporter].eq(flight.room),
                self.busy[reporter].eq(flight.busy), self.oldest[reporter].eq(flight.oldest)]
            writers.append(flight.writes)
        m.d.comb += self.writes.eq(Cat(*writers).any())
        return m
