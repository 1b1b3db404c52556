# SPDX-License-Identifier: Apache-2.0
"""Where each beat goes: constants, metadata, or through the decoder to the entries."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram
from ..spec.config import CardConfig
from ..spec.formats import PATTERNS, UNITS_PER_BEAT
from .decode import QUADS, Decoder
from .plan import Kind, segment

#: Beats of metadata of a supergroup, at most.
METADATA_BEATS = 8


class Splitter(wiring.Component):
    """Takes a beat a cycle, as long as there is room.

    Once a value beat has set out for the entries nothing stalls it, so it needs a reserved place
    there.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    i : ``In(stream.Signature(8 * beat_bytes))``
        Beats as they were read.
    segments : ``In(stream.Signature(segment()))``
        What they are.
    constants : ``Out(stream.Signature(8 * beat_bytes))``
    room : ``In(1)``, reserve : ``Out(1)``
        Whether there is a place for an entry, and that it is used.
    weights_en, weights : ``Out(1)``, ``Out(8 * beat_bytes)``
        Weights of an entry, zero in slots that do not serve it.
    index_en, index : ``Out(1)``, ``Out(4 * beat_bytes)``
        Its indices, ``Decoder.LATENCY`` cycles later.
    """

    #: Cycles from a value beat taken in until its indices.
    LATENCY = Decoder.LATENCY + 2

    def __init__(self, config: CardConfig):
        self.config = config
        beat = 8 * config.beat_bytes
        super().__init__({
            "i": In(stream.Signature(beat)), "segments": In(stream.Signature(segment())),
            "constants": Out(stream.Signature(beat)),
            "room": In(1), "reserve": Out(1),
            "weights_en": Out(1), "weights": Out(beat),
            "index_en": Out(1), "index": Out(beat // 2)})

    def elaborate(self, platform):
        m = Module()
        width = self.config.beat_bytes
        m.submodules.decoder = decoder = Decoder(self.config)

        # The beat at hand and the segment it belongs to.
        there, beat, gone = Signal(), Signal(8 * width, reset_less=True), Signal()
        m.d.comb += self.i.ready.eq(~there | gone)
        with m.If(self.i.ready):
            m.d.sync += [there.eq(self.i.valid), beat.eq(self.i.payload)]
        current, known = Signal(segment()), Signal()
        ends = Signal()
        m.d.comb += [ends.eq(gone & (current.beats == 1)), self.segments.ready.eq(~known | ends)]
        with m.If(gone):
            m.d.sync += current.beats.eq(current.beats - 1)
        with m.If(self.segments.ready):
            m.d.sync += [known.eq(self.segments.valid), current.eq(self.segments.payload)]

        turn, last_turn = Signal(2), Signal()
        at_hand = there & known
        is_value = at_hand & (current.kind == Kind.VALUES)
        is_metadata = at_hand & (current.kind == Kind.METADATA)
        m.d.comb += [
            self.constants.payload.eq(beat),
            self.constants.valid.eq(at_hand & (current.kind == Kind.CONSTANTS)),
            last_turn.eq(turn == current.entries), self.reserve.eq(is_value & self.room),
            gone.eq((self.constants.valid & self.constants.ready) | is_metadata
                    | (self.reserve & last_turn))]
        with m.If(self.reserve):
            m.d.sync += turn.eq(Mux(last_turn, 0, turn + 1))

        # Metadata: a memory for each quad of units, so that a value beat finds its own in two of
        # them, wherever they begin.
        unit = Signal(range(METADATA_BEATS * UNITS_PER_BEAT))
        row = Signal(range(METADATA_BEATS))
        with m.If(is_metadata):
            m.d.sync += row.eq(row + 1)
        with m.If(self.reserve & last_turn):
            m.d.sync += unit.eq(unit + current.units)
        with m.If(self.segments.ready):
            m.d.sync += [row.eq(0), unit.eq(0)]
        quad_bits = 2 * width
        first_row, first_quad = unit[4:], unit[2:4]
        for quad in range(QUADS):
            in_next = first_quad > quad if quad < QUADS - 1 else 0
            m.submodules[f"quad_{quad}"] = ram = Ram(quad_bits, depth=METADATA_BEATS)
            m.d.comb += [
                ram.write_en.eq(is_metadata), ram.write_addr.eq(row),
                ram.write_data.eq(beat.word_select(quad, quad_bits)),
                ram.read_en.eq(1), ram.read_addr.eq(first_row + in_next),
                decoder.quads[quad].eq(ram.read_data)]
        m.d.sync += [
            decoder.valid.eq(self.reserve), decoder.unit.eq(unit[:4]),
            decoder.pattern.eq(current.pattern)]
        m.d.comb += [self.index.eq(decoder.index), self.index_en.eq(decoder.done)]

        # Weights.  Slots serve the entries by their number modulo four.
        m.d.sync += self.weights_en.eq(self.reserve)
        alternate = current.pattern.matches(*(p.code for p in PATTERNS if p.name == "1:8"))
        for kept in range(4):
            serves = Signal(name=f"serves_{kept}")
            with m.Switch(current.entries):
                with m.Case(0):
                    m.d.comb += serves.eq(1)
                with m.Case(1):
                    m.d.comb += serves.eq(turn[0] == Mux(alternate, kept % 2, kept // 2))
                with m.Default():
                    m.d.comb += serves.eq(turn == kept)
            for slot in range(kept, width, 4):
                byte = slice(8 * slot, 8 * slot + 8)
                m.d.sync += self.weights[byte].eq(Mux(serves, beat[byte], 0))
        return m
