# SPDX-License-Identifier: Apache-2.0
"""Messages between the scratchpad and one link."""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import layouts
from ..spec import isa
from ..spec.config import CardConfig
from ..vector import scratchpad
from .layouts import beat


def beats_per_word(config: CardConfig) -> int:
    """Beats of a scratchpad word, at least one."""
    return config.word_bytes // config.beat_bytes


class Walk(wiring.Component):
    """Scratchpad addresses of the words of one instruction after another.

    The first address of an instruction is there in the cycle in which the instruction is; it is
    taken with its first word.

    Members
    -------
    job : ``In(stream.Signature({first, words, columns, stride, signal}))``
    valid : ``Out(1)``
        There is an address.
    address, ends, signal : ``Out``
        Whether it is the instruction's last, and what the instruction signals.
    step : ``In(1)``
        It is taken.
    """

    def __init__(self):
        super().__init__({
            "job": In(stream.Signature(data.StructLayout({
                "first": 16, "words": 12, "columns": 3, "stride": 16, "signal": isa.COUNTERS}))),
            "valid": Out(1), "address": Out(16), "ends": Out(1), "signal": Out(isa.COUNTERS),
            "step": In(1)})

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
            following.eq(now.first + now.stride), self.signal.eq(now.signal),
            self.valid.eq(inside | self.job.valid), self.job.ready.eq(self.step & ~inside)]
        with m.If(self.step):
            m.d.sync += [inside.eq(~self.ends), kept.eq(now), left.eq(words_left - 1),
                         at.eq(self.address + 1)]
            with m.If(token_ends):
                m.d.sync += [at.eq(following), kept.first.eq(following), left.eq(now.words),
                             kept.columns.eq(now.columns - 1)]
        return m


class Side(wiring.Component):
    """Executes the SENDs to one neighbour and the RECEIVEs from it, each in order.

    Words to send are read ahead, one besides the one that is given: so a beat moves in every cycle
    although the read port is shared, and whether a word is read does not depend on the link.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    send, receive : ``In(stream.Signature(layouts.JOB))``
    done : ``Out(ArrayLayout(layouts.DONE, 2))``
        Of SEND, of RECEIVE.
    asks : ``Out(1)``, address : ``Out(16)``, granted : ``In(1)``, word : ``In``
        A word is to be read; when it is ``granted`` the word comes in the next cycle.
    write : ``Out(stream.Signature(scratchpad.write_layout(config)))``
    o, i : streams of ``{data, last}``
        Messages to and from the neighbour.
    wrong : ``Out(1)``
        A message had not the length that its RECEIVE says.  Nothing is received any more.
    stop : ``In(1)``
        Receive nothing any more.
    waits : ``Out(1)``
        A RECEIVE is at work and its next beat has not come.
    moves : ``Out(1)``
        A beat is given or taken.
    """

    leaf_name = "exchange_side"

    def __init__(self, config: CardConfig):
        self.config, self.beats = config, beats_per_word(config)
        message = stream.Signature(beat(config.beat_bytes))
        super().__init__({
            "send": In(stream.Signature(layouts.JOB)), "receive": In(stream.Signature(layouts.JOB)),
            "done": Out(data.ArrayLayout(layouts.DONE, 2)),
            "asks": Out(1), "address": Out(16), "granted": In(1),
            "word": In(8 * config.word_bytes),
            "write": Out(stream.Signature(scratchpad.write_layout(config))),
            "o": Out(message), "i": In(message),
            "wrong": Out(1), "stop": In(1), "waits": Out(1), "moves": Out(1)})

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

    def _walk(self, m, name: str, job, first: str):
        """Addresses of the words of the instructions of ``job``; both sides' have one format."""
        m.submodules[f"walk_{first}"] = walk = Walk()
        view = layouts.view(name, job.p.word)
        m.d.comb += [
            walk.job.valid.eq(job.valid), job.ready.eq(walk.job.ready),
            walk.job.p.first.eq(view[first]),
            *(walk.job.p[field].eq(view[field])
              for field in ("words", "columns", "stride", "signal"))]
        return walk

    def _send(self, m, gives):
        walk = self._walk(m, isa.SENDS[0], self.send, "src")

        # Two places for words, filled and given in turn; a word may be given in the cycle in which
        # it comes.
        words = Array(Signal(8 * self.config.word_bytes, name=f"word_{k}", reset_less=True)
                      for k in range(2))
        ends, signals = Array((Signal(name="ends_0"), Signal(name="ends_1"))), Array(
            Signal(isa.COUNTERS, name=f"signal_{k}", reset_less=True) for k in range(2))
        into, out, count = Signal(), Signal(), Signal(2)
        comes, place = Signal(), Signal()
        now, word_passes = Signal(8 * self.config.word_bytes), Signal()
        part, last_part = self._part(m, "sent", gives)
        m.d.comb += [
            self.asks.eq(walk.valid & (count != 2)), self.address.eq(walk.address),
            walk.step.eq(self.granted),
            now.eq(Mux(comes & (place == out), self.word, words[out])),
            self.o.valid.eq(count != 0),
            self.o.p.data.eq(now.word_select(part, 8 * self.config.beat_bytes)),
            self.o.p.last.eq(ends[out] & last_part),
            gives.eq(self.o.valid & self.o.ready), word_passes.eq(gives & last_part)]
        m.d.sync += [
            comes.eq(self.granted), place.eq(into), into.eq(into ^ self.granted),
            out.eq(out ^ word_passes), count.eq(count + self.granted - word_passes),
            self.done[0].valid.eq(word_passes & ends[out]), self.done[0].signal.eq(signals[out])]
        with m.If(comes):
            m.d.sync += words[place].eq(self.word)
        with m.If(self.granted):
            m.d.sync += [ends[into].eq(walk.ends), signals[into].eq(walk.signal)]

    def _receive(self, m, takes):
        walk = self._walk(m, isa.RECEIVES[0], self.receive, "dst")

        # A word is gathered, then written: all but its last beat come while the one before waits.
        size = 8 * self.config.beat_bytes
        before = []     # Verilog has no signals without bits
        word = Signal(scratchpad.write_layout(self.config), reset_less=True)
        there, ends = Signal(), Signal()
        signal = Signal(isa.COUNTERS, reset_less=True)
        free, length, wants = Signal(), Signal(), Signal()
        part, last_part = self._part(m, "received", takes)
        m.d.comb += [
            wants.eq(walk.valid & ~self.wrong & ~self.stop),
            free.eq(~there | self.write.ready), self.write.valid.eq(there),
            self.write.payload.eq(word), self.waits.eq(wants & ~self.i.valid),
            self.i.ready.eq(wants & (free | ~last_part)), takes.eq(self.i.valid & self.i.ready),
            length.eq(self.i.p.last == (walk.ends & last_part)),
            walk.step.eq(takes & length & last_part)]
        with m.If(free):
            m.d.sync += there.eq(walk.step)
        if self.beats > 1:
            before = [gathered := Signal(size * (self.beats - 1), reset_less=True)]
            with m.If(takes & ~last_part):
                m.d.sync += gathered.word_select(part, size).eq(self.i.p.data)
        with m.If(takes & last_part):
            m.d.sync += [word.data.as_value().eq(Cat(*before, self.i.p.data)),
                         word.addr.eq(walk.address), ends.eq(walk.ends), signal.eq(walk.signal)]
        with m.If(takes & ~length):
            m.d.sync += self.wrong.eq(1)
        m.d.sync += [self.done[1].valid.eq(there & self.write.ready & ends),
                     self.done[1].signal.eq(signal)]
