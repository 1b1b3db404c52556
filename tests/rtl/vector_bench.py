# SPDX-License-Identifier: Apache-2.0
"""The vector unit with a scratchpad, driven by a script; the same script on NumPy.

The reference is :class:`cardsim.benches.vector_model.VectorModel`.
"""

import dataclasses

import numpy as np
from amaranth import Const, Module, Mux, ResetInserter, Signal, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from cardsim.benches.vector_model import VectorModel
from rtl_gen.common import Queue, layouts
from rtl_gen.spec import isa
from rtl_gen.spec.config import CardConfig
from rtl_gen.vector import Scratchpad, Vector, scratchpad
from rtl_gen.vector.scales import cache_layout


class Do(enum.Enum, shape=unsigned(3)):
    """What an item of the script does."""

    LOAD = 0    #: writes a scratchpad word
    JOB = 1     #: gives an instruction to the vector unit
    READ = 2    #: shows a scratchpad word
    NORMS = 3   #: shows the statistics
    MUTE = 4    #: from now on nothing is shown
    RESET = 5   #: resets the vector unit, and shows what comes again


def item_layout(config: CardConfig) -> data.StructLayout:
    """An item; with ``wait`` it waits until all instructions before it have ended."""
    return data.StructLayout({
        "do": Do, "wait": 1, "addr": 16, "word": layouts.word(config), "job": layouts.JOB})


def norms_bits(config: CardConfig) -> int:
    return 2 * config.tokens * 64


def outputs(config: CardConfig) -> dict[str, data.StructLayout]:
    """Payloads of the vector unit's streams."""
    return {"plane": layouts.plane_write(config), "fresh": layouts.fresh_write(config),
            "scale": cache_layout(config)}


