# SPDX-License-Identifier: Apache-2.0
"""Messages between the scratchpad and the links: SEND and RECEIVE."""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import layouts
from ..spec import isa
from ..spec.config import CardConfig
from ..vector import scratchpad
from .layouts import beat

#: What goes along with every word of an instruction.
_TAG = data.StructLayout({"signal": isa.COUNTERS, "sides": 2})


def beats_per_word(config: CardConfig) -> int:
    """Beats of a scratchpad word; :class:`ValueError` if a word is less than one."""
    if config.word_bytes < config.beat_bytes:
        raise ValueError(
            f"of a card in a ring vector_lanes must be at least beat_bytes / 4 "
            f"({config.beat_bytes // 4}), not {config.vector_lanes}")
    return config.word_bytes // config.beat_bytes


class Walk(wiring.Component):
    """Scratchpad addresses of the words of one instruction after another.

    The first address of an instruction is there in the cycle in which the instruction is; it is
    taken with its first word.

    Members
    -------
    job : ``In(stream.Signature({first, words, columns, stride, tag}))``
    valid : ``Out(1)``
        There is an address.
    address, ends, tag : ``Out``
        Whether it is the instruction's last, and what goes along with the instruction.
    step : ``In(1)``
        It is taken.
    """

    def __init__(self):
        super().__init__({
            "job": In(stream.Signature(data.StructLayout({
                "first": 16, "words": 12, "columns": 3, "stride": 16, "tag": _TAG}))),
            "valid": Out(1), "address": Out(16), "ends": Out(1), "tag": Out(_TAG), "step": In(1)})

    def elaborate(self, platform):
        m = Module()
        # Of the instruction that has begun, else of the one that is offered.
        inside = Signal()
        kept = Signal(self.job.payload.shape(), reset_less=True)
        now = Signal.like(kept)
        at, left = Signal(16, reset_less=True), Signal(12, reset_less=True)
        words_left, token_ends, following = Signal(12), Signal(), Signal(16)
        m.d.comb += [
            now.eq(Mux(inside, kept, self.job.payload)),
            self.address.eq(Mux(inside, at, now.first)),
            words_left.eq(Mux(inside, left, now.words)),
            token_ends.eq(words_left == 1), self.ends.eq(token_ends & (now.columns == 1)),
            following.eq(now.first + now.stride), self.tag.eq(now.tag),
            self.valid.eq(inside | self.job.valid), self.job.ready.eq(self.step & ~inside)]
        with m.If(self.step):
            m.d.sync += [inside.eq(~self.ends), kept.eq(now), left.eq(words_left - 1),
                         at.eq(self.address + 1)]
            with m.If(token_ends):
                m.d.sync += [at.eq(following), kept.first.eq(following), left.eq(now.words),
                             kept.columns.eq(now.columns - 1)]
        return m


