# SPDX-License-Identifier: Apache-2.0
"""The vector unit: FP32 lanes, statistics, quantisation, K and V of new tokens."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import Ram, Skid, layouts
from ..emit import Leaf
from ..fp32 import Tree
from ..spec.config import SLICE_BLOCKS, CardConfig
from . import passes, scales, scratchpad
from .calculator import Calculator
from .delay import delay
from .functions import Functions
from .head import Heads
from .issue import ENTRY, Issue
from .lane import VectorLane
from .norm import norms_layout
from .quantise import SliceQuantiser
from .serial import Kind, Serial
from .statistics import WORDS, Statistics

#: Results on their way to the scratchpad.
RESULTS = 32
#: Instructions under way.
ENTRIES = 16


class Vector(wiring.Component):
    """Executes VECTOR, SCALAR, QUANT, NORM and CACHE, and hands SAMPLE to the sampler.

    QUANT, NORM and CACHE overlap; the others run alone.  One word a cycle within an instruction.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    job : ``In(stream.Signature(layouts.JOB))``
    done : ``Out(layouts.DONE)``
        For a cycle, once per instruction, in order.
    read : array of 2 scratchpad read ports
    write : ``Out(stream.Signature(scratchpad.write_layout(config)))``
    plane : ``Out(stream.Signature(layouts.plane_write(config)))``
    fresh : ``Out(stream.Signature(layouts.fresh_write(config)))``
    scale : ``Out(stream.Signature(scales.cache_layout(config)))``
    norms : ``Out``
        {mean, rstd} by set and token.
    sample_job : ``Out(stream.Signature(layouts.JOB))``
    sample_done : ``In(layouts.DONE)``
    nonfinite, range : ``Out(1)``
        For a cycle: an infinity or NaN was read or made; an activation was too large.
    """

    job: stream.Interface
    write: stream.Interface
    plane: stream.Interface
    fresh: stream.Interface
    scale: stream.Interface
    sample_job: stream.Interface

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "job": In(stream.Signature(layouts.JOB)), "done": Out(layouts.DONE),
            "read": Out(scratchpad.read_port(config)).array(2),
            "write": Out(stream.Signature(scratchpad.write_layout(config))),
            "plane": Out(stream.Signature(layouts.plane_write(config))),
            "fresh": Out(stream.Signature(layouts.fresh_write(config))),
            "scale": Out(stream.Signature(scales.cache_layout(config))),
            "norms": Out(norms_layout(config)),
            "sample_job": Out(stream.Signature(layouts.JOB)), "sample_done": In(layouts.DONE),
            "nonfinite": Out(1), "range": Out(1)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        lanes = config.vector_lanes

        m.submodules.quantiser = quantiser = SliceQuantiser(
            lanes=lanes, depth=SLICE_BLOCKS * config.beat_bytes // lanes, tag=passes.TARGET,
            passes=True)
        m.submodules.functions = functions = Functions(lanes=lanes)
        m.submodules.issue = issue = Issue(
            config, words=quantiser.ring, sums=WORDS, results=RESULTS, kept=quantiser.ring,
            interval=functions.INTERVAL)
        m.submodules.statistics = statistics = Statistics(config)
        m.submodules.heads = heads = Heads(config)
        m.submodules.serial = serial = Serial(config)
        m.submodules.calculator = calculator = Calculator()

        self._instructions(m, issue, statistics, heads, serial, quantiser)
        connect(m, serial.operation, calculator.i)
        connect(m, calculator.o, serial.result)
        nonfinite, folded, peaks = self._words(m, issue, statistics, quantiser, functions)
        m.d.comb += [serial.folded.eq(folded), serial.peaks.eq(peaks),
                     self.norms.eq(statistics.norms), self.range.eq(quantiser.range)]
        m.d.sync += self.nonfinite.eq(
            nonfinite | statistics.nonfinite | calculator.nonfinite | quantiser.nonfinite)
        finished = self._results(m, issue, serial, quantiser)
        self._report(m, issue, statistics, serial, finished)
        return m

    def _instructions(self, m, issue, statistics, heads, serial, quantiser):
        """Who gets the instructions, and who asks for second passes."""
        # Whether an instruction leaves is known late.
        m.submodules.skid = skid = Skid(layouts.JOB)
        connect(m, flipped(self.job), skid.i)
        connect(m, skid.o, issue.job)
        connect(m, statistics.again, issue.slice)
        connect(m, issue.head, heads.i)
        connect(m, heads.again, issue.head_again)
        connect(m, heads.scale, flipped(self.scale))
        connect(m, serial.sample_job, flipped(self.sample_job))
        peak = quantiser.peak
        m.d.comb += [
            serial.start.eq(issue.alone), serial.job.eq(issue.alone_job),
            issue.alone_done.eq(serial.done), issue.run.eq(serial.run),
            serial.running.eq(issue.running), issue.scalar.eq(serial.scalar),
            serial.sampled.eq(self.sample_done.valid), serial.total.eq(statistics.total),
            statistics.open.eq(issue.open), issue.free.eq(statistics.free),
            statistics.norm.eq(issue.norm), issue.pending.eq(statistics.pending),
            heads.peak.valid.eq(peak.valid), heads.peak.magnitude.eq(peak.magnitude),
            heads.peak.wide.eq(peak.tag.digits)]

    def _words(self, m, issue, statistics, quantiser, functions):
        """Words go through the lanes, and from there to quantiser, sums and results."""
        step = issue.step
        scratch = ~step.word.replay & ~step.word.rows
        for port, addr, en in ((self.read[0], step.a, step.valid & scratch),
                               (self.read[1], step.b, step.valid & step.read_b)):
            m.d.comb += [port.en.eq(en), port.addr.eq(addr)]

        # Data come a cycle after the step.  Slices whose statistics form are kept for their second
        # pass, because others may write over them when their instruction has ended.
        now = delay(m, step, 1, "now")
        there = delay(m, step.valid, 1, "there", reset_less=False)
        m.submodules.kept = kept = Ram(layouts.word(self.config), depth=quantiser.ring)
        keep, replay = Signal(range(quantiser.ring)), Signal(range(quantiser.ring))
        m.d.comb += [
            kept.write_en.eq(there & now.word.keep), kept.write_addr.eq(keep),
            kept.write_data.eq(self.read[0].data),
            kept.read_en.eq(step.valid & step.word.replay), kept.read_addr.eq(replay)]
        m.d.sync += [keep.eq(keep + kept.write_en), replay.eq(replay + kept.read_en)]
        rows = now.word.rows
        m.d.comb += [statistics.read_en.eq(step.valid & step.word.rows),
                     statistics.read_addr.eq(step.a)]
        short = Signal()
        m.d.comb += short.eq(now.last & (now.word.valid != 0))
        op = Signal(now.word.op.shape())
        m.d.comb += [op.eq(now.word.op), op.valid.eq(there)]
        units = []
        for k in range(lanes := self.config.vector_lanes):
            m.submodules[f"lane_{k}"] = lane = Leaf(VectorLane())
            blank = short & (now.word.valid <= k)
            m.d.comb += [
                lane.a.eq(Mux(rows, Mux(blank, 0, statistics.sums[k]), Mux(
                    now.word.replay, kept.read_data[k], self.read[0].data[k]))),
                lane.b.eq(self.read[1].data[k]),
                lane.s.eq(now.word.s), lane.op.eq(op)]
            units.append(lane)

        def sink(wanted, about, cycles, name):
            """Whether a word comes, and what about it, so many cycles after its data."""
            here = delay(m, there & wanted, cycles, f"{name}_valid", reset_less=False)
            return here, delay(m, about, cycles, name)

        last = now.last
        valid, how = sink(
            now.word.quantise, Cat(last, now.word.how), VectorLane.PRODUCT, "quantise")
        how_layout = now.word.how.shape()
        how, quantised_last = data.View(how_layout, how[1:]), how[0]
        m.d.comb += [
            quantiser.i.valid.eq(valid),
            *(quantiser.i.p.data[k].eq(units[k].product) for k in range(lanes)),
            quantiser.i.p.last.eq(quantised_last), quantiser.i.p.digits.eq(how.digits),
            quantiser.i.p.base.eq(how.base), quantiser.i.p.tag.eq(how.target),
            quantiser.i.p.mode.eq(how.mode)]

        m.submodules.tree = tree = Leaf(Tree(lanes))
        m.d.comb += [tree.en.eq(1), *(tree.i[k].eq(units[k].term) for k in range(lanes))]
        latency = VectorLane.TERM + tree.component.LATENCY
        summed, tag = sink(now.word.tree, Cat(last, now.word.sum, now.dst[:9]), latency, "sum")
        m.d.comb += [
            statistics.word.valid.eq(summed), statistics.word.value.eq(tree.o),
            Cat(statistics.word.last, statistics.word.tag.as_value(), statistics.place).eq(tag),
            issue.sum_left.eq(statistics.taken)]

        layout = scratchpad.write_layout(self.config)
        m.submodules.results = results = fifo.SyncFIFO(width=layout.size, depth=RESULTS)
        result = Signal(layout)
        valid, address = sink(
            now.word.write & ~now.word.function, now.dst, VectorLane.LATENCY, "write")
        m.d.comb += [
            result.addr.eq(address),
            *(result.data[k].eq(units[k].result) for k in range(lanes))]
        # Functions run alone: their results and those of the lanes never come together.
        m.d.comb += [
            functions.start.eq(there & now.word.function), functions.i.eq(self.read[0].data),
            functions.exp.eq(now.word.exp), functions.erf.eq(now.word.erf)]
        worked, place = sink(now.word.function, now.dst, functions.LATENCY, "function")
        with m.If(worked):
            m.d.comb += [result.addr.eq(place), result.data.eq(functions.o)]
        m.d.comb += [
            results.w_data.eq(result), results.w_en.eq(valid | worked),
            issue.result_left.eq(self.write.valid & self.write.ready)]
        connect(m, results.r_stream, flipped(self.write))

        seen = Signal()
        m.d.sync += seen.eq(Cat(lane.nonfinite for lane in units).any())
        # The maxima are there a cycle after the lane's register.
        folded = delay(m, there & last & now.word.op.fold, 3, "folded", reset_less=False)
        peaks = Signal(layouts.word(self.config))
        m.d.comb += [peaks[k].eq(units[k].peak) for k in range(lanes)]
        return seen | functions.nonfinite | (summed & tree.nonfinite), folded, peaks

    def _results(self, m, issue, serial, quantiser):
        """Quantised words go to the planes, or to fresh K and V; returns what has ended."""
        config, o = self.config, quantiser.o
        target = o.p.tag
        index = Signal(12)
        moved = Signal()
        m.d.comb += [
            o.ready.eq(Mux(target.fresh, self.fresh.ready, self.plane.ready)),
            moved.eq(o.valid & o.ready), issue.word_left.eq(moved),
            serial.written.eq(self.write.valid & self.write.ready)]
        with m.If(moved):
            m.d.sync += index.eq(Mux(o.p.last, 0, index + 1))
        per_block = (config.beat_bytes // config.vector_lanes).bit_length() - 1
        plane, fresh = self.plane.p, self.fresh.p
        m.d.comb += [
            self.plane.valid.eq(o.valid & ~target.fresh),
            plane.block.eq(target.block + index[per_block:]), plane.part.eq(index[:per_block]),
            plane.exponent.eq(o.p.exponent), plane.digits.eq(target.digits),
            plane.two_beat.eq(target.two_beat), plane.token.eq(target.token),
            self.fresh.valid.eq(o.valid & target.fresh),
            fresh.kind.eq(target.kind), fresh.token.eq(target.token), fresh.head.eq(target.head),
            fresh.part.eq(index)]
        for word in (plane, fresh):
            m.d.comb += [word.low.eq(o.p.low), word.high.eq(o.p.high)]
        ended = moved & o.p.last
        return {"plane": ended & ~target.fresh, "fresh": ended & target.fresh,
                "scale": self.scale.valid & self.scale.ready}

    def _report(self, m, issue, statistics, serial, finished):
        """Instructions end in order."""
        m.submodules.entries = entries = fifo.SyncFIFO(width=ENTRY.size, depth=ENTRIES)
        connect(m, issue.entry, entries.w_stream)
        head, pop = Signal(ENTRY), Signal()
        m.d.comb += [head.eq(entries.r_data), issue.idle.eq(~entries.r_rdy)]

        counts = {name: Signal(range(ENTRIES + 1), name=f"{name}_ended") for name in finished}
        is_quant, is_cache = head.kind == Kind.QUANT, head.kind == Kind.CACHE
        takes = {"plane": is_quant, "fresh": is_cache, "scale": is_cache}
        for name, count in counts.items():
            m.d.sync += count.eq(count + finished[name] - (pop & takes[name]))
        normed = Signal(self.config.tokens)
        token = head.token
        taken = ((pop & (head.kind == Kind.NORM)) << token)[:self.config.tokens]
        m.d.sync += normed.eq((normed | statistics.done) & ~taken)
        m.d.comb += [
            issue.normed.eq(statistics.busy | normed), entries.r_en.eq(pop),
            pop.eq(entries.r_rdy & Mux(
                is_quant, counts["plane"] != 0, Mux(
                    is_cache, (counts["fresh"] != 0) & (counts["scale"] != 0),
                    normed.bit_select(token, 1))))]
        alone = layouts.view("NOP", issue.alone_job.word)
        m.d.sync += [
            self.done.valid.eq(pop | serial.done),
            self.done.signal.eq(Mux(pop, head.signal, alone.signal))]
