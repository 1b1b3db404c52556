# SPDX-License-Identifier: Apache-2.0
"""VECTOR, SCALAR and SAMPLE: instructions that run alone; the scalar registers."""

from amaranth import Array, Module, Signal, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import layouts
from ..spec.config import CardConfig
from ..spec.isa import FORMATS, ScalarFn, VectorFn
from .calculator import OPERATION, Function


class Kind(enum.Enum, shape=unsigned(3)):
    """Instructions of the vector unit."""

    VECTOR = 0
    SCALAR = 1
    QUANT = 2
    NORM = 3
    CACHE = 4
    SAMPLE = 5


#: Instructions that start when all others have ended, and end before the next starts.
ALONE = ("VECTOR", "SCALAR", "SAMPLE")


def is_kind(job, name: str):
    """Whether a job is the instruction ``name``."""
    return job.word[:8] == FORMATS[name][0]


class Serial(wiring.Component):
    """Runs one instruction at a time.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    start : ``In(1)``
        ``job`` is one of :data:`ALONE` and nothing else is under way; ``job`` stays until ``done``.
    job : ``In(JOB)``
    done : ``Out(1)``
        For a cycle: all effects are visible.
    run, running : ``Out(1)``, ``In(1)``
        Asks for the pass of a VECTOR until it has been taken.
    scalar : ``Out(32)``
        The scalar register that ``job`` names, as a VECTOR.
    written : ``In(1)``
        A word has gone to the scratchpad.
    total : ``In({valid, value})``
        The sum of a pass.
    folded, peaks : ``In``
        The last word of a pass has come to the lanes' maxima; these.
    operation, result : streams to and from a :class:`Calculator`
    sample_job, sampled
        To the sampler, and that it is done.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "start": In(1), "job": In(layouts.JOB), "done": Out(1),
            "run": Out(1), "running": In(1), "scalar": Out(32), "written": In(1),
            "total": In(data.StructLayout({"valid": 1, "value": 32})),
            "folded": In(1), "peaks": In(layouts.word(config)),
            "operation": Out(stream.Signature(OPERATION)), "result": In(stream.Signature(32)),
            "sample_job": Out(stream.Signature(layouts.JOB)), "sampled": In(1)})

    def elaborate(self, platform):
        m = Module()
        lanes = self.config.vector_lanes
        scalars = Array(Signal(32, name=f"scalar_{k}", reset_less=True) for k in range(16))
        vector = layouts.view("VECTOR", self.job.word)
        scalar = layouts.view("SCALAR", self.job.word)
        m.d.comb += [
            self.scalar.eq(scalars[vector.s]), self.sample_job.payload.eq(self.job)]

        # A result goes into the scalar register `into`.
        value, into = Signal(32, reset_less=True), Signal(4)
        keep = Signal()
        with m.If(keep):
            m.d.sync += scalars[into].eq(value)

        left, lane = Signal(12), Signal(range(lanes + 2))
        request = Signal(OPERATION, reset_less=True)
        m.d.comb += self.operation.payload.eq(request)
        m.d.sync += left.eq(left - self.written)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [left.eq(vector.words), into.eq(vector.s), lane.eq(1)]
                with m.If(self.start & is_kind(self.job, "VECTOR")):
                    m.next = "RUN"
                with m.If(self.start & is_kind(self.job, "SCALAR")):
                    m.d.sync += [
                        request.fn.as_value().eq(scalar.fn), into.eq(scalar.d),
                        request.a.eq(scalars[scalar.a]),
                        request.b.eq(scalars[scalar.b])]
                    with m.If(scalar.fn == ScalarFn.SET):
                        m.d.sync += request.b.eq(scalar.imm)
                    m.next = "OPERATE"
                with m.If(self.start & is_kind(self.job, "SAMPLE")):
                    m.next = "SAMPLE"

            with m.State("RUN"):
                m.d.comb += self.run.eq(1)
                with m.If(self.running):
                    m.next = "WRITE"
                    with m.If(vector.fn == VectorFn.SUM):
                        m.next = "SUM"
                    with m.If(vector.fn == VectorFn.MAXIMUM):
                        m.next = "FOLD"
            with m.State("WRITE"):
                with m.If(left == 0):
                    m.next = "DONE"
            with m.State("SUM"):
                m.d.sync += value.eq(self.total.value)
                with m.If(self.total.valid):
                    m.next = "KEEP"

            # The maximum of the lanes' maxima, one after another.
            with m.State("FOLD"):
                m.d.sync += [
                    request.fn.eq(Function.MAX), request.a.eq(self.peaks[0]),
                    request.b.eq(self.peaks[min(1, lanes - 1)])]
                with m.If(self.folded):
                    m.next = "OPERATE"

            with m.State("OPERATE"):
                m.d.comb += self.operation.valid.eq(1)
                with m.If(self.operation.ready):
                    m.d.sync += lane.eq(lane + 1)
                    m.next = "RESULT"
            with m.State("RESULT"):
                m.d.comb += self.result.ready.eq(1)
                m.d.sync += [
                    value.eq(self.result.payload), request.a.eq(self.result.payload),
                    request.b.eq(Array(self.peaks[k] for k in range(lanes))[lane])]
                with m.If(self.result.valid):
                    m.next = "KEEP"
                    with m.If(is_kind(self.job, "VECTOR") & (lane < lanes)):
                        m.next = "OPERATE"

            with m.State("SAMPLE"):
                m.d.comb += self.sample_job.valid.eq(1)
                with m.If(self.sample_job.ready):
                    m.next = "SAMPLING"
            with m.State("SAMPLING"):
                with m.If(self.sampled):
                    m.next = "DONE"

            with m.State("KEEP"):
                m.d.comb += keep.eq(1)
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        return m
