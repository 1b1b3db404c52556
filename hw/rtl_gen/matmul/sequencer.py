# SPDX-License-Identifier: Apache-2.0
"""Takes MATMULs apart into steps: what the engine does in one cycle."""

from amaranth import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import layouts
from ..spec import isa
from ..spec.config import CardConfig
from ..spec.formats import PATTERNS
from .bank import Base
from .fresh import BEAT_BITS, DELTA_BITS, TURN_BITS


def step(config: CardConfig) -> data.StructLayout:
    """One cycle of the engine: one entry of each channel, or two."""
    return data.StructLayout({
        "block": data.ArrayLayout(16, 2),       # first block of each half's entry
        "ratio": 2,                             # logarithm
        "exponent": signed(8),                  # base
        "high": 2,                              # of each half: high digits of wide weights
        "pair": 1, "two_beat": 1, "digits": 1,
        "base": Base, "keep": 1, "out": 1, "row": range(config.acc_rows),
        "columns": 3,
        "last_row": 1, "last_step": 1,          # of the instruction
        "done": 1,                              # the engine reports this instruction
        "signal": isa.COUNTERS,
        "upper": 2, "stay": 1,                  # see Lane; the entries are needed once more
        "merge": 2, "delta": signed(DELTA_BITS), "head": 6, "buffer": 2,
        "turn": TURN_BITS,                      # of the lanes of K, in T lanes
        "beat": BEAT_BITS, "head_row": range(config.head_words),
        "address": 32})                         # of the (first) entry


def _by_pattern(m: Module, code, name: str, table: list[int]) -> Signal:
    """A small table of pattern codes."""
    value = Signal(range(max(table) + 1), name=name)
    with m.Switch(code):
        for pattern, entry in zip(PATTERNS, table, strict=True):
            with m.Case(pattern.code):
                m.d.comb += value.eq(entry)
    return value


