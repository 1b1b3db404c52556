# SPDX-License-Identifier: Apache-2.0
"""One AXI4 port for two masters: a channel, and control's own port."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..common import Queue, axi
from ..spec.config import CardConfig

#: Write bursts whose data or answer is still to come.
OUTSTANDING = 64


class SharedPort(wiring.Component):
    """Joins the port of channel 0 with that of control.

    Reads are not arbitrated: control reads only while no program runs, so ``system_reads`` says
    whose turn it is.  Writes are: data follow the order of the addresses, and answers come back in
    it, because both masters use one ID.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    channel, system : AXI4 slaves
    system_reads : ``In(1)``
        Reads belong to control.  Changes only while none is outstanding.
    axi : AXI4 master
    """

    def __init__(self, config: CardConfig):
        self.config = config
        signature = axi.full(config.beat_bytes)
        super().__init__({
            "channel": In(signature), "system": In(signature), "system_reads": In(1),
            "axi": Out(signature)})

    def elaborate(self, platform):
        m = Module()
        port, masters = self.axi, (self.channel, self.system)

        for name in ("arvalid", "arid", "araddr", "arlen", "arsize", "arburst", "rready"):
            m.d.comb += getattr(port, name).eq(Mux(
                self.system_reads, getattr(self.system, name), getattr(self.channel, name)))
        for master, mine in zip(masters, (~self.system_reads, self.system_reads), strict=True):
            m.d.comb += [
                master.arready.eq(port.arready & mine), master.rvalid.eq(port.rvalid & mine),
                master.rid.eq(port.rid), master.rdata.eq(port.rdata),
                master.rresp.eq(port.rresp), master.rlast.eq(port.rlast)]

        # An address is taken into a register; whose it is follows the data's and the answer's way
        # when memory has taken it.
        m.submodules.data = data = Queue(1, depth=OUTSTANDING)
        m.submodules.answers = answers = Queue(1, depth=OUTSTANDING)
        owner, free, sent = Signal(), Signal(), Signal()
        m.d.comb += [
            free.eq(~port.awvalid & data.i.ready & answers.i.ready),
            self.system.awready.eq(free), self.channel.awready.eq(free & ~self.system.awvalid),
            sent.eq(port.awvalid & port.awready)]
        with m.If(sent):
            m.d.sync += port.awvalid.eq(0)
        for master, number in ((self.channel, 0), (self.system, 1)):
            with m.If(master.awvalid & master.awready):
                m.d.sync += [owner.eq(number), port.awvalid.eq(1)]
                m.d.sync += [getattr(port, name).eq(getattr(master, name))
                             for name in ("awid", "awaddr", "awlen", "awsize", "awburst")]
        for queue in (data, answers):
            m.d.comb += [queue.i.valid.eq(sent), queue.i.payload.eq(owner)]

        turn = data.o.payload
        for name in ("wdata", "wstrb", "wlast"):
            m.d.comb += getattr(port, name).eq(
                Mux(turn, getattr(self.system, name), getattr(self.channel, name)))
        m.d.comb += [
            port.wvalid.eq(data.o.valid & Mux(turn, self.system.wvalid, self.channel.wvalid)),
            self.channel.wready.eq(port.wready & data.o.valid & ~turn),
            self.system.wready.eq(port.wready & data.o.valid & turn),
            data.o.ready.eq(port.wvalid & port.wready & port.wlast)]

        turn = answers.o.payload
        for master, mine in ((self.channel, ~turn), (self.system, turn)):
            m.d.comb += [
                master.bvalid.eq(port.bvalid & answers.o.valid & mine),
                master.bid.eq(port.bid), master.bresp.eq(port.bresp)]
        m.d.comb += [
            port.bready.eq(answers.o.valid & Mux(turn, self.system.bready, self.channel.bready)),
            answers.o.ready.eq(port.bvalid & port.bready)]
        return m
