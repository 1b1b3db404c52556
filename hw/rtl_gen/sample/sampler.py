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

#: exp units of a column of a wide card; a block's word takes ``lanes / EXP_UNITS`` cycles of them.
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
        best, logsum = [], []
        for c in range(tokens):
            m.submodules[f"candidates_{c}"] = candidates = Leaf(Candidates(
                lanes=lanes, depth=self.config.top_k))
            m.submodules[f"logsum_{c}"] = total = Leaf(LogSumExp(
                lanes=lanes, width=min(lanes, EXP_UNITS)))
            best.append(candidates)
            logsum.append(total)

        job = Signal(layouts.JOB, reset_less=True)
        fields = layouts.view("SAMPLE", job.word)
        index = Signal(12)
        line = Signal(16)               # where the first column's word lies
        left = Signal(17)               # logits of the block not yet read
        token = Signal(TOKEN_BITS)      # of lane 0
        words = [Signal(layouts.word(self.config), name=f"word_{c}", reset_less=True)
                 for c in range(tokens)]
        valid = Signal(lanes, reset_less=True)
        active = Signal(tokens)                 # the instruction's columns
        alone = Signal()                        # there is one; only then there is a target
        target, target_logit = Signal(32), Signal(32)
        # The word was taken by the column's list, by its sum.
        ranked, summed = Signal(tokens), Signal(tokens)
        beat_words = self.config.beat_bytes // 4
        place = Signal(range(len(registers.RESULT) + 2 * self.config.top_k + beat_words))
        pair = Signal(range(self.config.top_k + 1))

        for c in range(tokens):
            m.d.comb += [
                best[c].i.p.logits.eq(words[c]), best[c].i.p.valid.eq(valid),
                best[c].i.p.token.eq(token), best[c].index.eq(pair),
                logsum[c].i.p.logits.eq(words[c]), logsum[c].i.p.valid.eq(valid)]

        # Words come column by column, a cycle after they were asked for.
        column, asked = Signal(range(tokens)), Signal(range(tokens))
        final = Signal()
        address, fetched = Signal(16), Signal()
        m.d.comb += [self.read.addr.eq(address), final.eq(column + 1 == fields.columns)]
        m.d.sync += [fetched.eq(self.read.en), asked.eq(column)]
        for c, word in enumerate(words):
            with m.If(fetched & (asked == c)):
                m.d.sync += word.eq(self.read.data)

        chosen = Signal(TOKEN_BITS)
        m.d.comb += self.sampled.token.eq(chosen)
        flagged = Signal(tokens)
        m.d.sync += flagged.eq(0)
        m.d.comb += self.nonfinite.eq(
            flagged.any() | Cat(total.nonfinite for total in logsum).any())
        with m.FSM():
            with m.State("idle"):
                m.d.comb += self.job.ready.eq(1)
                start = layouts.view("SAMPLE", self.job.p.word)
                m.d.sync += [column.eq(0), place.eq(0), pair.eq(0)]
                with m.If(self.job.valid):
                    m.d.sync += [
                        job.eq(self.job.p), index.eq(0), left.eq(start.count),
                        token.eq(start.token), line.eq(start.a), address.eq(start.a),
                        alone.eq(start.columns == 1),
                        active.eq(Cat(start.columns > c for c in range(tokens)))]
                    with m.If(start.first):
                        m.d.comb += [one.clear.eq(1) for one in (*best, *logsum)]
                        m.d.sync += [target.eq(registers.NO_TARGET), target_logit.eq(0)]
                    m.next = "read"
            with m.State("read"):
                m.d.comb += self.read.en.eq(1)
                m.d.sync += [column.eq(column + 1), address.eq(address + fields.stride)]
                with m.If(job.target_valid & alone):
                    m.d.sync += target.eq(job.target)
                with m.If(final):
                    m.d.sync += [column.eq(0), address.eq(line + 1), line.eq(line + 1)]
                    m.next = "fetch"
            with m.State("fetch"):
                m.d.sync += [
                    ranked.eq(~active), summed.eq(~active),
                    [valid[k].eq(left > k) for k in range(lanes)]]
                m.next = "word"
            with m.State("word"):
                for c, word in enumerate(words):
                    m.d.sync += flagged[c].eq(active[c] & Cat(
                        valid[k] & nonfinite(word[k]) for k in range(lanes)).any())
                    m.d.comb += [best[c].i.valid.eq(~ranked[c]), logsum[c].i.valid.eq(~summed[c])]
                    with m.If(best[c].i.ready):
                        m.d.sync += ranked[c].eq(1)
                    with m.If(logsum[c].i.ready):
                        m.d.sync += summed[c].eq(1)
                lane = Signal(32)
                m.d.comb += lane.eq(target - token)
                with m.If(job.target_valid & alone & (lane < lanes)):
                    with m.If(Array(valid)[lane[:(lanes - 1).bit_length()]]):
                        m.d.sync += target_logit.eq(Array(
                            words[0][k] for k in range(lanes))[lane[:(lanes - 1).bit_length()]])
                with m.If(Cat((ranked[c] | best[c].i.ready) & (summed[c] | logsum[c].i.ready)
                              for c in range(tokens)).all()):
                    m.d.sync += [
                        index.eq(index + 1), token.eq(token + lanes), left.eq(left - lanes)]
                    m.next = "read"
                    with m.If(index + 1 == fields.words):
                        m.next = "drain"
            with m.State("drain"):
                with m.If(~Cat(total.busy for total in logsum).any()):
                    m.next = "done"
                    with m.If(fields.last):
                        m.next = "record"
            with m.State("record"):
                shown = {name: Signal(len(getattr(one, name)), name=f"shown_{name}")
                         for one, names in ((best[0], ("token", "logit", "present")),
                                            (logsum[0], ("maximum", "sum"))) for name in names}
                with m.Switch(column):
                    for c in range(tokens):
                        with m.Case(c):
                            m.d.comb += [
                                shown["token"].eq(best[c].token), shown["logit"].eq(best[c].logit),
                                shown["present"].eq(best[c].present),
                                shown["maximum"].eq(logsum[c].maximum),
                                shown["sum"].eq(logsum[c].sum)]
                values = {
                    "token": shown["token"], "logit": shown["logit"], "max": shown["maximum"],
                    "sum": shown["sum"], "target": target, "target_logit": target_logit,
                    "step": job.step, "position": job.pos}
                head = len(registers.RESULT)
                # Other columns' records go on with zeros to the end of the beat.
                ends = Signal()
                m.d.comb += [
                    self.record.valid.eq(1), ends.eq(place >= head - 1 + (fields.k << 1)),
                    self.record.p.last.eq(ends & final)]
                with m.Switch(place):
                    for k, name in enumerate(registers.RESULT):
                        with m.Case(k):
                            m.d.comb += self.record.p.word.eq(values[name])
                    with m.Default():
                        with m.If(place < head + (fields.k << 1)):
                            m.d.comb += self.record.p.word.eq(Mux(
                                place[0], Mux(shown["present"], shown["logit"], 0),
                                Mux(shown["present"], shown["token"], registers.NO_TARGET)))
                with m.If(self.record.ready):
                    m.d.sync += place.eq(place + 1)
                    with m.If((place >= head) & place[0]):
                        m.d.sync += pair.eq(pair + 1)
                    with m.If(self.record.p.last):
                        m.d.comb += self.sampled.valid.eq(1)
                        m.next = "done"
                    with m.Elif(ends & place[:beat_words.bit_length() - 1].all()):
                        m.d.sync += [column.eq(column + 1), place.eq(0), pair.eq(0)]
                with m.If((place == 0) & (column == 0)):
                    m.d.sync += chosen.eq(best[0].token)
            with m.State("done"):
                m.d.comb += [self.done.valid.eq(1), self.done.signal.eq(fields.signal)]
                m.next = "idle"
        return m