class Sequencer(wiring.Component):
    """The steps of one instruction after another, without a gap.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    job : ``In(stream(layouts.JOB))``
        MATMULs; one is taken while the one before it runs.
    epilogue_job : ``Out(stream(layouts.JOB))``
        The instructions with ``last``, before their steps.
    step : ``Out(stream(step(config)))``
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "job": In(stream.Signature(layouts.JOB)),
            "epilogue_job": Out(stream.Signature(layouts.JOB)),
            "step": Out(stream.Signature(step(config)))})

    def elaborate(self, platform):
        m = Module()
        config = self.config

        # The next instruction waits here, and goes to the epilogue from here.
        held, waiting, told = Signal(layouts.JOB, reset_less=True), Signal(), Signal()
        word = layouts.view("MATMUL", held.word)
        load = Signal()
        m.d.comb += [
            self.job.ready.eq(~waiting | load),
            self.epilogue_job.payload.eq(held),
            self.epilogue_job.valid.eq(waiting & word.last & ~told)]
        with m.If(self.epilogue_job.valid & self.epilogue_job.ready):
            m.d.sync += told.eq(1)
        with m.If(load):
            m.d.sync += [waiting.eq(0), told.eq(0)]
        with m.If(self.job.valid & self.job.ready):
            m.d.sync += [waiting.eq(1), held.eq(self.job.payload)]

        # The instruction that runs, and where it is.
        running = Signal()
        now = Signal(layouts.fields("MATMUL"), reset_less=True)
        ratio = Signal(2, reset_less=True)
        rows, entries = Signal(12, reset_less=True), Signal(unsigned(12), reset_less=True)
        row, rows_left = Signal(12, reset_less=True), Signal(12, reset_less=True)
        entry, left = Signal(12, reset_less=True), Signal(12, reset_less=True)
        first_entry, low = Signal(reset_less=True), Signal(reset_less=True)
        # Each entry twice; for the second time.
        halved, again, stay = Signal(reset_less=True), Signal(reset_less=True), Signal()
        m.d.comb += stay.eq(halved & ~again)
        block, address = Signal(16, reset_less=True), Signal(32, reset_less=True)
        position, delta = Signal(12, reset_less=True), Signal(signed(19), reset_less=True)

        # Fresh K or V in this step?  Then its entries go one by one: one write a cycle and channel.
        beat = config.beat_bytes
        span = Mux(now.merge == 2, beat, config.channels)
        behind = Signal()
        m.d.comb += behind.eq((now.merge != 0) & (delta + now.columns > 0))
        hit, near, pair = Signal(), Signal(), Signal()
        m.d.comb += [
            hit.eq(behind & (delta < span)),
            near.eq(behind & (delta < Mux((now.merge == 2) & ~now.wide, 2 * beat, span))),
            pair.eq(now.two_beat & ~near & (now.wide | (left != 1)))]
        two = Signal()      # entries of one digit
        m.d.comb += two.eq(pair & ~now.wide)
        last_digit, last_entry, last_row, last_step = (
            Signal(name=name) for name in ("last_digit", "last_entry", "last_row", "last_step"))
        m.d.comb += [
            last_digit.eq(~now.wide | low | pair),
            last_entry.eq(last_digit & (left == Mux(two, 2, 1))),
            last_row.eq(rows_left == 1),
            last_step.eq(last_entry & last_row & ~stay)]

        # Steps that kept their sums: the bank has them only three steps later.
        bank_row = Signal(range(config.acc_rows))
        m.d.comb += bank_row.eq(now.acc_row + row)
        kept = [Signal(name=f"kept_{age}") for age in range(2)]
        kept_row = [
            Signal.like(bank_row, name=f"kept_row_{age}", reset_less=True) for age in range(2)]
        step_ = self.step.p
        first_visit = Signal()
        m.d.comb += first_visit.eq(first_entry & ~low)
        with m.If(again):
            m.d.comb += step_.base.eq(Base.LAST)
        with m.Elif(now.first & first_visit):
            m.d.comb += step_.base.eq(Base.ZERO)
        with m.Elif(~now.k_outer & ~first_visit):
            m.d.comb += step_.base.eq(Base.LAST)
        with m.Elif(kept[0] & (kept_row[0] == bank_row)):
            m.d.comb += step_.base.eq(Base.LAST)
        with m.Elif(kept[1] & (kept_row[1] == bank_row)):
            m.d.comb += step_.base.eq(Base.OLDER)
        with m.Else():
            m.d.comb += step_.base.eq(Base.BANK)

        stride = 1 << ratio
        upper = Signal(16)
        m.d.comb += upper.eq(Mux(two, block + stride, block))
        m.d.comb += [
            self.step.valid.eq(running),
            step_.block[0].eq(block), step_.block[1].eq(upper), step_.ratio.eq(ratio),
            step_.exponent.eq(now.exponent),
            step_.high[0].eq(now.wide & ~low), step_.high[1].eq(now.wide & ~low & ~pair),
            step_.pair.eq(pair), step_.two_beat.eq(now.two_beat), step_.digits.eq(now.digits),
            step_.upper.eq(Mux(halved, Mux(again, 0b01, 0b10), 0)), step_.stay.eq(stay),
            step_.keep.eq(Mux(now.last, now.k_outer & ~last_entry, now.k_outer | last_entry)
                          & ~stay),
            step_.out.eq(now.last & last_entry & ~stay), step_.row.eq(bank_row),
            step_.columns.eq(now.columns),
            step_.last_row.eq(last_row), step_.last_step.eq(last_step),
            step_.done.eq(~now.last), step_.signal.eq(now.signal),
            step_.turn.eq(Mux(now.merge == 1, now.head, 0)),
            step_.merge.eq(Mux(hit, now.merge, 0)), step_.delta.eq(delta), step_.head.eq(now.head),
            step_.buffer.eq(now.sequence), step_.beat.eq(entry), step_.head_row.eq(row),
            step_.address.eq(address)]

        next_entry, next_block = Signal(12), Signal(16)
        m.d.comb += [
            next_entry.eq(entry + 1 + two), next_block.eq(upper + stride)]
        advance = self.step.valid & self.step.ready
        with m.If(advance):
            m.d.sync += [
                kept[0].eq(step_.keep), kept_row[0].eq(bank_row),
                kept[1].eq(kept[0]), kept_row[1].eq(kept_row[0]), again.eq(stay)]
        with m.If(advance & ~stay):
            m.d.sync += [address.eq(address + 1 + pair), low.eq(~last_digit)]
            with m.If(last_digit):
                with m.If(now.k_outer):
                    m.d.sync += [row.eq(row + 1), rows_left.eq(rows_left - 1)]
                    with m.If(now.merge == 1):
                        m.d.sync += delta.eq(delta - config.channels)
                    with m.If(last_row):
                        m.d.sync += [
                            row.eq(0), rows_left.eq(rows), entry.eq(next_entry), left.eq(left - 1),
                            first_entry.eq(0), block.eq(next_block)]
                        m.d.sync += delta.eq(Mux(now.merge == 1, position, delta - beat))
                with m.Else():
                    m.d.sync += [
                        entry.eq(next_entry), left.eq(left - 1 - two), first_entry.eq(0),
                        block.eq(next_block)]
                    with m.If(now.merge == 2):
                        m.d.sync += delta.eq(delta - Mux(two, 2 * beat, beat))
                    with m.If(last_entry):
                        m.d.sync += [
                            entry.eq(0), left.eq(entries), first_entry.eq(1), block.eq(now.act),
                            row.eq(row + 1), rows_left.eq(rows_left - 1)]
                        m.d.sync += delta.eq(Mux(now.merge == 2, position, delta - config.channels))
            with m.If(last_step):
                m.d.sync += running.eq(0)

        ratios = _by_pattern(m, word.pattern, "ratios", [
            min(pattern.ratio, 4).bit_length() - 1 for pattern in PATTERNS])
        halves = _by_pattern(m, word.pattern, "halves", [int(p.halved) for p in PATTERNS])
        multiples = _by_pattern(m, word.pattern, "multiples", [
            pattern.entries.bit_length() - 1 for pattern in PATTERNS])
        total = Signal(12)
        per_row = Signal(2)
        words, constants = Signal(14), Signal(14)       # of all rows, and the beats that hold them
        beat_words = beat // 4
        m.d.comb += [
            total.eq(held.beats << multiples),
            per_row.eq((word.scale == 1) + (word.norm != 0) + word.bias),
            words.eq(Mux(per_row[0], held.rows, 0) + (Mux(per_row[1], held.rows, 0) << 1)),
            constants.eq((words + beat_words - 1) >> beat_words.bit_length() - 1),
            load.eq(waiting & (~word.last | told | self.epilogue_job.ready)
                    & (~running | (advance & last_step)))]
        with m.If(load):
            m.d.sync += [
                running.eq(1), now.eq(word), ratio.eq(ratios), halved.eq(halves), again.eq(0),
                rows.eq(held.rows), row.eq(0), rows_left.eq(held.rows),
                entries.eq(total), entry.eq(0), left.eq(total), first_entry.eq(1), low.eq(0),
                block.eq(word.act), address.eq(held.address + constants),
                position.eq(held.pos), delta.eq(held.pos)]
        return m
