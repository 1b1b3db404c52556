# SPDX-License-Identifier: Apache-2.0
"""A link's sender and receiver bring every beat once and in order, whatever is lost.

`Window`: both together, with frames of one beat, two of them kept at either end, numbers of three
bits.  Any frame may be lost, any acknowledgement may be late or lost, and the neighbour may ask for
repetitions at any time.  Frames arrive in the cycle in which they leave.

`Sent`, `Kept`: credits where frames have up to two beats, four are kept, numbers have four bits;
each end by itself.  A frame lies within the limit that was heard last before it began, which is one
that the receiver said before; a receiver's limit only grows, and is its buffer beyond what has left
it; so there is room for all of a frame that comes in order.  A sender that has credit goes on.

`Greeted`: a whole link, that does not talk to a stranger.
"""

import sys

import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from rtl_gen.link import Link, layouts
from rtl_gen.link.crc import Check
from rtl_gen.link.receiver import Receiver
from rtl_gen.link.sender import Sender
from rtl_gen.spec.link import LEAST_BEAT, Kind, State
from tests.formal.order import Order
from tests.formal.prove import prove

pytestmark = pytest.mark.formal
DEPTH, NUMBER = 2, 3
#: Where frames have several beats.
SIZES = {"beat_bytes": LEAST_BEAT, "depth": 4, "frame_beats": 2, "number": 4}


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


class Sent(wiring.Component):
    """A sender of frames of several beats, whatever it hears and whenever.

    Every frame with payload lies within the limit heard last before it began.  One is sent while
    some is not acknowledged and there is credit for it.
    """

    #: Cycles until a frame that may be sent begins: one that is under way, a repetition.
    PATIENCE = 8

    def __init__(self):
        super().__init__({name: In(1) for name in ("give", "last", "move", "hear", "nak", "due",
                                                   "up")}
                         | {name: In(SIZES["number"]) for name in ("ack", "limit")})

    def elaborate(self, platform):
        m = Module()
        number, most = SIZES["number"], SIZES["frame_beats"]
        m.submodules.sender = sender = Sender(**SIZES, timeout=1)
        trailer, moved = Signal(layouts.TRAILER), Signal()
        m.d.comb += [
            sender.up.eq(self.up), sender.due.eq(self.due), sender.i.valid.eq(self.give),
            sender.i.p.last.eq(self.last), sender.o.ready.eq(self.move),
            sender.heard.valid.eq(self.hear), sender.heard.ack.eq(self.ack),
            sender.heard.limit.eq(self.limit), sender.heard.nak.eq(self.nak),
            moved.eq(sender.o.valid & sender.o.ready),
            trailer.eq(sender.o.p.data[:layouts.TRAILER.size])]

        # A beat is shown from the cycle after the one in which it was fetched.
        limit, before, seen = Signal(number), Signal(number), Signal()
        begins, began, beats = Signal(), Signal(number), Signal(range(most + 2))
        m.d.sync += [before.eq(limit), seen.eq(sender.o.valid & ~sender.o.ready)]
        with m.If(self.hear):
            m.d.sync += limit.eq(self.limit)
        m.d.comb += begins.eq(sender.o.valid & ~sender.o.p.last & (beats == 0) & ~seen)
        with m.If(begins):
            m.d.sync += began.eq(before)
        with m.If(moved):
            m.d.sync += beats.eq(Mux(sender.o.p.last, 0, beats + 1))
        m.d.comb += Assert(beats <= most)
        with m.If(moved & sender.o.p.last & (beats != 0)):
            m.d.comb += Assert((began - trailer.seq)[:number] >= beats)

        # What was taken in, in whole frames, and acknowledged.
        tail, whole, acked, length = Signal(number), Signal(number), Signal(number), Signal(most)
        taken, news, stuck = Signal(), Signal(number), Signal(range(self.PATIENCE + 1))
        m.d.comb += [
            taken.eq(sender.i.valid & sender.i.ready), news.eq(self.ack - acked),
            Assert(sender.idle == (tail == acked)), Assert(stuck != self.PATIENCE)]
        with m.If(taken):
            ends = self.last | (length == most - 1)
            m.d.sync += [tail.eq(tail + 1), whole.eq(Mux(ends, tail + 1, whole)),
                         length.eq(Mux(ends, 0, length + 1))]
        with m.If(self.hear & (news <= (whole - acked)[:number])):
            m.d.sync += acked.eq(self.ack)
        credit = Signal(number)
        m.d.comb += credit.eq(limit - acked)
        with m.If(begins | self.hear | ~self.move | ~self.up | (whole == acked) | (credit < most)
                  | (credit > SIZES["depth"])):
            m.d.sync += stuck.eq(0)
        with m.Else():
            m.d.sync += stuck.eq(stuck + 1)
        return m


