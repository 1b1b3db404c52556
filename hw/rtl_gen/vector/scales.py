# SPDX-License-Identifier: Apache-2.0
"""The scales of K and V: two BF16 numbers per entry and lane."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram, layouts
from ..spec.config import CardConfig

K, V = 0, 1


def row_layout(config: CardConfig) -> data.ArrayLayout:
    """One entry of every lane, K or V."""
    return data.ArrayLayout(16, config.vector_lanes)


def read_port(config: CardConfig) -> wiring.Signature:
    """A read port, seen from the reader; data appear a cycle later and stay until the next read."""
    return wiring.Signature({"en": Out(1), "addr": Out(16), "data": In(row_layout(config))})


def entry_layout(config: CardConfig) -> data.StructLayout:
    """Where one lane's entry is."""
    return data.StructLayout({"addr": 16, "lane": range(config.vector_lanes)})


def load_layout(config: CardConfig) -> data.StructLayout:
    """One entry of every lane: K scale in the low half, V scale in the high half."""
    return data.StructLayout({"addr": 16, "data": layouts.word(config)})


def cache_layout(config: CardConfig) -> data.StructLayout:
    """One new scale: kind 0 is K, 1 is V."""
    return data.StructLayout({
        "addr": 16, "lane": range(config.vector_lanes), "kind": 1, "scale": 16})


class Scales(wiring.Component):
    """Scales of K and V, one pair per lane and entry.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    k_read, v_read : ports {``en`` In(1), ``addr`` In(16), ``data`` Out(V BF16)}
        For the epilogue and for softmax.  Data appear a cycle after ``en`` and stay until the next
        read of the port.
    row_read : ``In(stream.Signature({addr, lane}))``
        Entries for STORE; read while neither port above reads.
    row : ``Out(stream.Signature(32))``
        The entries asked for: K scale (low half), V scale.
    load : ``In(stream.Signature({addr, data}))``
        Entries of all lanes from LOAD.
    cache : ``In(stream.Signature({addr, lane, kind, scale}))``
        A new scale from the vector unit; goes before ``load``.  Reads see a write from the next
        cycle on.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "k_read": In(read_port(config)), "v_read": In(read_port(config)),
            "row_read": In(stream.Signature(entry_layout(config))),
            "row": Out(stream.Signature(32)),
            "load": In(stream.Signature(load_layout(config))),
            "cache": In(stream.Signature(cache_layout(config)))})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        lanes = config.vector_lanes

        m.d.comb += [self.cache.ready.eq(1), self.load.ready.eq(~self.cache.valid)]
        # A row read waits for a cycle in which neither port reads, and for room for its answer.
        looked_up, lane = Signal(), Signal(range(lanes), reset_less=True)
        take = Signal()
        m.d.comb += [
            self.row_read.ready.eq(
                ~self.k_read.en & ~self.v_read.en & ~looked_up
                & (~self.row.valid | self.row.ready)),
            take.eq(self.row_read.valid & self.row_read.ready)]
        m.d.sync += looked_up.eq(take)
        with m.If(take):
            m.d.sync += lane.eq(self.row_read.p.lane)
        with m.If(self.row.ready):
            m.d.sync += self.row.valid.eq(0)
        with m.If(looked_up):
            m.d.sync += self.row.valid.eq(1)

        for kind, port in ((K, self.k_read), (V, self.v_read)):
            m.submodules[f"{'kv'[kind]}_scales"] = content = Ram(
                row_layout(config), depth=config.kv_scales, parts=lanes)
            new = self.cache.p
            for k in range(lanes):
                m.d.comb += [
                    content.write_en[k].eq(
                        (self.cache.valid & (new.kind == kind) & (new.lane == k))
                        | (self.load.valid & self.load.ready)),
                    content.write_data[k].eq(Mux(
                        self.cache.valid, new.scale, self.load.p.data[k].word_select(kind, 16)))]
            m.d.comb += [
                content.write_addr.eq(Mux(self.cache.valid, new.addr, self.load.p.addr)),
                content.read_en.eq(port.en | take),
                content.read_addr.eq(Mux(port.en, port.addr, self.row_read.p.addr))]

            # A row read disturbs the memory's output, so the port's word is kept beside it.
            fresh = Signal()
            kept = Signal(row_layout(config), reset_less=True)
            m.d.sync += fresh.eq(port.en)
            with m.If(fresh):
                m.d.sync += kept.eq(content.read_data)
            m.d.comb += port.data.eq(Mux(fresh, content.read_data.as_value(), kept.as_value()))

            with m.If(looked_up):
                m.d.sync += self.row.payload.word_select(kind, 16).eq(content.read_data[lane])
        return m
