# SPDX-License-Identifier: Apache-2.0
"""Reads a command: its record, the program if it brings one, and the given tokens."""

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..spec import isa
from ..spec.config import CardConfig
from ..spec.registers import COMMAND, COMMAND_MAGIC, FLAG_LOAD, STATUS
from .operands import PUT
from .port import WORDS_BITS


class Command(wiring.Component):
    """Loads what a command record asks for.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    start : ``In(1)``
        Pulse: read the record at ``record``.
    record, base : ``In(64)``
        Byte addresses of the record and of channel 0.
    idle : ``Out(1)``
        A start would be heard.
    ready, refused : ``Out(1)``
        Pulse: all is loaded; the record makes no sense and nothing was changed.
    error : ``In(1)``
        Something could not be read: the program is not to be used again.
    read : ``Out(stream.Signature({address: 64, words: 20}))``, words : ``In(stream.Signature(32))``
        To ``SystemPort``.
    program, token, preset : ``Out``
        Writes to the memories and registers of ``Dispatch``.
    instructions : ``Out(17)``
        Length of the program loaded last.
    entry, status, results, result_beats, given, watchdog, ring : ``Out(32)``, stops
        From the record.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        write = lambda depth, shape: data.StructLayout({    # noqa: E731
            "en": 1, "addr": range(depth), "data": shape})
        super().__init__({
            "start": In(1), "record": In(64), "base": In(64), "idle": Out(1),
            "ready": Out(1), "refused": Out(1), "error": In(1),
            "read": Out(stream.Signature(data.StructLayout({"address": 64, "words": WORDS_BITS}))),
            "words": In(stream.Signature(32)),
            "program": Out(write(config.program_words, isa.WORD_BITS)),
            "token": Out(write(config.context, 32)), "preset": Out(PUT),
            "instructions": Out(17),
            **{name: Out(32) for name in (
                "entry", "status", "results", "result_beats", "given", "watchdog", "ring")},
            "stops": Out(data.ArrayLayout(unsigned(32), 4))})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        beat = config.beat_bytes.bit_length() - 1
        word, taken = self.words.payload, Signal()
        index = Signal(WORDS_BITS)
        m.d.comb += [taken.eq(self.words.valid & self.words.ready), self.words.ready.eq(1)]

        load, program, tokens = Signal(), Signal(32), Signal(32)
        asked, given = Signal(32), Signal(32)
        sane = Signal()

        def fits(first, length, words):
            """Whether so many pieces of so many 32-bit words lie in the channel."""
            per_beat = config.beat_bytes // 4
            beats = (length * words + per_beat - 1) >> per_beat.bit_length() - 1
            return first + beats <= config.channel_beats

        def ask(address, words):
            m.d.comb += [self.read.valid.eq(1), self.read.p.address.eq(address),
                         self.read.p.words.eq(words)]

        parts = [Signal(32, name=f"part_{k}", reset_less=True) for k in range(7)]
        m.d.comb += [
            self.preset.addr.eq(index), self.preset.data.eq(word),
            self.token.addr.eq(index), self.token.data.eq(word),
            self.program.addr.eq(index >> 3), self.program.data.eq(Cat(*parts, word))]
        with m.If(taken):
            m.d.sync += index.eq(index + 1)
            for k, part in enumerate(parts):
                with m.If(index[:3] == k):
                    m.d.sync += part.eq(word)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.idle.eq(1)
                with m.If(self.start):
                    m.d.sync += [index.eq(0), sane.eq(1)]
                    m.next = "ASK RECORD"
                    with m.If(self.record[:beat].any()):
                        m.d.sync += sane.eq(0)
                        m.next = "REFUSE"
            with m.State("ASK RECORD"):
                ask(self.record, len(COMMAND))
                with m.If(self.read.ready):
                    m.next = "RECORD"
            with m.State("RECORD"):
                kept = {"program": program, "entry": self.entry, "status": self.status,
                        "results": self.results, "result_beats": self.result_beats,
                        "tokens": tokens, "instructions": asked, "given": given,
                        "watchdog": self.watchdog}
                kept |= {f"stop{k}": self.stops[k] for k in range(4)}
                with m.If(taken):
                    with m.Switch(index):
                        for name, register in kept.items():
                            with m.Case(COMMAND.index(name)):
                                m.d.sync += register.eq(word)
                        with m.Case(COMMAND.index("flags")):
                            m.d.sync += [load.eq(word[0]), sane.eq(sane & (word <= FLAG_LOAD))]
                        with m.Case(COMMAND.index("magic")):
                            m.d.sync += sane.eq(word == COMMAND_MAGIC)
                        # Everything that is checked lies before.
                        with m.Case(COMMAND.index("ring")):
                            if config.cards > 1:
                                m.d.sync += self.ring.eq(word)
                            m.d.sync += sane.eq(
                                sane & fits(self.status, 1, len(STATUS))
                                & (given <= config.context)
                                & fits(tokens, given[:config.context.bit_length()], 1)
                                & (~load | ((asked >= 1) & (asked <= config.program_words)
                                            & fits(program, asked[:17], 8))))
                    registers = COMMAND.index("r0")
                    m.d.comb += [
                        self.preset.addr.eq(index - registers),
                        self.preset.en.eq(sane & (index > registers))]
                    with m.If(index == len(COMMAND) - 1):
                        m.d.sync += index.eq(0)
                        m.next = "REFUSE"
                        with m.If(sane):
                            m.next = "ASK TOKENS"
                            with m.If(load):
                                m.next = "ASK PROGRAM"
            with m.State("ASK PROGRAM"):
                ask(self.base + (program << beat), asked << 3)
                m.d.sync += self.instructions.eq(0)
                with m.If(self.read.ready):
                    m.next = "PROGRAM"
            with m.State("PROGRAM"):
                m.d.comb += self.program.en.eq(taken & (index[:3] == 7))
                with m.If(self.program.en & (index >> 3 == asked - 1)):
                    m.d.sync += [index.eq(0), self.instructions.eq(asked)]
                    m.next = "ASK TOKENS"
            with m.State("ASK TOKENS"):
                m.d.sync += self.given.eq(given)
                with m.If(given == 0):
                    m.next = "READY"
                with m.Else():
                    ask(self.base + (tokens << beat), given)
                    with m.If(self.read.ready):
                        m.next = "TOKENS"
            with m.State("TOKENS"):
                m.d.comb += self.token.en.eq(taken)
                with m.If(taken & (index == given - 1)):
                    m.next = "READY"
            with m.State("READY"):
                with m.If(self.error & load):
                    m.d.sync += self.instructions.eq(0)
                m.d.comb += self.ready.eq(1)
                m.next = "IDLE"
            with m.State("REFUSE"):
                m.d.comb += self.refused.eq(1)
                m.next = "IDLE"
        return m
