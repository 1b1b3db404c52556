# SPDX-License-Identifier: Apache-2.0
"""From a stream job to the beats to be read and what each of them is."""

import math

from amaranth import Array, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Queue, layouts
from ..spec.config import CardConfig
from ..spec.formats import PATTERNS, SUPERGROUP, UNITS_PER_BEAT
from . import reader

#: Jobs whose beats may be on their way: enough small ones to cover the latency of memory.
JOBS = 32


class Kind(enum.Enum, shape=unsigned(2)):
    """What the beats of a segment are."""

    CONSTANTS = 0
    METADATA = 1
    VALUES = 2


def segment() -> data.StructLayout:
    """Consecutive beats of one kind."""
    return data.StructLayout({
        "kind": Kind, "beats": 20, "pattern": 4,
        "units": 4,         # metadata units of a value beat
        "entries": 2})      # entries of a value beat, less one


def _by_pattern(code, values):
    """``values`` (one per pattern) by the pattern's code."""
    known = [Const(value, unsigned(4)) for value in values]
    return Array(known + known[-1:] * (16 - len(known)))[code]


def last_metadata(values: int, units: int) -> int:
    """Metadata beats of an incomplete supergroup."""
    return math.ceil(values * units / UNITS_PER_BEAT)


class Planner(wiring.Component):
    """Says what to read, and later, as the beats come, what they are.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    job : ``In(stream.Signature(layouts.stream_job(config)))``
    read : ``Out(stream.Signature(reader.run()))``
    segments : ``Out(stream.Signature(segment()))``
        In the order of the beats; none is empty.
    """

    #: Cycles from a job taken until its run is offered, and from one job to the next.
    LATENCY, INTERVAL = 3, 4

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "job": In(stream.Signature(layouts.stream_job(config))),
            "read": Out(stream.Signature(reader.run())),
            "segments": Out(stream.Signature(segment()))})

    def elaborate(self, platform):
        m = Module()
        layout = layouts.stream_job(self.config)
        m.submodules.jobs = jobs = Queue(layout, depth=JOBS)
        m.submodules.segments = segments = Queue(segment(), depth=4)
        wiring.connect(m, segments.o, wiring.flipped(self.segments))
        # What depends on the values and units of an incomplete supergroup.
        rests = {units: [last_metadata(values, units) for values in range(SUPERGROUP)]
                 for units in sorted({p.units for p in PATTERNS})}

        def rest(values, units):
            """Metadata beats of fewer than 16 value beats."""
            result = Signal(4, name="rest")
            with m.Switch(units):
                for number, row in rests.items():
                    with m.Case(number):
                        m.d.comb += result.eq(Array(Const(v, unsigned(4)) for v in row)[values])
            return result

        # Its length: constants, values, and metadata = 16ths of the values times units, rounded up.
        job, state = Signal(layout, reset_less=True), Signal(2)
        units = Signal(4)
        full = job.values >> 4
        metadata, others = (Signal(reader.BEATS_BITS, reset_less=True) for _ in range(2))
        m.d.comb += [
            units.eq(_by_pattern(job.pattern, (p.units for p in PATTERNS))),
            self.job.ready.eq(state == 0),
            self.read.p.address.eq(job.address),
            self.read.valid.eq((state == 3) & jobs.i.ready),
            jobs.i.payload.eq(job), jobs.i.valid.eq((state == 3) & self.read.ready)]
        m.d.sync += [
            # No number of units has more than two bits set.
            metadata.eq(Mux(units[0], full, Mux(units[1] & units[2], full << 1, 0))
                        + Mux(units[3], full << 3, Mux(units[2], full << 2,
                                                       Mux(units[1], full << 1, 0)))),
            others.eq(job.aux + job.values + rest(job.values[:4], units)),
            self.read.p.beats.eq(metadata + others)]
        with m.If(state != 3):
            m.d.sync += state.eq(state + ((state != 0) | self.job.valid))
        with m.Elif(self.read.ready & jobs.i.ready):
            m.d.sync += state.eq(0)
        with m.If(self.job.valid & self.job.ready):
            m.d.sync += job.eq(self.job.payload)

        # Its segments.
        now = Signal(layout, reset_less=True)
        aux, values, noted = Signal(20), Signal(23), Signal()
        own, o = Signal(4), segments.i.p
        group = Mux(values >= SUPERGROUP, SUPERGROUP, values[:4])
        m.d.comb += [
            own.eq(_by_pattern(now.pattern, (p.units for p in PATTERNS))),
            o.pattern.eq(now.pattern), o.units.eq(own),
            o.entries.eq(_by_pattern(now.pattern, (p.entries - 1 for p in PATTERNS))),
            segments.i.valid.eq((aux != 0) | (values != 0)),
            jobs.o.ready.eq(~segments.i.valid)]
        with m.If(jobs.o.valid & jobs.o.ready):
            m.d.sync += [now.eq(jobs.o.payload), aux.eq(jobs.o.p.aux), values.eq(jobs.o.p.values),
                         noted.eq(0)]
        with m.If(aux != 0):
            m.d.comb += [o.kind.eq(Kind.CONSTANTS), o.beats.eq(aux)]
            with m.If(segments.i.ready):
                m.d.sync += aux.eq(0)
        with m.Elif((own != 0) & ~noted):
            m.d.comb += [o.kind.eq(Kind.METADATA),
                         o.beats.eq(Mux(values >= SUPERGROUP, own, rest(values[:4], own)))]
            with m.If(segments.i.ready & segments.i.valid):
                m.d.sync += noted.eq(1)
        with m.Else():
            m.d.comb += [o.kind.eq(Kind.VALUES), o.beats.eq(group)]
            with m.If(segments.i.ready & segments.i.valid):
                m.d.sync += [values.eq(values - group), noted.eq(0)]
        return m
