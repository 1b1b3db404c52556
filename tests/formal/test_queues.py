# SPDX-License-Identifier: Apache-2.0
"""Queues keep the order, whatever their two sides do."""

import pytest
from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from rtl_gen.common import Queue, Skid
from tests.formal.order import Order
from tests.formal.prove import prove

pytestmark = pytest.mark.formal


class Watched(wiring.Component):
    """A component with streams ``i`` and ``o`` of one bit, any giver that obeys the rules, and any
    taker."""

    def __init__(self, dut, **order):
        self.dut, self.order = dut, order
        super().__init__({"give": In(1), "take": In(1), "choose": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.submodules.order = order = Order(**self.order)
        # What was offered stays until it is taken.
        waits, chosen, choose = Signal(), Signal(), Signal()
        m.d.comb += [
            choose.eq(Mux(waits, chosen, self.choose)), order.choose.eq(choose),
            dut.i.valid.eq(self.give | waits), dut.i.payload.eq(order.mark),
            dut.o.ready.eq(self.take), order.push.eq(dut.i.valid & dut.i.ready),
            order.pop.eq(dut.o.valid & dut.o.ready), order.shown.eq(dut.o.valid),
            order.out.eq(dut.o.payload)]
        m.d.sync += [waits.eq(dut.i.valid & ~dut.i.ready), chosen.eq(choose)]
        # So does what is offered to the taker.
        held, before = Signal(), Signal()
        m.d.sync += [held.eq(dut.o.valid & ~dut.o.ready), before.eq(dut.o.payload)]
        with m.If(held):
            m.d.comb += [Assert(dut.o.valid), Assert(dut.o.payload == before)]
        return m


@pytest.mark.parametrize(("name", "make", "order"), [
    ("skid", lambda: Skid(1), {"most": 1, "through": True}),
    ("queue", lambda: Queue(1, depth=4), {"most": 4}),
    ("queue_in_ram", lambda: Queue(1, depth=4, style="block"), {"most": 5})],
    ids=["skid", "queue", "queue_in_ram"])
def test_a_queue_keeps_the_order(build_root, name, make, order):
    prove(Watched(make(), **order), build_root / "formal" / name)


def test_a_queue_that_is_too_small_is_refuted(build_root):
    with pytest.raises(AssertionError, match="refuted in cycle"):
        prove(Watched(Queue(1, depth=5), most=4), build_root / "formal" / "too_small")