class VectorBench(wiring.Component):
    """Vector unit and scratchpad behind streams: items in, everything that comes out."""

    def __init__(self, config: CardConfig):
        self.config = config
        vector = Vector(config)
        self.vector = vector
        shapes = outputs(config)
        super().__init__({
            "i": In(stream.Signature(item_layout(config))),
            **{name: Out(stream.Signature(shape)) for name, shape in shapes.items()},
            "ended": Out(stream.Signature(16)),
            "sampled": Out(stream.Signature(16)),
            "shown": Out(stream.Signature(layouts.word(config))),
            "norms": Out(stream.Signature(norms_bits(config))),
            "nonfinite": Out(1), "range": Out(1)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        vector, reset = self.vector, Signal()
        m.submodules.vector = ResetInserter(reset)(vector)
        m.submodules.pad = pad = Scratchpad(config)
        m.submodules.ended = ended = Queue(16, depth=2048)
        m.submodules.sampled = sampled = Queue(16, depth=4)
        for k in range(2):
            connect(m, vector.read[k], pad.read[scratchpad.OPERAND_A + k])
        connect(m, vector.write, pad.write[scratchpad.FROM_VECTOR])
        # While mute, streams move every other cycle.
        mute, other = Signal(), Signal()
        m.d.sync += other.eq(~other)
        for name in ("plane", "fresh", "scale"):
            inside, outside = getattr(vector, name), getattr(self, name)
            m.d.comb += [
                outside.valid.eq(inside.valid & ~mute), outside.payload.eq(inside.payload),
                inside.ready.eq(Mux(mute, other, outside.ready))]
        connect(m, ended.o, flipped(self.ended))
        connect(m, sampled.o, flipped(self.sampled))
        m.d.comb += [
            ended.i.valid.eq(vector.done.valid & ~mute), ended.i.payload.eq(vector.done.signal),
            self.nonfinite.eq(vector.nonfinite), self.range.eq(vector.range)]

        # A sampler that takes its time.
        busy = Signal(range(8))
        m.d.comb += [
            vector.sample_job.ready.eq((busy == 0) & sampled.i.ready),
            sampled.i.valid.eq(vector.sample_job.valid & (busy == 0) & ~mute),
            sampled.i.payload.eq(vector.sample_job.p.word[:16]),
            vector.sample_done.valid.eq(busy == 1)]
        with m.If(vector.sample_job.valid & vector.sample_job.ready):
            m.d.sync += busy.eq(7)
        with m.Elif(busy != 0):
            m.d.sync += busy.eq(busy - 1)
        with m.If(reset):
            m.d.sync += busy.eq(0)

        # The count is of jobs that have not ended.
        running = Signal(16)
        item = self.i.p
        free = ~item.wait | (running == 0)
        flags = {do: Signal(name=f"does_{do.name.lower()}") for do in Do}
        loads, runs, reads, shows = (
            flags[do] for do in (Do.LOAD, Do.JOB, Do.READ, Do.NORMS))
        m.d.comb += [
            flag.eq(self.i.valid & free & (item.do == do)) for do, flag in flags.items()]
        m.d.comb += reset.eq(flags[Do.RESET])
        with m.If(flags[Do.MUTE] | reset):
            m.d.sync += mute.eq(flags[Do.MUTE])
        port = pad.write[scratchpad.FROM_LOAD]
        m.d.comb += [
            port.valid.eq(loads), port.p.addr.eq(item.addr), port.p.data.eq(item.word),
            vector.job.valid.eq(runs), vector.job.payload.eq(item.job),
            self.norms.valid.eq(shows & ~mute), self.norms.payload.eq(vector.norms)]
        read = Signal()
        m.d.comb += [
            pad.read[scratchpad.STORE].en.eq(reads & ~read),
            pad.read[scratchpad.STORE].addr.eq(item.addr),
            self.shown.valid.eq(read), self.shown.payload.eq(pad.read[scratchpad.STORE].data)]
        m.d.sync += read.eq((reads & ~read) | (read & ~self.shown.ready))
        m.d.comb += self.i.ready.eq(
            (loads & port.ready) | (runs & vector.job.ready) | (read & self.shown.ready)
            | (shows & (self.norms.ready | mute)) | flags[Do.MUTE] | reset)
        m.d.sync += running.eq(running + (runs & vector.job.ready) - vector.done.valid)
        with m.If(reset):
            m.d.sync += running.eq(0)
        return m


@dataclasses.dataclass
class Expected:
    """What a script is to give, in order."""

    plane: list = dataclasses.field(default_factory=list)
    fresh: list = dataclasses.field(default_factory=list)
    scale: list = dataclasses.field(default_factory=list)
    ended: list = dataclasses.field(default_factory=list)
    sampled: list = dataclasses.field(default_factory=list)
    shown: list = dataclasses.field(default_factory=list)
    norms: list = dataclasses.field(default_factory=list)


class Script:
    """Items for the bench, and what they are to give."""

    def __init__(self, config: CardConfig):
        self.config = config
        self.items: list[int] = []
        self.expected = Expected()
        self.model = VectorModel(config, self._put)
        self._layout = item_layout(config)
        self._outputs = outputs(config)

    def _put(self, port: str, **fields) -> None:
        if port in self._outputs:       # what is written is read back
            self.expected.__dict__[port].append(
                Const.cast(self._outputs[port].const(fields)).value)

    def _item(self, do: Do, **fields) -> None:
        self.items.append(Const.cast(self._layout.const({"do": do, **fields})).value)

    def load(self, addr: int, words) -> None:
        """Write words, once all instructions so far have ended."""
        for k, word in enumerate(np.asarray(words, np.uint32)):
            self.model.memory[addr + k] = word
            self._item(Do.LOAD, wait=1, addr=addr + k, word=[int(v) for v in word])

    def read(self, addr: int, count: int) -> None:
        """Show words, once all instructions so far have ended."""
        for k in range(addr, addr + count):
            self._item(Do.READ, wait=1, addr=k)
            self.expected.shown.append(
                sum(int(v) << 32 * lane for lane, v in enumerate(self.model.memory[k])))

    def show_norms(self) -> None:
        self._item(Do.NORMS, wait=1)
        self.expected.norms.append(
            sum(int(v) << 32 * k for k, v in enumerate(self.model.norms.ravel())))

    def run(self, name: str, *, pos: int = 0, **fields) -> None:
        """One instruction."""
        word = isa.encode(name, **fields)
        self._item(Do.JOB, job={"word": word, "pos": pos})
        self.expected.ended.append(fields.get("signal", 0))
        if name == "SAMPLE":
            self.expected.sampled.append(word & 0xFFFF)
        self.model.execute(*isa.decode(word), pos)

    def forget(self, items: list[int]) -> None:
        """Run what another script says, muted, and reset in the middle of it."""
        self._item(Do.MUTE)
        self.items += items
        self._item(Do.RESET)
