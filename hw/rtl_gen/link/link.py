# SPDX-License-Identifier: Apache-2.0
"""One end of a link to a neighbour of the ring."""

from amaranth import Module, Mux, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..spec.link import Failure, Kind, State
from . import layouts
from .crc import Check, Seal
from .receiver import Receiver
from .sender import Sender
from .session import IDENTITY, Session

#: What a link counts, since the session began.
COUNTERS = ("sent", "received", "bad", "repeats", "timeouts")


class Link(wiring.Component):
    """Carries messages to a neighbour and back, over a way that may lose and corrupt them.

    Frames with numbers and CRC-32; go-back-N; as much is under way as the other end has room for.

    Parameters
    ----------
    beat_bytes : int
        Bytes of a beat, of messages and on the link; a power of two from 16 up.
    depth : int
        Beats kept at either end: at least those of a round trip, for full speed.
    frame_beats : int
        Payload beats of the longest frame.
    timeout : int
        Cycles until a frame that nobody acknowledges is sent again; more than a round trip.
    keepalive : int
        Cycles between frames of a link that has nothing to say.
    silence : int
        Cycles without a good frame after which the link has failed.

    Members
    -------
    i, o : streams of ``{data, last}``
        Messages to and from the neighbour.
    tx, rx : streams of ``{data, last}``
        Frames.  ``rx.ready`` is always 1.
    start, me, stop : in
        As of :class:`Session`.  ``start`` also clears the counters and forgets all messages.
    state, failure, about : out
        As of :class:`Session`.
    idle : ``Out(1)``
        All messages that were taken in have arrived.
    counters : ``Out({...})``
        Frames sent, good ones received, bad ones, repetitions, those by timeout; 32 bits each.
    """

    #: Cycles from the first beat of a short message, besides two for each, to its trailer at `tx`.
    SEND_LATENCY = 2
    #: Cycles from a trailer at `rx` to the message's first beat at `o`.
    RECEIVE_LATENCY = 4

    i: stream.Interface
    o: stream.Interface
    tx: stream.Interface
    rx: stream.Interface

    def __init__(self, *, beat_bytes: int, depth: int = 512, frame_beats: int = 8,
                 timeout: int = 1024, keepalive: int = 256, silence: int = 4096):
        layouts.check(beat_bytes, depth, frame_beats)
        if timeout < 1:
            raise ValueError(f"timeout must be at least 1, not {timeout!r}")
        self.beat_bytes, self.depth, self.frame_beats = beat_bytes, depth, frame_beats
        self.timeout, self.keepalive, self.silence = timeout, keepalive, silence
        beat = layouts.beat(beat_bytes)
        super().__init__({
            "i": In(stream.Signature(beat)), "o": Out(stream.Signature(beat)),
            "tx": Out(stream.Signature(beat)),
            "rx": In(stream.Signature(beat, always_ready=True)),
            "start": In(1), "me": In(IDENTITY),
            "stop": In(data.StructLayout({"valid": 1, "about": 32})),
            "state": Out(2), "failure": Out(3), "about": Out(32), "idle": Out(1),
            "counters": Out(data.StructLayout(dict.fromkeys(COUNTERS, 32)))})

    def elaborate(self, platform):
        m = Module()
        # A session begins when the frame that is under way has left.
        asked, clear = Signal(), Signal()
        sizes = {"beat_bytes": self.beat_bytes, "depth": self.depth,
                 "frame_beats": self.frame_beats}
        sender = Sender(**sizes, timeout=self.timeout)
        receiver = Receiver(**sizes)
        m.submodules.sender = ResetInserter(clear)(sender)
        m.submodules.receiver = ResetInserter(clear)(receiver)
        m.submodules.session = session = Session(keepalive=self.keepalive, silence=self.silence)
        m.submodules.seal = seal = Seal(beat_bytes=self.beat_bytes)
        m.submodules.check = check = Check(beat_bytes=self.beat_bytes)
        m.d.comb += clear.eq(asked & sender.quiet)
        with m.If(self.start):
            m.d.sync += asked.eq(1)
        with m.Elif(clear):
            m.d.sync += asked.eq(0)

        # Messages wait for their session.
        open_ = Signal()
        m.d.comb += [
            open_.eq(~asked & ((session.state == State.GREETING) | (session.state == State.UP))),
            sender.i.payload.eq(self.i.payload), sender.i.valid.eq(self.i.valid & open_),
            self.i.ready.eq(sender.i.ready & open_)]
        connect(m, sender.o, seal.i)
        connect(m, seal.o, flipped(self.tx))
        connect(m, receiver.o, flipped(self.o))

        # What comes.
        m.d.comb += [
            check.i.valid.eq(self.rx.valid), check.i.data.eq(self.rx.p.data),
            check.i.last.eq(self.rx.p.last)]
        trailer, bad = Signal(layouts.TRAILER), Signal()
        m.d.comb += [
            bad.eq(check.o.valid & check.o.trailer & ~check.good),
            trailer.eq(check.o.data[:layouts.TRAILER.size]),
            session.frame.valid.eq(check.good), session.frame.trailer.eq(trailer),
            receiver.i.eq(check.o),
            receiver.frame.good.eq(session.mine), receiver.frame.bad.eq(bad),
            receiver.frame.seq.eq(trailer.seq),
            receiver.frame.last.eq(trailer.last),
            sender.heard.valid.eq(session.mine), sender.heard.ack.eq(trailer.ack),
            sender.heard.limit.eq(trailer.limit), sender.heard.nak.eq(trailer.nak)]

        # What is said besides payload: what has come, that something is missing, and what room
        # there is, when that has grown by a quarter.
        up = Signal()
        told_ack, told_limit = Signal(layouts.NUMBER), Signal(layouts.NUMBER)
        grown = Signal(layouts.NUMBER)
        nak, asking = Signal(), Signal(range(self.timeout + 1))
        m.d.comb += [
            up.eq((session.state == State.UP) & ~self.stop.valid),
            grown.eq(receiver.limit - told_limit),
            sender.up.eq(up & ~asked),
            sender.due.eq(~asked & (session.due | (up & (
                nak | (receiver.expected != told_ack) | (grown >= max(1, self.depth // 4)))))),
            session.sent.eq(sender.sent), sender.template.eq(session.template)]
        with m.If(session.template.kind == Kind.DATA):
            m.d.comb += [
                sender.template.ack.eq(receiver.expected),
                sender.template.limit.eq(receiver.limit), sender.template.nak.eq(nak)]
        with m.If(sender.sent & (session.template.kind == Kind.DATA)):
            m.d.sync += [told_ack.eq(receiver.expected), told_limit.eq(receiver.limit), nak.eq(0)]
        # Asked once, then again only when the repetition should have come.
        with m.If(receiver.progress):
            m.d.sync += asking.eq(0)
        with m.Elif(receiver.gap & up & (asking == 0)):
            m.d.sync += [nak.eq(1), asking.eq(self.timeout)]
        with m.Elif(asking != 0):
            m.d.sync += asking.eq(asking - 1)
        with m.If(clear):
            m.d.sync += [told_ack.eq(0), told_limit.eq(0), nak.eq(0), asking.eq(0)]

        m.d.comb += [
            session.start.eq(clear), session.me.eq(self.me), session.stop.eq(self.stop),
            self.state.eq(Mux(asked, State.OFF, session.state)),
            self.failure.eq(Mux(asked, Failure.NONE, session.failure)),
            self.about.eq(session.about),
            self.idle.eq(~asked & (sender.idle | session.done))]
        for name, event in (
                ("sent", self.tx.valid & self.tx.ready & self.tx.p.last),
                ("received", check.good), ("bad", bad),
                ("repeats", sender.again), ("timeouts", sender.late)):
            with m.If(clear):
                m.d.sync += self.counters[name].eq(0)
            with m.Elif(event):
                m.d.sync += self.counters[name].eq(self.counters[name] + 1)
        return m
