# SPDX-License-Identifier: Apache-2.0
"""A link's sender and receiver bring every beat once and in order, whatever is lost.

Frames of one beat, two of them kept at either end, numbers of three bits.  Any frame may be lost,
any acknowledgement may be late or lost, and the neighbour may ask for repetitions at any time.
Frames arrive in the cycle in which they leave.
"""

import pytest
from amaranth import Module, Signal
from amaranth.hdl import Assert
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from rtl_gen.link import layouts
from rtl_gen.link.receiver import Receiver
from rtl_gen.link.sender import Sender
from rtl_gen.spec.link import LEAST_BEAT
from tests.formal.order import Order
from tests.formal.prove import prove

pytestmark = pytest.mark.formal
DEPTH, NUMBER = 2, 3


class Window(wiring.Component):
    """Sender and receiver, and a way that loses frames."""

    def __init__(self):
        super().__init__({name: In(1) for name in (
            "give", "take", "choose", "move", "lose", "spoil", "note", "hear", "nak", "due")})

    def elaborate(self, platform):
        m = Module()
        sizes = {"beat_bytes": LEAST_BEAT, "depth": DEPTH, "frame_beats": 1, "number": NUMBER}
        m.submodules.sender = sender = Sender(**sizes, timeout=1)
        m.submodules.receiver = receiver = Receiver(**sizes)
        m.submodules.order = order = Order(most=2 * DEPTH + 1)
        moved, trailer = Signal(), Signal(layouts.TRAILER)
        m.d.comb += [
            sender.up.eq(1), sender.due.eq(self.due),
            sender.i.valid.eq(self.give), sender.i.p.data.eq(order.mark), sender.i.p.last.eq(1),
            order.choose.eq(self.choose), order.push.eq(sender.i.valid & sender.i.ready),
            receiver.o.ready.eq(self.take), order.pop.eq(receiver.o.valid & receiver.o.ready),
            order.shown.eq(receiver.o.valid), order.out.eq(receiver.o.p.data[0])]

        # A beat may vanish; a trailer that comes after that tells so.
        spoilt = Signal()
        m.d.comb += [
            sender.o.ready.eq(self.move), moved.eq(sender.o.valid & sender.o.ready),
            trailer.eq(sender.o.p.data[:layouts.TRAILER.size]),
            receiver.i.valid.eq(moved & ~self.lose), receiver.i.data.eq(sender.o.p.data),
            receiver.i.trailer.eq(sender.o.p.last),
            receiver.frame.bad.eq(self.spoil | spoilt), receiver.frame.good.eq(~receiver.frame.bad),
            receiver.frame.seq.eq(trailer.seq[:NUMBER]), receiver.frame.last.eq(trailer.last)]
        with m.If(moved):
            # Without the trailer between them two frames are one, and a bad one.
            m.d.sync += spoilt.eq((spoilt & ~receiver.i.valid) | self.lose
                                  | (spoilt & ~sender.o.p.last))

        # It is in order and intact: then there is room for it.
        payload = Signal()
        with m.If(receiver.i.valid):
            m.d.sync += payload.eq(~receiver.i.trailer)
            with m.If(receiver.i.trailer & payload & receiver.frame.good
                      & (receiver.frame.seq == receiver.expected)):
                m.d.comb += Assert(receiver.progress)

        # What the receiver says is noted now and then, and heard any time later.
        ack, limit = Signal(NUMBER), Signal(NUMBER)
        with m.If(self.note):
            m.d.sync += [ack.eq(receiver.expected), limit.eq(receiver.limit)]
        m.d.comb += [sender.heard.valid.eq(self.hear), sender.heard.ack.eq(ack),
                     sender.heard.limit.eq(limit), sender.heard.nak.eq(self.nak)]
        return m


def test_beats_arrive_once_and_in_order(build_root):
    prove(Window(), build_root / "formal" / "window")