class Kept(wiring.Component):
    """A receiver of frames of several beats, of which those in order are within its limit."""

    def __init__(self):
        super().__init__({"valid": In(1), "trailer": In(1), "good": In(1), "take": In(1),
                          "seq": In(SIZES["number"])})

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = Receiver(**SIZES)
        number, beats = SIZES["number"], Signal(range(SIZES["frame_beats"] + 2))
        room = Signal(number)
        m.d.comb += [
            receiver.i.valid.eq(self.valid), receiver.i.trailer.eq(self.trailer),
            receiver.frame.good.eq(self.good), receiver.frame.bad.eq(~self.good),
            receiver.frame.seq.eq(self.seq), receiver.o.ready.eq(self.take),
            room.eq(receiver.limit - receiver.expected), Assert(room <= SIZES["depth"])]
        began = Signal(number)
        with m.If(self.valid & (beats == 0)):
            m.d.sync += began.eq(room)
        with m.If(self.valid):
            m.d.sync += beats.eq(Mux(self.trailer, 0, beats + (beats <= SIZES["frame_beats"])))
            with m.If(self.trailer & self.good & (beats != 0) & (self.seq == receiver.expected)):
                # See `Sent`.
                m.d.comb += [Assume(beats <= SIZES["frame_beats"]), Assume(beats <= began),
                             Assert(receiver.progress)]
            with m.Else():
                m.d.comb += Assert(~receiver.progress)
        # No credit is lost: the limit is the buffer beyond what has left it.
        left = Signal(number)
        m.d.sync += left.eq(left + (receiver.o.valid & self.take))
        m.d.comb += Assert(
            receiver.limit == (left + receiver.o.valid + SIZES["depth"])[:number])
        # All of a frame is taken in at once, and nothing else is.
        expected, taken = Signal(number), Signal(number)
        m.d.sync += [expected.eq(receiver.expected), taken.eq(Mux(receiver.progress, beats, 0))]
        m.d.comb += Assert(receiver.expected == (expected + taken)[:number])
        return m


class Verdict(Check):
    """In place of the CRC: the highest bit of a trailer says whether the frame is intact."""

    def elaborate(self, platform):
        m = Module()
        here = Signal(self.o.shape())
        m.d.sync += [
            here.valid.eq(self.i.valid), here.data.eq(self.i.data), here.trailer.eq(self.i.last),
            self.o.eq(here), self.good.eq(here.valid & here.trailer & here.data[-1])]
        return m


class Greeted(wiring.Component):
    """A link, any frames that come, and sessions that begin at any time.

    No payload goes out and no message comes out before the hello of a neighbour with the same
    digests, nor is there then anything left of the session before.  No payload goes out any more
    when the link has failed or the card has stopped.
    """

    #: Cycles in which all leaves that is under way: a frame's beats, in sender and seal.
    SOON = 4

    def __init__(self):
        self.dut = Link(beat_bytes=LEAST_BEAT, depth=2, frame_beats=1, timeout=1, keepalive=1,
                        silence=4)
        members = self.dut.signature.members
        super().__init__({name: In(members[name].shape) for name in ("start", "me", "stop")} | {
            "give": In(1), "take": In(1), "move": In(1),
            "rx": In(data.StructLayout({"valid": 1, "data": 8 * LEAST_BEAT, "last": 1}))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.d.comb += [
            dut.start.eq(self.start), dut.me.eq(self.me), dut.stop.eq(self.stop),
            dut.i.valid.eq(self.give), dut.i.p.last.eq(1), dut.o.ready.eq(self.take),
            dut.tx.ready.eq(self.move), dut.rx.valid.eq(self.rx.valid),
            dut.rx.p.data.eq(self.rx.data), dut.rx.p.last.eq(self.rx.last)]

        # Who a card is stays from the time on at which its session is asked for.
        off, began, before = Signal(), Signal(), Signal.like(self.me.as_value())
        m.d.sync += [before.eq(self.me), began.eq(self.start)]
        m.d.comb += [off.eq(dut.state == State.OFF),
                     Assume(self.start | began | (self.me.as_value() == before))]

        # What came two cycles ago, as the checker takes two.
        me, come, trailer = self.me, [self.rx], Signal(layouts.TRAILER)
        for k in range(Check.LATENCY):
            later = Signal.like(self.rx, name=f"come_{k}")
            m.d.sync += later.eq(come[-1])
            come.append(later)
        greeted, was_up, asked, started = Signal(), Signal(), Signal(), Signal()
        m.d.comb += trailer.eq(come[-1].data[:layouts.TRAILER.size])
        with m.If(off):
            m.d.sync += [greeted.eq(0), was_up.eq(0)]
        with m.Else():
            m.d.sync += was_up.eq(was_up | (dut.state == State.UP))
            with m.If(come[-1].valid & come[-1].last & come[-1].data[-1]
                      & (trailer.kind == Kind.HELLO) & (trailer.session == me.session)
                      & (Cat(trailer.seq, trailer.ack) == me.contract)
                      & (trailer.about == me.configuration)
                      & (trailer.limit == Cat(me.neighbour, me.cards))):
                m.d.sync += greeted.eq(1)
        m.d.sync += started.eq(started | self.start)
        # Until a session begins there may be something of the one before.
        m.d.comb += [
            asked.eq(off & started),
            Assert((dut.state != State.UP) | greeted),
            Assert(~(dut.tx.valid & ~dut.tx.p.last) | was_up | (dut.state == State.UP) | asked),
            Assert(~dut.o.valid | greeted | asked)]
        # What was under way when it ceased to be up has left soon.
        calm = Signal(range(self.SOON + 1))
        with m.If((dut.state == State.UP) & ~self.stop.valid):
            m.d.sync += calm.eq(0)
        with m.Elif(self.move & (calm != self.SOON)):
            m.d.sync += calm.eq(calm + 1)
        m.d.comb += Assert(~(dut.tx.valid & ~dut.tx.p.last) | (calm != self.SOON))
        return m


def test_beats_arrive_once_and_in_order(build_root):
    prove(Window(), build_root / "formal" / "window")


@pytest.mark.parametrize("end", [Sent, Kept])
def test_there_is_room_for_every_beat(build_root, end):
    prove(end(), build_root / "formal" / end.__name__.lower())


def test_nothing_is_said_to_a_stranger_nor_taken_from_one(build_root, monkeypatch):
    monkeypatch.setattr(sys.modules[Link.__module__], "Check", Verdict)
    prove(Greeted(), build_root / "formal" / "stranger")
