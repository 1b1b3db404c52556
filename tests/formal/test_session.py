# SPDX-License-Identifier: Apache-2.0
"""A session of a link: who may talk, that a failure lasts, that no session is taken for another.

One end against any frames in any cycle, of any session; and two ends that begin one session after
another, each when it likes.  Four cycles of silence in place of thousands.
"""

import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In

from rtl_gen.link import layouts
from rtl_gen.link.session import IDENTITY, Session
from rtl_gen.spec.link import Failure, Kind, State
from tests.formal.prove import prove

pytestmark = pytest.mark.formal
SILENCE = 4


def agrees(trailer, me):
    """Value: a hello says what it must."""
    return ((Cat(trailer.seq, trailer.ack) == me.contract) & (trailer.about == me.configuration)
            & (trailer.limit == Cat(me.neighbour, me.cards)))


class Greeted(wiring.Component):
    """A session beside what has been heard since it began.

    Parameters
    ----------
    promise : str
        Which of its promises is to be proved.
    """

    PROMISES = ("up", "mine", "failed", "silent")

    def __init__(self, promise: str):
        self.promise = promise
        self.dut = Session(keepalive=2, silence=SILENCE)
        members = self.dut.signature.members
        super().__init__({name: In(members[name].shape)
                          for name in ("start", "me", "stop", "frame", "sent")})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        me, frame, trailer = self.me, self.frame, self.frame.trailer
        m.d.comb += [getattr(dut, name).eq(getattr(self, name)) for name in self.signature.members]
        # But for the numbers of session and card, which count when it begins, who a card is stays
        # while a session lasts.
        fixed = Cat(me[name] for name in IDENTITY.members if name not in ("session", "card"))
        started, before, session = Signal(), Signal(len(fixed)), Signal(8)
        m.d.sync += [started.eq(self.start), before.eq(fixed),
                     session.eq(Mux(self.start, me.session, session))]
        m.d.comb += Assume(self.start | (before == fixed))

        open_, own, greets = Signal(), Signal(), Signal()
        m.d.comb += [
            open_.eq((dut.state == State.GREETING) | (dut.state == State.UP)),
            own.eq(frame.valid & (trailer.session == session)),
            greets.eq(own & (trailer.kind == Kind.HELLO) & agrees(trailer, me))]
        greeted, answered, silent = Signal(), Signal(), Signal(range(SILENCE + 1))
        hello_after = (frame.valid & (trailer.kind == Kind.HELLO)
                       & (trailer.session == (session + 1)[:8]))
        with m.If(self.start):
            m.d.sync += [greeted.eq(0), answered.eq(0)]
        with m.Else():
            m.d.sync += [
                greeted.eq(greeted | greets),
                answered.eq(answered | (greets & trailer.seen)
                            | (greeted & own & (trailer.kind == Kind.DATA)))]
        with m.If(self.start | (dut.state != State.UP) | own | hello_after):
            m.d.sync += silent.eq(0)
        with m.Elif(silent != SILENCE):
            m.d.sync += silent.eq(silent + 1)

        # What was so a cycle ago.
        state, failure = Signal(2), Signal(3)
        m.d.sync += [state.eq(dut.state), failure.eq(dut.failure)]
        if self.promise == "up":
            m.d.comb += Assert((dut.state != State.UP) | (greeted & answered))
        if self.promise == "mine":
            m.d.comb += Assert(dut.mine == (
                open_ & own & greeted & (trailer.kind == Kind.DATA)))
        if self.promise == "failed":
            with m.If((state == State.FAILED) & ~started):
                m.d.comb += [Assert(dut.state == State.FAILED), Assert(dut.failure == failure)]
            with m.If((state == State.OFF) & ~started):
                m.d.comb += Assert(dut.state == State.OFF)
        if self.promise == "silent":
            m.d.comb += Assert((silent != SILENCE) | (dut.state == State.FAILED))
            with m.If((dut.state == State.FAILED) & (state != State.FAILED)
                      & (dut.failure == Failure.SILENT)):
                m.d.comb += Assert(silent == SILENCE)
        return m


#: What is known of a frame besides what it says: in which session it was made, and as what.
MADE = data.StructLayout({"session": 2, "up": 1, "stops": 1, "trailer": layouts.TRAILER})


