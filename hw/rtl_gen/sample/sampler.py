# SPDX-License-Identifier: Apache-2.0
"""The SAMPLE instruction: blocks of logits in, the sampled token and result records out."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import layouts
from ..emit import Leaf
from ..fp32.bits import nonfinite
from ..spec import registers
from ..spec.config import CardConfig
from ..vector.scratchpad import read_port
from .candidates import TOKEN_BITS, Candidates
from .logsum import LogSumExp

#: exp units for each column that a card has; all of them work on one word.
EXP_UNITS = 4


class Sampler(wiring.Component):
    """Executes SAMPLE jobs.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    job : ``In(stream.Signature(layouts.JOB))``
        Taken when the unit is idle.
    read : scratchpad read port
    sampled : ``Out({valid, token})``
        For a cycle, at the end of a row of logits: its best token; that of the first column.
    record : ``Out(stream.Signature({word: 32, last: 1}))``
        The result record's words; those of the next column follow at a whole beat, ``last`` comes
        with the last word of the last column.
    done : ``Out(layouts.DONE)``
        After the last word of the last record was taken.
    nonfinite : ``Out(1)``
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "job": In(stream.Signature(layouts.JOB)),
            "read": Out(read_port(config)),
            "sampled": Out(data.StructLayout({"valid": 1, "token": TOKEN_BITS})),
            "record": Out(stream.Signature(data.StructLayout({"word": 32, "last": 1}))),
            "done": Out(layouts.DONE), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        lanes, tokens = self.config.vector_lanes, self.config.tokens
        m.submodules.candidates = best = Leaf(Candidates(
            lanes=lanes, depth=self.config.top_k, columns=tokens))
        m.submodules.logsum = logsum = Leaf(LogSumExp(
            lanes=lanes, width=min(lanes, EXP_UNITS * tokens), columns=tokens))

        job = Signal(layouts.JOB, reset_less=True)
        fields = layouts.view("SAMPLE", job.word)
        target, target_logit = Signal(32), Signal(32)
        alone = Signal()                        # one column: only then there is a target
        with m.If(job.target_valid & alone):
            m.d.sync += target.eq(job.target)

        # Words are read column by column, ahead of those who take them: the memory shows one until
        # the next is read.
        column, row = Signal.like(best.shown), Signal(12)
        line, address = Signal(16), Signal(16)      # of the row's first word, of the word
        asking, there, full = Signal(), Signal(), Signal()
        move, leave = Signal(), Signal()
        last_column, last_row = Signal(), Signal()
        m.d.comb += [
            self.read.addr.eq(address), self.read.en.eq(asking & (~there | move)),
            move.eq(there & (~full | leave)),
            last_column.eq(column + 1 == fields.columns), last_row.eq(row + 1 == fields.words)]
        with m.If(self.read.en):
            m.d.sync += [column.eq(column + 1), address.eq(address + fields.stride)]
            with m.If(last_column):
                m.d.sync += [column.eq(0), row.eq(row + 1), address.eq(line + 1), line.eq(line + 1)]
                with m.If(last_row):
                    m.d.sync += asking.eq(0)
        with m.If(self.read.en):
            m.d.sync += there.eq(1)
        with m.Elif(move):
            m.d.sync += there.eq(0)
        shown_column, shown_last = Signal.like(column), Signal()    # of the word that is shown
        with m.If(self.read.en):
            m.d.sync += [shown_column.eq(column), shown_last.eq(last_column)]

        # The word at hand; its column, its first token, and how many logits there are from it on.
        word = Signal(layouts.word(self.config), reset_less=True)
        valid = Signal(lanes, reset_less=True)
        of, token, next_token = Signal.like(column), Signal(TOKEN_BITS), Signal(TOKEN_BITS)
        left = Signal(17)
        ranked, summed = Signal(), Signal()     # taken by the list, by the sum
        with m.If(move):
            m.d.sync += [
                word.eq(self.read.data), of.eq(shown_column), token.eq(next_token),
                valid.eq(Cat(left > k for k in range(lanes))), full.eq(1),
                ranked.eq(0), summed.eq(0)]
            with m.If(shown_last):
                m.d.sync += [next_token.eq(next_token + lanes), left.eq(left - lanes)]
        with m.Elif(leave):
            m.d.sync += full.eq(0)
        with m.If(full & ~leave):
            m.d.sync += [ranked.eq(ranked | best.i.ready), summed.eq(summed | logsum.i.ready)]
        m.d.comb += [
            leave.eq(full & (ranked | best.i.ready) & (summed | logsum.i.ready)),
            best.i.valid.eq(full & ~ranked), logsum.i.valid.eq(full & ~summed),
            best.i.p.logits.eq(word), best.i.p.valid.eq(valid), best.i.p.token.eq(token),
            best.i.p.column.eq(of), logsum.i.p.logits.eq(word), logsum.i.p.valid.eq(valid),
            logsum.i.p.column.eq(of)]

        flagged = Signal()
        m.d.sync += flagged.eq(full & Cat(
            valid[k] & nonfinite(word[k]) for k in range(lanes)).any())
        m.d.comb += self.nonfinite.eq(flagged | logsum.nonfinite)
        lane, place_of = Signal(32), range(lanes)
        m.d.comb += lane.eq(target - token)
        lane_index = lane[:len(place_of).bit_length() - 1]
        with m.If(full & job.target_valid & alone & (lane < lanes) & Array(valid)[lane_index]):
            m.d.sync += target_logit.eq(Array(word[k] for k in place_of)[lane_index])

        # Records, one column after the other.
        beat_words = self.config.beat_bytes // 4
        place = Signal(range(len(registers.RESULT) + 2 * self.config.top_k + beat_words))
        record_of, last_record = Signal.like(column), Signal()
        m.d.comb += [best.shown.eq(record_of), logsum.shown.eq(record_of),
                     last_record.eq(record_of + 1 == fields.columns)]
        chosen = Signal(TOKEN_BITS)
        m.d.comb += self.sampled.token.eq(chosen)
        with m.FSM():
            with m.State("idle"):
                m.d.comb += self.job.ready.eq(1)
                start = layouts.view("SAMPLE", self.job.p.word)
                m.d.sync += [column.eq(0), row.eq(0), record_of.eq(0)]
                with m.If(self.job.valid):
                    m.d.sync += [
                        job.eq(self.job.p), left.eq(start.count), next_token.eq(start.token),
                        line.eq(start.a), address.eq(start.a), asking.eq(1),
                        alone.eq(start.columns == 1)]
                    with m.If(start.first):
                        m.d.comb += [best.clear.eq(1), logsum.clear.eq(1)]
                        m.d.sync += [target.eq(registers.NO_TARGET), target_logit.eq(0)]
                    m.next = "words"
            with m.State("words"):
                # Only who ends the row waits for its sum: other words of it may come meanwhile.
                with m.If(~asking & ~there & ~full & ~(fields.last & logsum.busy)):
                    m.next = "done"
                    with m.If(fields.last):
                        m.next = "show"
            with m.State("show"):
                m.d.comb += best.show.eq(1)
                m.d.sync += place.eq(0)
                m.next = "shown"
            with m.State("shown"):      # a cycle later: Candidates.SHOW is 2
                m.next = "record"
            with m.State("record"):
                values = {
                    "token": best.token, "logit": best.logit, "max": logsum.maximum,
                    "sum": logsum.sum, "target": target, "target_logit": target_logit,
                    "step": job.step, "position": job.pos}
                head = len(registers.RESULT)
                # Other columns' records go on with zeros to the end of the beat.
                ends = Signal()
                m.d.comb += [
                    self.record.valid.eq(1), ends.eq(place >= head - 1 + (fields.k << 1)),
                    self.record.p.last.eq(ends & last_record)]
                with m.Switch(place):
                    for k, name in enumerate(registers.RESULT):
                        with m.Case(k):
                            m.d.comb += self.record.p.word.eq(values[name])
                    with m.Default():
                        with m.If(place < head + (fields.k << 1)):
                            m.d.comb += self.record.p.word.eq(Mux(
                                place[0], Mux(best.present, best.logit, 0),
                                Mux(best.present, best.token, registers.NO_TARGET)))
                with m.If(self.record.ready):
                    m.d.sync += place.eq(place + 1)
                    m.d.comb += best.next.eq((place >= head) & place[0])
                    with m.If(self.record.p.last):
                        m.d.comb += self.sampled.valid.eq(1)
                        m.next = "done"
                    with m.Elif(ends & place[:beat_words.bit_length() - 1].all()):
                        m.d.sync += record_of.eq(record_of + 1)
                        m.next = "show"
                with m.If((place == 0) & (record_of == 0)):
                    m.d.sync += chosen.eq(best.token)
            with m.State("done"):
                m.d.comb += [self.done.valid.eq(1), self.done.signal.eq(fields.signal)]
                m.next = "idle"
        return m
