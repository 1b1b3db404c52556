# SPDX-License-Identifier: Apache-2.0
"""The SAMPLE instruction: blocks of logits in, the sampled token and a result record out."""

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import layouts
from ..fp32.bits import nonfinite
from ..spec import registers
from ..spec.config import CardConfig
from ..vector.scratchpad import read_port
from .candidates import TOKEN_BITS, Candidates
from .logsum import LogSumExp

#: exp units of a wide card; a block's word takes ``lanes / EXP_UNITS`` cycles of them.
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
        For a cycle, at the end of a row of logits: its best token.
    record : ``Out(stream.Signature({word: 32, last: 1}))``
        The result record's words.
    done : ``Out(layouts.DONE)``
        After the last word of the record was taken.
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
        lanes = self.config.vector_lanes
        m.submodules.candidates = best = Candidates(lanes=lanes, depth=self.config.top_k)
        m.submodules.logsum = logsum = LogSumExp(lanes=lanes, width=min(lanes, EXP_UNITS))

        job = Signal(layouts.JOB, reset_less=True)
        fields = layouts.view("SAMPLE", job.word)
        index = Signal(12)
        left = Signal(17)               # logits of the block not yet read
        token = Signal(TOKEN_BITS)      # of lane 0
        word = Signal(layouts.word(self.config), reset_less=True)
        valid = Signal(lanes, reset_less=True)
        target, target_logit = Signal(32), Signal(32)
        ranked, summed = Signal(), Signal()     # the word was taken by the list, by the sum
        place = Signal(range(len(registers.RESULT) + 2 * self.config.top_k + 1))
        pair = Signal(range(self.config.top_k + 1))

        m.d.comb += [
            best.i.p.logits.eq(word), best.i.p.valid.eq(valid), best.i.p.token.eq(token),
            logsum.i.p.logits.eq(word), logsum.i.p.valid.eq(valid),
            self.read.addr.eq(fields.a + index)]

        chosen = Signal(TOKEN_BITS)
        m.d.comb += self.sampled.token.eq(chosen)
        flagged = Signal()
        m.d.comb += self.nonfinite.eq(flagged | logsum.nonfinite)
        with m.FSM():
            with m.State("idle"):
                m.d.comb += self.job.ready.eq(1)
                start = layouts.view("SAMPLE", self.job.p.word)
                with m.If(self.job.valid):
                    m.d.sync += [
                        job.eq(self.job.p), index.eq(0), left.eq(start.count),
                        token.eq(start.token)]
                    with m.If(start.first):
                        m.d.comb += [best.clear.eq(1), logsum.clear.eq(1)]
                        m.d.sync += [target.eq(registers.NO_TARGET), target_logit.eq(0)]
                    m.next = "read"
            with m.State("read"):
                m.d.comb += self.read.en.eq(1)
                with m.If(job.target_valid):
                    m.d.sync += target.eq(job.target)
                m.next = "fetch"
            with m.State("fetch"):
                m.d.sync += [
                    word.eq(self.read.data), ranked.eq(0), summed.eq(0),
                    [valid[k].eq(left > k) for k in range(lanes)]]
                m.next = "word"
            with m.State("word"):
                with m.If(~ranked & ~summed):       # once a word
                    m.d.comb += flagged.eq(
                        sum((valid[k] & nonfinite(word[k]) for k in range(lanes)), 0) != 0)
                m.d.comb += [best.i.valid.eq(~ranked), logsum.i.valid.eq(~summed)]
                with m.If(best.i.ready):
                    m.d.sync += ranked.eq(1)
                with m.If(logsum.i.ready):
                    m.d.sync += summed.eq(1)
                lane = Signal(32)
                m.d.comb += lane.eq(target - token)
                with m.If(job.target_valid & (lane < lanes)):
                    with m.If(Array(valid)[lane[:(lanes - 1).bit_length()]]):
                        m.d.sync += target_logit.eq(
                            Array(word[k] for k in range(lanes))[lane[:(lanes - 1).bit_length()]])
                with m.If((ranked | best.i.ready) & (summed | logsum.i.ready)):
                    m.d.sync += [
                        index.eq(index + 1), token.eq(token + lanes), left.eq(left - lanes)]
                    m.next = "read"
                    with m.If(index + 1 == fields.words):
                        m.next = "drain"
            with m.State("drain"):
                m.d.sync += [place.eq(0), pair.eq(0)]
                with m.If(~logsum.busy):
                    m.next = "done"
                    with m.If(fields.last):
                        m.next = "record"
            with m.State("record"):
                values = {
                    "token": best.token, "logit": best.logit, "max": logsum.maximum,
                    "sum": logsum.sum, "target": target, "target_logit": target_logit,
                    "step": job.step, "position": job.pos}
                head = len(registers.RESULT)
                m.d.comb += [
                    best.index.eq(pair), self.record.valid.eq(1),
                    self.record.p.last.eq(place == head - 1 + (fields.k << 1))]
                with m.Switch(place):
                    for k, name in enumerate(registers.RESULT):
                        with m.Case(k):
                            m.d.comb += self.record.p.word.eq(values[name])
                    with m.Default():
                        m.d.comb += self.record.p.word.eq(Mux(
                            place[0], Mux(best.present, best.logit, 0),
                            Mux(best.present, best.token, registers.NO_TARGET)))
                with m.If(self.record.ready):
                    m.d.sync += place.eq(place + 1)
                    with m.If((place >= head) & place[0]):
                        m.d.sync += pair.eq(pair + 1)
                    with m.If(self.record.p.last):
                        m.d.comb += self.sampled.valid.eq(1)
                        m.next = "done"
                with m.If(place == 0):
                    m.d.sync += chosen.eq(best.token)
            with m.State("done"):
                m.d.comb += [self.done.valid.eq(1), self.done.signal.eq(fields.signal)]
                m.next = "idle"
        return m
