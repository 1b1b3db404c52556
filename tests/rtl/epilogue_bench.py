# SPDX-License-Identifier: Apache-2.0
"""Epilogue and way of the probabilities with the memories around them, all told through streams."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl_gen.common import Queue, layouts, tree_sum
from rtl_gen.matmul.engine import row
from rtl_gen.matmul.epilogue import Epilogue
from rtl_gen.matmul.probpath import ProbPath, results_layout
from rtl_gen.spec import isa
from rtl_gen.vector.norm import norms_layout
from rtl_gen.vector.scales import Scales, load_layout
from rtl_gen.vector.scratchpad import Scratchpad, write_layout

#: A constant of one channel; ``last`` marks the last one of an instruction.
CONSTANT = data.StructLayout({"value": 32, "last": 1})


class Constants(wiring.Component):
    """A channel's constants: the next three words, taken at the same time as the others' ones.

    ``wrong`` rises if the end of an instruction is not where it was marked.
    """

    def __init__(self):
        super().__init__({
            "i": In(stream.Signature(CONSTANT)), "words": Out(data.ArrayLayout(32, 3)),
            "level": Out(2), "take": In(2), "skip": In(1), "wrong": Out(1)})

    def elaborate(self, platform):
        m = Module()
        held = [Signal(CONSTANT, name=f"held_{k}") for k in range(3)]
        kept = Signal(2)
        m.d.comb += [kept.eq(self.level - self.take), self.i.ready.eq(kept != 3)]
        m.d.comb += [word.eq(entry.value) for word, entry in zip(self.words, held, strict=True)]
        takes = self.i.valid & self.i.ready
        m.d.sync += self.level.eq(kept + takes)
        for k in range(3):
            with m.Switch(self.take):
                for taken in range(1, 3 - k):
                    with m.Case(taken):
                        m.d.sync += held[k].eq(held[k + taken])
            with m.If(takes & (kept == k)):
                m.d.sync += held[k].eq(self.i.payload)
        with m.Switch(self.take):
            for taken in range(1, 4):
                with m.Case(taken):
                    ends = Cat(held[k].last for k in range(taken))
                    m.d.comb += self.wrong.eq(
                        (ends != self.skip << taken - 1) | (self.level < taken))
        return m


class Back(wiring.Component):
    """All that comes behind the lanes of a card.

    Instructions start when ``loads`` words and ``scale_loads`` rows of scales are loaded; the
    scratchpad is read, and ``finals`` given, when ``jobs`` instructions are done.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "job": In(stream.Signature(layouts.JOB)), "rows": In(stream.Signature(row(config))),
            **{f"constants{k}": In(stream.Signature(CONSTANT)) for k in range(config.channels)},
            "load": In(stream.Signature(write_layout(config))),
            "scale_load": In(stream.Signature(load_layout(config))),
            "look": In(stream.Signature(16)), "seen": Out(stream.Signature(layouts.word(config))),
            "planes": Out(stream.Signature(layouts.plane_write(config))),
            "done_epilogue": Out(stream.Signature(isa.COUNTERS)),
            "done_softmax": Out(stream.Signature(isa.COUNTERS)),
            "finals": Out(stream.Signature(results_layout(config))),
            "norms": In(norms_layout(config)),
            "loads": In(16), "scale_loads": In(16), "jobs": In(16),
            "nonfinite": Out(1), "range": Out(1), "wrong": Out(1)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.epilogue = epilogue = Epilogue(config)
        m.submodules.path = path = ProbPath(config)
        m.submodules.scratch = scratch = Scratchpad(config)
        m.submodules.scales = scales = Scales(config)
        connect(m, epilogue.prob_job, path.job)
        connect(m, epilogue.scores, path.scores)
        connect(m, epilogue.k_read, scales.k_read)
        connect(m, path.v_read, scales.v_read)
        connect(m, epilogue.read, scratch.read[0])
        connect(m, epilogue.write, scratch.write[0])
        connect(m, flipped(self.load), scratch.write[1])
        connect(m, flipped(self.scale_load), scales.load)
        connect(m, flipped(self.rows), epilogue.rows)
        connect(m, path.planes, flipped(self.planes))
        wrong, levels = [], []
        for k in range(config.channels):
            m.submodules[f"constants_{k}"] = constants = Constants()
            connect(m, flipped(getattr(self, f"constants{k}")), constants.i)
            m.d.comb += [
                epilogue.words[k].eq(constants.words),
                constants.take.eq(epilogue.word_take), constants.skip.eq(epilogue.word_skip)]
            wrong.append(constants.wrong)
            levels.append(constants.level)
        fewest = [Cat(level >= least for level in levels).all() for least in (1, 2, 3)]
        m.d.comb += epilogue.word_level.eq(tree_sum(fewest))

        loaded, scales_loaded, done = Signal(16), Signal(16), Signal(16)
        begun = (loaded == self.loads) & (scales_loaded == self.scale_loads)
        over = (done == self.jobs) & (path.pending == 0)
        m.d.sync += [
            loaded.eq(loaded + (self.load.valid & self.load.ready)),
            scales_loaded.eq(scales_loaded + (self.scale_load.valid & self.scale_load.ready)),
            done.eq(done + epilogue.done.valid + path.done.valid)]
        told, pending = Signal(), Signal()
        m.d.comb += [
            epilogue.job.valid.eq(self.job.valid & begun),
            epilogue.job.payload.eq(self.job.payload),
            self.job.ready.eq(epilogue.job.ready & begun),
            epilogue.norms.eq(self.norms), epilogue.results.eq(path.results),
            epilogue.pending.eq(path.pending),
            self.look.ready.eq(over & (~pending | self.seen.ready)),
            scratch.read[3].en.eq(self.look.valid & self.look.ready),
            scratch.read[3].addr.eq(self.look.payload),
            self.seen.valid.eq(pending), self.seen.payload.eq(scratch.read[3].data),
            self.finals.valid.eq(over & ~told), self.finals.payload.eq(path.results),
            self.nonfinite.eq(epilogue.nonfinite | path.nonfinite), self.range.eq(path.range),
            self.wrong.eq(Cat(wrong).any() | (epilogue.write.valid & ~epilogue.write.ready))]
        m.d.sync += pending.eq(Mux(self.look.ready, self.look.valid, pending & ~self.seen.ready))
        with m.If(self.finals.valid & self.finals.ready):
            m.d.sync += told.eq(1)
        for name, unit, port in (("epilogue", epilogue, self.done_epilogue),
                                 ("softmax", path, self.done_softmax)):
            m.submodules[f"done_{name}"] = queue = Queue(isa.COUNTERS, depth=512)
            m.d.comb += [queue.i.valid.eq(unit.done.valid), queue.i.payload.eq(unit.done.signal)]
            connect(m, queue.o, flipped(port))
        return m
