# SPDX-License-Identifier: Apache-2.0
"""The engine between queues: its own jobs, channels and activations, all as streams.

What the dependency counters of a card order, counts that travel with the payloads order here.
"""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl_gen.common import Queue, layouts
from rtl_gen.matmul.engine import Engine, row
from rtl_gen.spec.config import CardConfig

COUNT = 20
#: What must have ended before a payload is let through: instructions without and with ``last``.
AFTER = data.StructLayout({"done": COUNT, "last": COUNT})
#: What an instruction needs: words written through each port of the planes, and of fresh K and V.
NEEDS = data.StructLayout({"planes": data.ArrayLayout(COUNT, 2), "fresh": COUNT})


def pair(config: CardConfig) -> data.StructLayout:
    """One or two entries of a channel."""
    return data.StructLayout({"entries": data.ArrayLayout(layouts.entry(config).size, 2), "two": 1})


class Feeder(wiring.Component):
    """What a channel shows the engine: the next two entries."""

    def __init__(self, config):
        size = layouts.entry(config).size
        self.size = size
        super().__init__({
            "i": In(stream.Signature(pair(config))), "entries": Out(size).array(2),
            "swap": Out(1), "some": Out(2), "take": In(2)})

    def elaborate(self, platform):
        m = Module()
        held, count = [Signal(self.size, name=f"held_{k}") for k in range(6)], Signal(3)
        left = Signal(3)
        m.d.comb += [
            self.i.ready.eq(count <= 4), left.eq(count - self.take),
            self.some.eq(Cat(count >= 1, count >= 2)),
            self.entries[0].eq(Mux(self.swap, held[1], held[0])),
            self.entries[1].eq(Mux(self.swap, held[0], held[1]))]
        m.d.sync += self.swap.eq(self.swap ^ self.take[0])
        moved = Array(Cat(*held[k:], *held[:k]) for k in range(4))[self.take]
        m.d.sync += [Cat(*held).eq(moved), count.eq(left)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += count.eq(left + 1 + self.i.p.two)
            for k in range(6):
                with m.If(left == k):
                    m.d.sync += held[k].eq(self.i.p.entries[0])
                with m.If(left + 1 == k):
                    m.d.sync += held[k].eq(self.i.p.entries[1])
        return m


def members(config: CardConfig) -> dict[str, wiring.Member]:
    """Ports of the bench."""
    def late(shape):
        return In(stream.Signature(data.StructLayout({"what": shape, "after": AFTER})))

    return {
        "job": In(stream.Signature(data.StructLayout({"job": layouts.JOB, "needs": NEEDS}))),
        "plane_0": late(layouts.plane_write(config)),
        "plane_1": late(layouts.plane_write(config)),
        "fresh": late(layouts.fresh_write(config)),
        **{f"channel_{c}": In(stream.Signature(pair(config))) for c in range(config.channels)},
        **{f"write_{c}": Out(stream.Signature(layouts.channel_write(config)))
           for c in range(config.channels)},
        "epilogue_job": Out(stream.Signature(layouts.JOB)),
        "rows": Out(stream.Signature(row(config))),
        "done": Out(stream.Signature(16)),
        "pairs": Out(1), "singles": Out(1), "wait_weights": Out(1), "wait_rows": Out(1),
        "lost": Out(1)}


class EngineBench(wiring.Component):
    """See the module; ``pairs``, ``singles`` and the waits are high in the cycles they count."""

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__(members(config))

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = engine = Engine(self.config)

        ended = Signal(AFTER)
        m.submodules.reports = reports = Queue(16, depth=512)
        m.d.comb += [
            reports.i.valid.eq(engine.done.valid), reports.i.payload.eq(engine.done.signal),
            self.lost.eq(reports.i.valid & ~reports.i.ready)]
        m.d.sync += ended.done.eq(ended.done + engine.done.valid)
        rows = self.rows
        with m.If(rows.valid & rows.ready & rows.p.last_row & rows.p.last_token):
            m.d.sync += ended.last.eq(ended.last + 1)

        written = Signal(NEEDS)
        for port, inner, count in (
                (self.plane_0, engine.planes[0], written.planes[0]),
                (self.plane_1, engine.planes[1], written.planes[1]),
                (self.fresh, engine.fresh, written.fresh)):
            go = (ended.done >= port.p.after.done) & (ended.last >= port.p.after.last)
            m.d.comb += [
                inner.valid.eq(port.valid & go), port.ready.eq(inner.ready & go),
                inner.payload.eq(port.p.what)]
            m.d.sync += count.eq(count + (inner.valid & inner.ready))
        needs = self.job.p.needs
        go = ((written.planes[0] >= needs.planes[0]) & (written.planes[1] >= needs.planes[1])
              & (written.fresh >= needs.fresh))
        m.d.comb += [
            engine.job.valid.eq(self.job.valid & go), self.job.ready.eq(engine.job.ready & go),
            engine.job.payload.eq(self.job.p.job)]

        for c in range(self.config.channels):
            m.submodules[f"feeder_{c}"] = feeder = Feeder(self.config)
            connect(m, flipped(getattr(self, f"channel_{c}")), feeder.i)
            m.d.comb += [
                engine.entries[c][k].eq(feeder.entries[k]) for k in range(2)]
            m.d.comb += [engine.swap[c].eq(feeder.swap), engine.some[c].eq(feeder.some),
                         feeder.take.eq(engine.take[c])]
            connect(m, engine.write[c], flipped(getattr(self, f"write_{c}")))
        connect(m, engine.epilogue_job, flipped(self.epilogue_job))
        connect(m, engine.rows, flipped(self.rows))
        connect(m, reports.o, flipped(self.done))
        m.d.comb += [
            self.pairs.eq(engine.entries_used == 2), self.singles.eq(engine.entries_used == 1),
            self.wait_weights.eq(engine.wait_weights), self.wait_rows.eq(engine.wait_rows)]
        return m
