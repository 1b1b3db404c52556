# SPDX-License-Identifier: Apache-2.0
"""The life of a link: who is there, whether it may talk, and when it has gone silent."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..spec.link import TRAILER, Failure, Kind, State
from ..spec.registers import STOP, Error
from . import layouts

#: Who a card is and whom it expects, and whether that is the next card (``side`` 1) or not.
IDENTITY = data.StructLayout({
    "session": 8, "contract": 32, "configuration": 32, "card": 8, "cards": 8, "neighbour": 8,
    "side": 1})


def stop_word(*, card, error, failure, side) -> Value:
    """32 bits with the fields of ``registers.STOP``."""
    values = {"card": card, "error": error, "failure": failure, "side": side}
    word = Const(0, 0)
    for name, (bits, place) in STOP.items():
        word = Cat(word, Const(0, place - len(word)),
                   (Value.cast(values[name]) | Const(0, bits))[:bits])
    return Cat(word, Const(0, 32 - len(word)))


class Session(wiring.Component):
    """Greets the neighbour, compares digests, and watches over the link.

    Each end says hello until it has heard the other's hello and knows that its own was heard.
    Frames of another session count as silence, but for one: the hello of the next session says
    that the neighbour has all that it wanted of this one.

    Parameters
    ----------
    keepalive : int
        Cycles between frames where there is nothing to say.
    silence : int
        Cycles without a good frame after which the link has failed.

    Members
    -------
    start : ``In(1)``
        For a cycle: a session begins, with what ``me`` holds from then on.
    me : ``In(IDENTITY)``
        Its ``session`` and ``card`` count from ``start`` on: before it, the trailer of a frame that
        is under way is still of the session before.
    stop : ``In({valid, about})``
        This card has stopped: tell the neighbour.
    frame : ``In({valid, trailer})``
        For a cycle: a frame came intact.
    mine : ``Out(1)``
        The frame is of this session, and its payload counts.
    sent : ``In(1)``
        For a cycle: a trailer was made of ``template``.
    template : ``Out(layouts.TRAILER)``
        Of HELLO and STOP all fields, of DATA those that are known here.
    due : ``Out(1)``
        A frame is to be sent even if there is nothing to say.
    state : ``Out(State)``
    failure : ``Out(Failure)``
    about : ``Out(32)``
        Of ``STOPPED``: what the card that stopped says.
    done : ``Out(1)``
        The neighbour is in the next session: it has all it wanted.
    """

    def __init__(self, *, keepalive: int, silence: int):
        if silence < 2:
            raise ValueError(f"silence must be at least 2, not {silence!r}")
        if not 1 <= keepalive < silence:
            raise ValueError(f"keepalive must be at least 1 and below silence ({silence!r}), "
                             f"not {keepalive!r}")
        self.keepalive, self.silence = keepalive, silence
        super().__init__({
            "start": In(1), "me": In(IDENTITY),
            "stop": In(data.StructLayout({"valid": 1, "about": 32})),
            "frame": In(data.StructLayout({"valid": 1, "trailer": layouts.TRAILER})),
            "mine": Out(1), "sent": In(1), "template": Out(layouts.TRAILER), "due": Out(1),
            "state": Out(2), "failure": Out(3), "about": Out(32), "done": Out(1)})

    def elaborate(self, platform):
        m = Module()
        trailer, me = self.frame.trailer, Signal(IDENTITY)
        session, card = Signal(8), Signal(8)
        with m.If(self.start):
            m.d.sync += [session.eq(self.me.session), card.eq(self.me.card)]
        m.d.comb += [me.eq(self.me), me.session.eq(session), me.card.eq(card)]
        heard, seen = Signal(), Signal()
        up = self.state == State.UP
        same = Signal()
        m.d.comb += [
            same.eq(self.frame.valid & (trailer.session == me.session)
                    & (self.state != State.OFF) & (self.state != State.FAILED)),
            self.mine.eq(same & (up | heard) & (trailer.kind == Kind.DATA))]

        # What a hello must say.
        wrong = Signal(3)
        ring = Cat(me.neighbour, me.cards)
        with m.If(Cat(trailer.seq, trailer.ack) != me.contract):
            m.d.comb += wrong.eq(Failure.CONTRACT)
        with m.Elif(trailer.about != me.configuration):
            m.d.comb += wrong.eq(Failure.CONFIGURATION)
        with m.Elif(trailer.limit != ring):
            m.d.comb += wrong.eq(Failure.NEIGHBOUR)

        with m.If(same):
            with m.Switch(trailer.kind):
                with m.Case(Kind.HELLO):
                    with m.If(wrong != Failure.NONE):
                        m.d.sync += [self.state.eq(State.FAILED), self.failure.eq(wrong)]
                    with m.Else():
                        m.d.sync += [heard.eq(1), seen.eq(seen | trailer.seen)]
                with m.Case(Kind.DATA):
                    # Only who has seen our hello sends payload.
                    m.d.sync += seen.eq(seen | heard)
                with m.Case(Kind.STOP):
                    m.d.sync += [self.state.eq(State.FAILED), self.failure.eq(Failure.STOPPED),
                                 self.about.eq(trailer.about)]
        with m.If((self.state == State.GREETING) & heard & seen):
            m.d.sync += self.state.eq(State.UP)
        after = Signal()
        m.d.comb += after.eq(self.frame.valid & up & (trailer.kind == Kind.HELLO)
                             & (trailer.session == (me.session + 1)[:8]))
        with m.If(after):
            m.d.sync += self.done.eq(1)

        quiet = Signal(range(self.silence + 1))
        with m.If(same | after | ~up):
            m.d.sync += quiet.eq(0)
        with m.Else():
            m.d.sync += quiet.eq(quiet + 1)
            with m.If(quiet == self.silence - 1):
                m.d.sync += [self.state.eq(State.FAILED), self.failure.eq(Failure.SILENT)]

        # What is said.  News are said at once: a new state, and that a hello was heard.
        stopped = Signal()
        said = Signal(4)
        news = Cat(self.state, heard, self.stop.valid)
        wait = Signal(range(self.keepalive + 1))
        m.d.comb += [
            stopped.eq(self.stop.valid | (self.state == State.FAILED)),
            self.due.eq((self.state != State.OFF) & ((wait == 0) | (said != news)))]
        with m.If(self.sent):
            m.d.sync += [wait.eq(self.keepalive), said.eq(news)]
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        hello = ~stopped & ~up
        failed = stop_word(
            card=me.card, error=Error.LINK, failure=self.failure, side=me.side)
        said_of = {
            "kind": Mux(stopped, Kind.STOP, Mux(up, Kind.DATA, Kind.HELLO)), "seen": heard,
            "session": me.session, "seq": Mux(hello, me.contract[:16], 0),
            "ack": Mux(hello, me.contract[16:], 0),
            "limit": Mux(hello, Cat(me.card, me.cards), 0),
            "about": Mux(hello, me.configuration, Mux(
                self.stop.valid, self.stop.about, Mux(stopped, failed, 0)))}
        # As a whole: Verilog has no bits that nobody drives.
        m.d.comb += self.template.eq(Cat(
            (Value.cast(said_of.get(name, 0)) | Const(0, bits))[:bits] for name, bits in TRAILER))

        with m.If(self.start):
            m.d.sync += [
                self.state.eq(State.GREETING), self.failure.eq(Failure.NONE), self.about.eq(0),
                self.done.eq(0), heard.eq(0), seen.eq(0), quiet.eq(0), wait.eq(0), said.eq(0)]
        return m