class Exchange(wiring.Component):
    """Executes SEND and RECEIVE, each in order, independent of the other.

    A SEND makes one message of the words of all its tokens, a word's low bytes first, and gives it
    to one neighbour or to both.  A RECEIVE takes one message and writes its words.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    send, receive : ``In(stream.Signature(layouts.JOB))``
    done : ``Out(ArrayLayout(layouts.DONE, 2))``
        Of SEND: the links have its last beat.  Of RECEIVE: its last word is written.
    read : :func:`scratchpad.read_port`
    write : ``Out(stream.Signature(scratchpad.write_layout(config)))``
    o, i : arrays of 2 streams of ``{data, last}``
        Messages to and from the previous and the next card.
    wrong : ``Out(1)``, side : ``Out(1)``
        A message of that side (1: next) had not the length that its RECEIVE says.  Nothing is
        received any more.
    waits : ``Out(1)``
        A RECEIVE is at work and its next beat has not come.
    moves : ``Out(1)``
        A beat is given or taken.
    """

    #: Cycles from a SEND offered to its first beat offered, if there is room.
    SEND_LATENCY = 1
    #: Cycles from the last beat given until SEND is done.
    SENT_LATENCY = 1
    #: Cycles from the last beat taken until RECEIVE is done, if the scratchpad takes its word.
    RECEIVE_LATENCY = 2

    def __init__(self, config: CardConfig):
        self.config, self.beats = config, beats_per_word(config)
        message = stream.Signature(beat(config.beat_bytes))
        super().__init__({
            "send": In(stream.Signature(layouts.JOB)), "receive": In(stream.Signature(layouts.JOB)),
            "done": Out(data.ArrayLayout(layouts.DONE, 2)),
            "read": Out(scratchpad.read_port(config)),
            "write": Out(stream.Signature(scratchpad.write_layout(config))),
            "o": Out(message).array(2), "i": In(message).array(2),
            "wrong": Out(1), "side": Out(1), "waits": Out(1), "moves": Out(1)})

    def elaborate(self, platform):
        m = Module()
        gives, takes = Signal(), Signal()
        self._send(m, gives)
        self._receive(m, takes)
        m.d.comb += self.moves.eq(gives | takes)
        return m

    def _part(self, m, name: str, moves):
        """Which beat of its word comes next, and whether that is the word's last."""
        if self.beats == 1:
            return Const(0, 1), Const(1, 1)
        part = Signal(range(self.beats), name=f"part_{name}")
        last = part == self.beats - 1
        with m.If(moves):
            m.d.sync += part.eq(Mux(last, 0, part + 1))
        return part, last

    def _walk(self, m, name: str, job, first: str, sides):
        """Addresses of the words of the instructions of ``job``."""
        m.submodules[name.lower()] = walk = Walk()
        view = layouts.view(name, job.p.word)
        m.d.comb += [
            walk.job.valid.eq(job.valid), job.ready.eq(walk.job.ready),
            walk.job.p.first.eq(view[first]), walk.job.p.tag.signal.eq(view.signal),
            walk.job.p.tag.sides.eq(sides(view)),
            *(walk.job.p[field].eq(view[field]) for field in ("words", "columns", "stride"))]
        return walk

    def _send(self, m, gives):
        walk = self._walk(m, "SEND", self.send, "src", lambda view: Cat(view.previous, view.next))

        # A word that was read stays until the next read.
        there, ends, tag = Signal(), Signal(), Signal(_TAG)
        given, ready = Signal(2), Signal(2)
        passes, word_passes = Signal(), Signal()
        part, last_part = self._part(m, "sent", passes)
        beats = self.read.data.as_value()
        size = 8 * self.config.beat_bytes
        m.d.comb += [
            ready.eq(Cat(port.ready for port in self.o) | given | ~tag.sides),
            passes.eq(there & ready.all()), word_passes.eq(passes & last_part),
            walk.step.eq(walk.valid & (~there | word_passes)),
            self.read.en.eq(walk.step), self.read.addr.eq(walk.address), gives.eq(passes)]
        for side, port in enumerate(self.o):
            m.d.comb += [
                port.valid.eq(there & tag.sides[side] & ~given[side]),
                port.p.data.eq(beats.word_select(part, size)), port.p.last.eq(ends & last_part)]
        with m.If(there):
            m.d.sync += given.eq(Mux(passes, 0, given | (ready & tag.sides)))
        with m.If(walk.step):
            m.d.sync += [there.eq(1), ends.eq(walk.ends), tag.eq(walk.tag)]
        with m.Elif(word_passes):
            m.d.sync += there.eq(0)
        m.d.sync += [self.done[0].valid.eq(word_passes & ends), self.done[0].signal.eq(tag.signal)]

    def _receive(self, m, takes):
        walk = self._walk(m, "RECEIVE", self.receive, "dst", lambda view: view.source)
        source = walk.tag.sides[0]
        offered = Signal()
        come = Signal(beat(self.config.beat_bytes))
        m.d.comb += [offered.eq(Array(port.valid for port in self.i)[source]),
                     come.eq(Mux(source, self.i[1].payload, self.i[0].payload))]

        # A word is gathered, then written; its first beats may come while it is written.
        word = Signal(scratchpad.write_layout(self.config), reset_less=True)
        there, ends = Signal(), Signal()
        signal = Signal(isa.COUNTERS, reset_less=True)
        free, length = Signal(), Signal()
        part, last_part = self._part(m, "received", takes)
        size = 8 * self.config.beat_bytes
        m.d.comb += [
            free.eq(~there | self.write.ready), self.write.valid.eq(there),
            self.write.payload.eq(word), self.waits.eq(walk.valid & ~offered & ~self.wrong),
            takes.eq(walk.valid & offered & free & ~self.wrong),
            length.eq(come.last == (walk.ends & last_part)),
            walk.step.eq(takes & length & last_part),
            *(port.ready.eq(takes & (source == side)) for side, port in enumerate(self.i))]
        with m.If(free):
            m.d.sync += there.eq(walk.step)
        with m.If(takes):
            m.d.sync += [
                word.data.as_value().word_select(part, size).eq(come.data),
                word.addr.eq(walk.address), ends.eq(walk.ends), signal.eq(walk.tag.signal)]
            with m.If(~length):
                m.d.sync += [self.wrong.eq(1), self.side.eq(source)]
        m.d.sync += [self.done[1].valid.eq(there & self.write.ready & ends),
                     self.done[1].signal.eq(signal)]
