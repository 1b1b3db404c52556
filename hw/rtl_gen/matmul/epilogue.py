# SPDX-License-Identifier: Apache-2.0
"""What becomes of the sums: scale, norm, bias, gelu, residual, to the scratchpad or to softmax."""

from amaranth import Array, Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import Queue, layouts
from ..emit import Leaf
from ..fp32 import Gelu, Pipe
from ..fp32.bits import nonfinite
from ..spec import isa
from ..spec.config import CardConfig
from ..vector import scales, scratchpad
from ..vector.norm import norms_layout
from .engine import row
from .epilogue_lane import ONE, OP, EpilogueLane, Scale
from .probpath import results_layout

#: Constants of a row, at most.
WORDS = 3
#: Words of scores between the lanes and softmax: those on their way, and some.
SCORES = 16
#: What the instruction that comes next is told of before it starts, in cycles.
PREPARE = 3


#: What goes with a sum.
INFO = data.StructLayout({
    "token": 2, "last": 1, "addr": 16, "k": 1, "k_addr": 16, "norm": 1, "set": 1,
    "divide": 1, "result": range(isa.SUMS), "gelu": 1, "residual": 1, "scored": 1,
    "signal": isa.COUNTERS})


class Epilogue(wiring.Component):
    """Finishes the rows of MATMULs, one token of one row of all lanes a cycle.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    job : ``In(stream.Signature(layouts.JOB))``
        MATMULs with ``last``, in the order of their rows.
    rows : ``In(stream.Signature(row(config)))``
        Sums.
    words : ``In(3 × 32 bits)`` of each channel
        The next constants.
    word_level : ``In(2)``
        How many of them every channel has, if they are the epilogue's.
    word_take : ``Out(2)``
        Constants that leave each channel in this cycle.
    word_skip : ``Out(1)``
        They are the last of their instruction.
    k_read : ``Out(scales.read_port(config))``
        Scales of K.
    read : ``Out(scratchpad.read_port(config))``
        Old content, for residuals.
    write : ``Out(stream.Signature(scratchpad.write_layout(config)))``
        Results; ``ready`` must always be 1.
    norms : ``In(norms_layout(config))``
        Mean and reciprocal deviation by set and token.
    results : ``In(results_layout(config))``, pending : ``In(8)``
        1/sum by softmax result and token; which of the results are still to come.
    prob_job : ``Out(stream.Signature(layouts.JOB))``, scores : ``Out(stream(word))``
        Instructions to softmax, and their scores.
    done : ``Out(layouts.DONE)``
        For instructions to the scratchpad.
    nonfinite : ``Out(1)``
        For a cycle: an infinity or NaN was read or made.
    """

    #: Cycles from a sum to its word in the scratchpad, without and with gelu.
    LATENCY = (EpilogueLane.VALUE_AT + EpilogueLane.FINISH + 1,
               EpilogueLane.GELU_AT + EpilogueLane.FINISH + 1)

    job: stream.Interface
    rows: stream.Interface
    write: stream.Interface
    prob_job: stream.Interface
    scores: stream.Interface

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        #: It begins with an instruction: the pin `events` shows it.
        self.loaded = Signal()
        channels = config.channels
        super().__init__({
            "job": In(stream.Signature(layouts.JOB)),
            "rows": In(stream.Signature(row(config))),
            "words": In(data.ArrayLayout(unsigned(32), WORDS)).array(channels),
            "word_level": In(2), "word_take": Out(2), "word_skip": Out(1),
            "k_read": Out(scales.read_port(config)), "read": Out(scratchpad.read_port(config)),
            "write": Out(stream.Signature(scratchpad.write_layout(config))),
            "norms": In(norms_layout(config)),
            "results": In(results_layout(config)), "pending": In(isa.SUMS),
            "prob_job": Out(stream.Signature(layouts.JOB)),
            "scores": Out(stream.Signature(layouts.word(config))),
            "done": Out(layouts.DONE), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        channels, at = config.channels, EpilogueLane
        pipe = Pipe(m)

        # ---- The instruction that comes next, and what it has to wait for. ----
        held, waiting = Signal(layouts.JOB, reset_less=True), Signal()
        age = Signal(range(PREPARE + 1))
        word = layouts.view("MATMUL", held.word)
        load, active, ending = Signal(), Signal(), Signal()
        m.d.comb += self.job.ready.eq(~waiting | load)
        with m.If(load):
            m.d.sync += waiting.eq(0)
        with m.If(self.job.valid & self.job.ready):
            m.d.sync += [waiting.eq(1), held.eq(self.job.payload), age.eq(PREPARE)]
        with m.Elif(age != 0):
            m.d.sync += age.eq(age - 1)

        # One that reads what an earlier one may not have written yet waits until all is written.
        # All that is on its way lies between `low` and `high`.  Tokens of a product lie `stride`
        # apart: rows of one product and others of the next then lie among each other, but apart,
        # if their first tokens' are (`first_low` to `first_high`) and all fit between two tokens.
        low, high = Signal(18, reset_less=True), Signal(18, reset_less=True)
        end, conflict = Signal(18, reset_less=True), Signal(reset_less=True)
        first_low, first_high = Signal(17, reset_less=True), Signal(17, reset_less=True)
        stride, one_stride = Signal(16, reset_less=True), Signal(reset_less=True)
        first_end, least, most = (Signal(17, name=name, reset_less=True)
                                  for name in ("first_end", "least", "most"))
        apart, overlap = Signal(reset_less=True), Signal(reset_less=True)
        in_flight, written = Signal(range(max(self.LATENCY) + 2)), Signal()
        further = Signal(2)     # tokens besides the first
        to_softmax = word.dest != 0
        m.d.comb += further.eq(word.columns - 1)
        m.d.sync += [
            end.eq(word.dst + held.rows + Mux(further[0], word.dst_stride, 0)
                   + Mux(further[1], word.dst_stride << 1, 0)),
            overlap.eq(word.residual & (word.dst < high) & (end > low)),
            first_end.eq(word.dst + held.rows),
            least.eq(Mux(word.dst < first_low, word.dst, first_low)),
            most.eq(Mux(first_end > first_high, first_end, first_high)),
            apart.eq(one_stride & (word.dst_stride == stride)
                     & ((word.dst >= first_high) | (first_end <= first_low))),
            conflict.eq(overlap & ~(apart & (most - least <= stride)))]
        with m.If(load & ~to_softmax):
            with m.If(~active & (in_flight == 0)):
                m.d.sync += [low.eq(word.dst), high.eq(end), first_low.eq(word.dst),
                             first_high.eq(first_end), stride.eq(word.dst_stride),
                             one_stride.eq(1)]
            with m.Else():
                m.d.sync += [low.eq(Mux(word.dst < low, word.dst, low)),
                             high.eq(Mux(end > high, end, high)),
                             first_low.eq(least), first_high.eq(most),
                             one_stride.eq(one_stride & (word.dst_stride == stride))]
        able, needs = Signal(), Signal(isa.SUMS, reset_less=True)    # needs: results of softmax
        m.d.sync += needs.eq(Cat(word.divide == k + 1 for k in range(isa.SUMS)))
        m.d.comb += [
            able.eq(waiting & (age == 0) & (~active | ending)
                    & (~conflict | (~active & (in_flight == 0)))
                    & ~(needs & self.pending).any()),
            self.prob_job.payload.eq(held), self.prob_job.valid.eq(able & to_softmax),
            load.eq(able & (~to_softmax | self.prob_job.ready)), self.loaded.eq(load)]

        # ---- The instruction at hand. ----
        now = Signal(layouts.fields("MATMUL"), reset_less=True)
        aux, left = Signal(2, reset_less=True), Signal(12)      # constants of a row, rows without
        row_addr, addr = Signal(16, reset_less=True), Signal(16, reset_less=True)
        k_addr, past = Signal(16, reset_less=True), Signal(signed(14), reset_less=True)
        issue = Signal()
        sums = self.rows.p
        m.d.comb += ending.eq(issue & sums.last_token & sums.last_row)
        with m.If(ending):
            m.d.sync += active.eq(0)
        with m.If(issue):
            m.d.sync += addr.eq(addr + now.dst_stride)
            with m.If(sums.last_token):
                m.d.sync += [
                    row_addr.eq(row_addr + 1), addr.eq(row_addr + 1),
                    k_addr.eq(k_addr + now.kv_heads), past.eq(past - channels)]
        with m.If(load):
            m.d.sync += [
                active.eq(1), now.eq(word),
                aux.eq((word.scale == 1) + (word.norm != 0) + word.bias), left.eq(held.rows),
                row_addr.eq(word.dst), addr.eq(word.dst), k_addr.eq(word.kv_base + word.head),
                past.eq(held.len)]

        # The instruction at hand has gelu; goes to softmax.
        gelu, scored = Signal(reset_less=True), Signal(reset_less=True)
        # Whether a row with constants has not got them; whether that is the last one.
        wants, last_left = Signal(), Signal(reset_less=True)
        with m.If(load):
            m.d.sync += [
                gelu.eq(word.gelu != 0), scored.eq(to_softmax), last_left.eq(held.rows == 1),
                wants.eq((held.rows != 0) & ((word.scale == 1) | (word.norm != 0) | word.bias))]

        # ---- Constants: those of the next row are here before it comes. ----
        constants = [Signal(data.ArrayLayout(32, WORDS), name=f"constants_{k}", reset_less=True)
                     for k in range(channels)]
        here, capture, ends = Signal(), Signal(), Signal()
        m.d.comb += [
            capture.eq(wants & (~here | ends) & (self.word_level >= aux)),
            self.word_take.eq(Mux(capture, aux, 0)), self.word_skip.eq(capture & last_left)]
        with m.If(issue & sums.last_token):
            m.d.sync += here.eq(0)
        with m.If(capture):
            m.d.sync += [here.eq(1), left.eq(left - 1), last_left.eq(left == 2),
                         wants.eq(~last_left)]
            m.d.sync += [kept.eq(new) for kept, new in zip(constants, self.words, strict=True)]
        after_scale = now.scale == Scale.WORD.value

        # ---- A sum goes into every lane. ----
        guard = Signal(range(Gelu.LATENCY + 1))     # until the last one is through with gelu
        guarded = Signal()                          # it is not 0
        # All channels wait for what is captured: this is `issue & last_token` of a row with
        # constants, in few levels of logic.  The few scores with constants take a cycle more.
        m.d.comb += ends.eq(
            self.rows.valid & sums.last_token & active & ~scored & (gelu | ~guarded))
        room = Signal(range(SCORES + 1), init=SCORES)
        m.d.comb += [
            self.rows.ready.eq(
                active & ((aux == 0) | here)
                & Mux(scored, room != 0, gelu | ~guarded)),
            issue.eq(self.rows.valid & self.rows.ready)]
        with m.If(issue & gelu):
            m.d.sync += [guard.eq(Gelu.LATENCY), guarded.eq(1)]
        with m.Elif(guarded):
            m.d.sync += [guard.eq(guard - 1), guarded.eq(guard != 1)]
        m.d.sync += in_flight.eq(in_flight + (issue & ~scored) - written)

        op = Signal(OP)
        m.d.comb += [
            op.base.eq(now.exponent), op.scale.eq(now.scale), op.norm.eq(now.norm != 0),
            op.bias.eq(now.bias), op.form.eq(now.gelu == 2)]

        # What goes with it; `info[k]` is that of the sum that came k cycles ago.
        info = [Signal(INFO)]
        m.d.comb += [
            info[0].token.eq(sums.token), info[0].last.eq(ending), info[0].addr.eq(addr),
            info[0].k_addr.eq(k_addr), info[0].k.eq(now.scale == Scale.K.value),
            info[0].norm.eq(now.norm != 0), info[0].set.eq(now.norm == 2),
            info[0].divide.eq(now.divide != 0), info[0].result.eq(now.divide - 1),
            info[0].gelu.eq(gelu), info[0].residual.eq(now.residual),
            info[0].scored.eq(scored), info[0].signal.eq(now.signal)]
        valid = [issue]
        for k in range(at.GELU_AT):
            info.append(pipe(info[-1], f"info_{k + 1}"))
            valid.append(pipe(valid[-1], f"valid_{k + 1}", reset_less=False))

        rest = Signal(signed(15))
        m.d.comb += rest.eq(past + sums.token)
        unmasked = pipe(Mux(~scored | (rest > channels), channels, Mux(rest < 0, 0, rest)),
                        "unmasked")
        m.d.comb += [
            self.k_read.en.eq(valid[at.K_SCALE_AT - 1] & info[at.K_SCALE_AT - 1].k),
            self.k_read.addr.eq(info[at.K_SCALE_AT - 1].k_addr)]

        # Chosen in the cycle before they are needed.
        norms = Array(Array(entry for entry in one) for one in self.norms)
        results = Array(Array(entry for entry in one) for one in self.results)
        early = info[at.MEAN_AT - 1]
        mean = pipe(norms[early.set][early.token].mean, "mean")
        early = info[at.RSTD_AT - 1]
        rstd = pipe(Mux(early.norm, norms[early.set][early.token].rstd, ONE), "rstd")
        early = info[at.DIVIDE_AT - 1]
        divide = pipe(Mux(early.divide, results[early.result][early.token], ONE), "divide")

        # Both ways end here, never in the same cycle.
        straight = [valid[k] & ~info[k].scored & ~info[k].gelu for k in range(at.VALUE_AT + 1)]
        detour = valid[at.GELU_AT] & info[at.GELU_AT].gelu
        last_info = Signal(INFO)
        with m.If(detour):
            m.d.comb += last_info.eq(info[at.GELU_AT])
        with m.Else():
            m.d.comb += last_info.eq(info[at.VALUE_AT])
        early = [info[at.GELU_AT - 2], info[at.VALUE_AT - 2]]
        reads = [valid[at.GELU_AT - 2] & early[0].gelu & early[0].residual,
                 straight[at.VALUE_AT - 2] & early[1].residual]
        m.d.comb += [
            self.read.en.eq(reads[0] | reads[1]),
            self.read.addr.eq(Mux(reads[0], early[0].addr, early[1].addr))]
        old = pipe(self.read.data, "old")

        m.submodules.score_queue = queue = Queue(layouts.word(config), depth=SCORES)
        result = Signal(layouts.word(config), reset_less=True)
        flags = []
        for k in range(channels):
            m.submodules[f"lane_{k}"] = lane = Leaf(EpilogueLane())
            m.d.comb += [
                lane.acc.eq(sums.acc[k]), lane.op.eq(op),
                lane.scale.eq(constants[k][0]),
                lane.wg.eq(Mux(after_scale, constants[k][1], constants[k][0])),
                lane.bias.eq(Mux(aux == 1, constants[k][0],
                                 Mux(aux == 2, constants[k][1], constants[k][2]))),
                lane.masked.eq(k >= unmasked), lane.k_scale.eq(self.k_read.data[k]),
                lane.mean.eq(mean), lane.rstd.eq(rstd), lane.divide.eq(divide),
                lane.detour.eq(detour), lane.residual.eq(last_info.residual), lane.old.eq(old[k]),
                queue.i.payload[k].eq(lane.scaled)]
            m.d.sync += result[k].eq(lane.o)
            flags.append((lane.nonfinite, nonfinite(lane.scaled)))

        # ---- To softmax, or to the scratchpad. ----
        to_scores = valid[at.SCALED_AT] & info[at.SCALED_AT].scored
        m.d.comb += queue.i.valid.eq(to_scores)
        connect(m, queue.o, flipped(self.scores))
        m.d.sync += room.eq(room - (issue & scored) + (queue.o.valid & queue.o.ready))
        finish = pipe.delay(
            straight[-1] | detour, at.FINISH, "finish", reset_less=False)
        final = Signal(INFO)
        m.d.comb += final.eq(pipe.delay(last_info.as_value(), at.FINISH + 1, "final"))
        m.d.comb += [
            written.eq(pipe(finish, "written", reset_less=False)),
            self.write.valid.eq(written), self.write.p.addr.eq(final.addr),
            self.write.p.data.eq(result),
            self.done.valid.eq(written & final.last), self.done.signal.eq(final.signal)]
        m.d.sync += self.nonfinite.eq(
            (finish & Cat(flag for flag, _ in flags).any())
            | (to_scores & Cat(flag for _, flag in flags).any()))
        return m