class Restarted(wiring.Component):
    """Two ends, their first sessions, and a way that holds two frames each way.

    A session is asked for some time before it begins: trailers are made meanwhile.  Frames may be
    lost, come any time later, and come again.

    Members
    -------
    contract : ``In(2)``
        The digests of both ends, a bit each.
    ask, start, sent, stop, put, move, come : ``In(2)``
        A bit for each end: a session is asked for, begins; a trailer is made; the card has stopped;
        the trailer is not lost, goes on, comes.
    """

    def __init__(self):
        super().__init__({name: In(2) for name in (
            "contract", "ask", "start", "sent", "stop", "put", "move", "come")})

    def elaborate(self, platform):
        m = Module()
        contract, begun = Signal(2), Signal()
        m.d.sync += [contract.eq(self.contract), begun.eq(1)]
        m.d.comb += Assume(~begun | (contract == self.contract))
        ends = [Session(keepalive=1, silence=2) for _ in range(2)]
        m.submodules += ends
        # The session of each end, counted from 1; the last one in which it was greeted.
        now, greeted = ([Signal(2, name=f"{name}_{k}") for k in range(2)]
                        for name in ("now", "greeted"))
        comes = [Signal(MADE, name=f"comes_{k}") for k in range(2)]
        for k, end in enumerate(ends):
            asked, far = Signal(name=f"asked_{k}"), Signal(MADE, name=f"far_{k}")
            other, start, sent = 1 - k, self.start[k], self.sent[k]
            m.d.comb += [
                end.start.eq(start), end.sent.eq(sent), end.stop.valid.eq(self.stop[k]),
                end.me.session.eq(now[k] + asked), end.me.contract.eq(self.contract[k]),
                end.me.card.eq(k), end.me.cards.eq(2), end.me.neighbour.eq(other),
                end.me.side.eq(other),
                Assume(~start | (asked & ~sent)), Assume(~self.ask[k] | (now[k] != 3)),
                Assume(~sent | (end.state != State.OFF))]
            m.d.sync += [asked.eq((asked | self.ask[k]) & ~start), now[k].eq(now[k] + start)]

            # To the other end.
            with m.If(sent & self.put[k]):
                m.d.sync += [
                    far.trailer.eq(end.template), far.session.eq(now[k]),
                    far.up.eq(end.state == State.UP),
                    far.stops.eq(self.stop[k] | (end.state == State.FAILED))]
            with m.If(self.move[k]):
                m.d.sync += comes[other].eq(far)

            here, trailer = comes[k], comes[k].trailer
            m.d.comb += [
                end.frame.valid.eq(self.come[k] & (here.session != 0)),
                end.frame.trailer.eq(trailer)]
            with m.If(end.frame.valid & (trailer.session == now[k]) & ~start
                      & ((end.state == State.GREETING) | (end.state == State.UP))
                      & (trailer.kind == Kind.HELLO) & agrees(trailer, end.me)):
                m.d.sync += greeted[k].eq(now[k])
            with m.If(end.state == State.UP):
                m.d.comb += [Assert(greeted[other] >= now[k]), Assert(greeted[k] == now[k]),
                             Assert(self.contract[0] == self.contract[1])]
            # Payload of this session, from one that is up in it.
            with m.If(end.mine):
                m.d.comb += [Assert(here.session == now[k]), Assert(here.up),
                             Assert(self.contract[0] == self.contract[1])]
            # Who is told to stop is told so by a neighbour that stopped in this session.
            told = Signal(name=f"told_{k}")
            m.d.sync += told.eq(end.frame.valid & (here.session == now[k]) & here.stops & ~start)
            failed = Signal(name=f"failed_{k}")
            m.d.sync += failed.eq((end.state == State.FAILED) & ~start)
            with m.If((end.state == State.FAILED) & ~failed & (end.failure == Failure.STOPPED)):
                m.d.comb += Assert(told)
            # The neighbour has begun the next session.
            with m.If(end.done):
                m.d.comb += Assert(now[other] > now[k])
        return m


@pytest.mark.parametrize("promise", Greeted.PROMISES)
def test_an_end_talks_to_whom_it_expects(build_root, promise):
    prove(Greeted(promise), build_root / "formal" / f"session_{promise}")


def test_no_session_is_taken_for_another(build_root):
    prove(Restarted(), build_root / "formal" / "restarted")
