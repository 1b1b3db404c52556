# SPDX-License-Identifier: Apache-2.0
"""Control's part in a ring: sessions of the links, their failures, stops, what a record says."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..link.session import IDENTITY, stop_word
from ..spec import contract
from ..spec.config import CardConfig
from ..spec.link import Failure, State
from ..spec.registers import LINK, LINK_COUNTERS, RING, Error

#: The links' ends, in the order of the status record.
ENDS = ("previous", "next")
PREVIOUS, NEXT = range(2)


def port() -> wiring.Signature:
    """One ``link.Link`` but for its streams, seen from control."""
    return wiring.Signature({
        "start": Out(1), "me": Out(IDENTITY),
        "stop": Out(data.StructLayout({"valid": 1, "about": 32})),
        "state": In(2), "failure": In(3), "about": In(32), "idle": In(1),
        "counters": In(data.StructLayout(dict.fromkeys(LINK_COUNTERS, 32)))})


class Ring(wiring.Component):
    """Begins a session with every program, watches both links, and stops the ring after an error.

    Parameters
    ----------
    config : CardConfig
        Of a card in a ring.

    Members
    -------
    links : array of 2 :func:`port`
        To the previous and to the next card.
    clear : ``In(1)``
        Pulse: a command begins; its record has still to be read.
    begin : ``In(1)``, word : ``In(32)``
        Pulse: its program begins; the word ``ring`` of its record.
    running : ``In(1)``
        What happens belongs to the command.
    error : ``In(8)``
        The card's; NONE while it works.
    message : ``In({valid: 1, side: 1})``
        A message from that side had not the length that its RECEIVE says.
    failed : ``Out(1)``
        From the first failure of the session on.
    idle : ``Out(1)``
        Everything that the links took in has arrived.
    status : ``Out({...})``
        Words of the status record: as they are now, and from the command's end, or from its first
        failure on, as they were then.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        names = ("link", "link_about", *(f"{end}_{name}" for end in ENDS for name in LINK_COUNTERS))
        super().__init__({
            "links": Out(port()).array(2),
            "clear": In(1), "begin": In(1), "word": In(32), "running": In(1), "error": In(8),
            "message": In(data.StructLayout({"valid": 1, "side": 1})),
            "failed": Out(1), "idle": Out(1),
            "status": Out(data.StructLayout(dict.fromkeys(names, 32)))})

    def elaborate(self, platform):
        m = Module()
        cards, status = self.config.cards, self.status
        number = (cards - 1).bit_length()

        # Who we are stays while the next record is being read: the old session goes on till then.
        session, card = Signal(8), Signal(8)
        with m.If(self.begin):
            m.d.sync += [session.eq(self.word >> RING["session"]),
                         card.eq(self.word >> RING["card"])]
        m.d.comb += self.idle.eq(Cat(link.idle for link in self.links).all())
        stopped, about = Signal(), Signal(32)
        for side, link in enumerate(self.links):
            neighbour = (card + (1 if side == NEXT else cards - 1))[:number]
            values = {"session": session, "contract": contract.DIGEST,
                      "configuration": self.config.digest, "card": card, "cards": cards,
                      "neighbour": neighbour, "side": side}
            m.d.comb += [
                link.start.eq(self.begin), link.stop.valid.eq(stopped), link.stop.about.eq(about),
                *(link.me[name].eq(value) for name, value in values.items())]

        # From `begin` on, what a link said in the session before is over.
        ours = Signal()
        with m.If(self.begin):
            m.d.sync += ours.eq(1)
        with m.Elif(self.clear):
            m.d.sync += ours.eq(0)
        good, first, origin = Signal(), Signal(), Signal(32)
        m.d.comb += good.eq(ours & self.running & (self.error == Error.NONE) & ~self.failed)
        wrong = [self.message.valid & (self.message.side == side) for side in range(2)]
        failing = Signal(2)
        m.d.comb += [
            failing.eq(Cat((link.state == State.FAILED) | mine
                           for link, mine in zip(self.links, wrong, strict=True))),
            first.eq(~failing[PREVIOUS])]
        origins, fields = [], {"first": failing.any() & first}
        for side, (link, mine) in enumerate(zip(self.links, wrong, strict=True)):
            failure = Mux(link.state == State.FAILED, link.failure,
                          Mux(mine, Failure.MESSAGE, Failure.NONE))
            fields |= {f"{ENDS[side]}_state": Mux(mine, State.FAILED, link.state),
                       f"{ENDS[side]}_failure": failure}
            # A card that was told to stop passes on what it was told.
            origins.append(Mux(
                failure == Failure.STOPPED, link.about,
                stop_word(card=card, error=Error.LINK, failure=failure, side=Const(side, 1))))
        with m.If(good):
            m.d.sync += [status.link.eq(_word(fields)), self.failed.eq(failing.any()),
                         origin.eq(Mux(first, *reversed(origins)))]
        with m.If(self.clear):
            m.d.sync += [self.failed.eq(0), status.link.eq(0)]

        # Whatever the card's error is, both neighbours hear of it until the next session.
        own = stop_word(card=card, error=self.error, failure=Const(0, 3), side=Const(0, 1))
        with m.If(self.begin):
            m.d.sync += stopped.eq(0)
        with m.Elif(ours & (self.error != Error.NONE) & ~stopped):
            m.d.sync += [stopped.eq(1), about.eq(Mux(self.error == Error.LINK, origin, own))]
        m.d.comb += status.link_about.eq(Mux(ours & stopped, about, 0))

        for end, link in zip(ENDS, self.links, strict=True):
            for name in LINK_COUNTERS:
                count = status[f"{end}_{name}"]
                with m.If(self.clear):
                    m.d.sync += count.eq(0)
                with m.Elif(ours & self.running & (link.state != State.OFF)):
                    m.d.sync += count.eq(link.counters[name])
        return m


def _word(values):
    """32 bits with the fields of ``registers.LINK``."""
    word = Const(0, 0)
    for name, (bits, place) in LINK.items():
        word = Cat(word, Const(0, place - len(word)), (values[name] | Const(0, bits))[:bits])
    return Cat(word, Const(0, 32 - len(word)))
