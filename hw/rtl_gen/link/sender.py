# SPDX-License-Identifier: Apache-2.0
"""The sending half of a link: what was sent is kept until the neighbour has it."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram
from . import layouts


class Sender(wiring.Component):
    """Cuts messages into frames and sends them, again where the neighbour missed some (go-back-N).

    Beats lie in a ring of ``depth``, those sent and not acknowledged before those to be sent.  A
    frame ends with its message, or is ``frame_beats`` long; its bounds stay when it is repeated.

    Parameters
    ----------
    beat_bytes, depth, frame_beats : int
    timeout : int
        Cycles without an acknowledgement after which what is not acknowledged is sent again.
    number : int
        Bits of beat numbers.

    Members
    -------
    i : ``In(stream.Signature({data, last}))``
        Messages; ``last`` ends one.
    o : ``Out(stream.Signature({data, last}))``
        Frames; ``last`` marks the trailer, whose CRC is to come.
    up : ``In(1)``
        Payload may be sent.
    due : ``In(1)``
        A frame is to be sent now, even without payload.
    template : ``In(layouts.TRAILER)``
        Fields of trailers; with payload, ``seq`` and ``last`` are the sender's.
    sent : ``Out(1)``
        For a cycle: ``template`` was put into a trailer.
    heard : ``In({valid, ack, limit, nak})``
        For a cycle: what a good frame of the neighbour says.
    quiet : ``Out(1)``
        No frame is under way: with neither ``up`` nor ``due`` none will be.
    idle : ``Out(1)``
        All that was taken in has been acknowledged.
    again, late : ``Out(1)``
        For a cycle: frames are sent again, because the neighbour asked or because it was silent.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, *, beat_bytes: int, depth: int, frame_beats: int, timeout: int,
                 number: int = layouts.NUMBER):
        layouts.check(beat_bytes, depth, frame_beats)
        self.beat_bytes, self.depth, self.frame_beats = beat_bytes, depth, frame_beats
        self.timeout, self.number = timeout, number
        beat = layouts.beat(beat_bytes)
        super().__init__({
            "i": In(stream.Signature(beat)), "o": Out(stream.Signature(beat)),
            "up": In(1), "due": In(1), "template": In(layouts.TRAILER), "sent": Out(1),
            "heard": In(data.StructLayout(
                {"valid": 1, "ack": number, "limit": number, "nak": 1})),
            "quiet": Out(1), "idle": Out(1), "again": Out(1), "late": Out(1)})

    def elaborate(self, platform):
        m = Module()
        number, depth = self.number, self.depth

        # Numbers of beats: the first not acknowledged, the next to be sent, the one behind the last
        # whole frame, the next to come in.
        acked, next_, whole, tail = (
            Signal(number, name=name) for name in ("acked", "next", "whole", "tail"))
        limit = Signal(number)
        behind, ahead, held = Signal(), Signal(number), Signal(number)
        m.d.comb += [
            ahead.eq(next_ - acked), behind.eq(ahead[-1]), self.idle.eq(tail == acked),
            # A frame that is being sent stays, even if it was acknowledged meanwhile.
            held.eq(tail - Mux(behind, next_, acked))]

        # Messages come in and are cut.
        m.submodules.ram = ram = Ram(8 * self.beat_bytes, depth=depth)
        marks = data.StructLayout({"end": 1, "last": 1})
        m.submodules.marks = mark = memory.Memory(shape=marks, depth=depth, init=[])
        mark_write, mark_read = mark.write_port(), mark.read_port(domain="comb")
        length = Signal(range(self.frame_beats))
        take, ends = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(held < depth), take.eq(self.i.valid & self.i.ready),
            ends.eq(self.i.p.last | (length == self.frame_beats - 1)),
            ram.write_en.eq(take), ram.write_addr.eq(tail), ram.write_data.eq(self.i.p.data),
            mark_write.en.eq(take), mark_write.addr.eq(tail),
            mark_write.data.end.eq(ends), mark_write.data.last.eq(self.i.p.last)]
        with m.If(take):
            m.d.sync += [tail.eq(tail + 1), length.eq(Mux(ends, 0, length + 1))]
            with m.If(ends):
                m.d.sync += whole.eq(tail + 1)

        # What the neighbour says.  Its acknowledgements end at frames.
        news, answered = Signal(number), Signal()
        m.d.comb += [
            news.eq(self.heard.ack - acked),
            answered.eq(self.heard.valid & (news != 0) & (news <= (whole - acked)[:number]))]
        timer, repeat = Signal(range(self.timeout + 1)), Signal()
        m.d.comb += self.late.eq(timer == self.timeout)
        m.d.sync += timer.eq(Mux(answered | (acked == next_) | self.late, 0, timer + 1))
        with m.If(answered):
            m.d.sync += acked.eq(self.heard.ack)
        with m.If(self.heard.valid):
            m.d.sync += limit.eq(self.heard.limit)

        # Frames go out, a beat a cycle.  Only whole ones: one that waits for its end would hold up
        # acknowledgements, and the repetition that makes room for the end.  A beat that was fetched
        # waits in the memory's output.
        at, first = Signal(number), Signal(number)
        fetched, shown, trailer = Signal(), Signal(), Signal(layouts.TRAILER)
        free = Signal()
        message_ends = Signal()
        m.d.comb += [
            free.eq(~self.o.valid | self.o.ready), ram.read_addr.eq(at), mark_read.addr.eq(at),
            ram.read_en.eq(fetched),
            self.o.p.data.eq(Mux(shown, trailer, ram.read_data)), self.o.p.last.eq(shown)]
        with m.If(free):
            m.d.sync += self.o.valid.eq(fetched | self.sent)
            m.d.sync += shown.eq(self.sent)
        with m.If(fetched):
            m.d.sync += message_ends.eq(mark_read.data.last)
        within = Signal(number)
        m.d.comb += within.eq(limit - next_)
        with m.FSM():
            with m.State("BETWEEN"):
                m.d.comb += [at.eq(next_), self.quiet.eq(~self.o.valid)]
                with m.If(repeat | behind):
                    m.d.sync += [next_.eq(acked), repeat.eq(0)]
                with m.Elif(free & self.up & (next_ != whole) & (within >= self.frame_beats)):
                    m.d.comb += fetched.eq(1)
                    m.d.sync += first.eq(next_ + 1)
                    with m.If(mark_read.data.end):
                        m.next = "TRAILER"
                    with m.Else():
                        m.next = "PAYLOAD"
                with m.Elif(free & self.due):
                    m.d.comb += self.sent.eq(1)
                    m.d.sync += trailer.eq(self.template)
            with m.State("PAYLOAD"):
                # `first` counts on; the frame's own first beat is still `next`.
                m.d.comb += at.eq(first)
                with m.If(free):
                    m.d.comb += fetched.eq(1)
                    m.d.sync += first.eq(first + 1)
                    with m.If(mark_read.data.end):
                        m.next = "TRAILER"
            with m.State("TRAILER"):
                with m.If(free):
                    m.d.comb += self.sent.eq(1)
                    m.d.sync += [trailer.eq(self.template), trailer.seq.eq(next_),
                                 trailer.last.eq(message_ends), next_.eq(first)]
                    m.next = "BETWEEN"
        # A repetition begins between frames.
        wanted = Signal()
        m.d.comb += [wanted.eq((self.heard.valid & self.heard.nak) | self.late),
                     self.again.eq(wanted & (ahead != 0))]
        with m.If(wanted):
            m.d.sync += repeat.eq(1)
        return m
