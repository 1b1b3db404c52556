# SPDX-License-Identifier: Apache-2.0
"""The matmul engine: planes, sequencer and lanes in step."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import Queue, Skid, layouts
from ..emit import Leaf
from ..spec.config import ACC_BITS, CardConfig
from . import bank, products, sequencer
from .bank import ROWS, Bank
from .delay import delay
from .dsp48 import borrow
from .fresh import Fresh, turned
from .go import Go
from .lane import SHIFT_BITS, Lane, combine
from .planes import Planes
from .rows import RowReader
from .select import CHOICES, PAIR, half_bits, half_columns
from .sequencer import Sequencer

#: Lanes that share one copy of what a step tells all lanes.
GROUP = 8
#: Instructions that may wait for the epilogue.
EPILOGUE_JOBS = 8


def row(config: CardConfig) -> data.StructLayout:
    """One finished row of each lane, for one token."""
    return data.StructLayout({
        "acc": data.ArrayLayout(signed(ACC_BITS), config.channels), "token": 2, "last_token": 1,
        "last_row": 1})


def latency(config: CardConfig) -> int:
    """Cycles from the entries that end a row until ``rows`` offers it, if nothing is before it."""
    return Lane.CONTROL(config) + Bank.LATENCY + 2


class Engine(wiring.Component):
    """Streams weights, K or V against quantised activations.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    job : ``In(stream(layouts.JOB))``
        MATMULs, whose planes are ready.
    entries : ``In(bits of layouts.entry(config)).array(C, 2)``
        The next two entries of each channel.
    some : ``In(2).array(C)``
        Bit 0: at least one of them is there; bit 1: both are.
    take : ``Out(2).array(C)``
        How many are used in this cycle; the same for all channels.
    write : ``Out(stream(layouts.channel_write(config))).array(C)``
        Entries with fresh K or V, back to where they were read.
    planes : ``In(stream(layouts.plane_write(config))).array(2)``
        Activations from softmax and from the vector unit.
    fresh : ``In(stream(layouts.fresh_write(config)))``
    epilogue_job : ``Out(stream(layouts.JOB))``
        Every instruction with ``last``, in order.
    rows : ``Out(stream(row(config)))``
        Their rows in order, token by token.
    done : ``Out(layouts.DONE)``
        For instructions without ``last``.
    entries_used : ``Out(2)``
        Entries used, of each channel; 3: at work with entries that it needs once more.
    wait_weights, wait_rows : ``Out(1)``
        A step waited for entries; for the epilogue (or for a write to be taken).
    """

    def __init__(self, config: CardConfig):
        self.config = config
        #: The entries used are the last of an instruction: the pin `events` shows it.
        self.ends = Signal()
        channels = config.channels
        super().__init__({
            "job": In(stream.Signature(layouts.JOB)),
            "entries": In(layouts.entry(config).size).array(channels, 2),
            "swap": In(1).array(channels),
            "some": In(2).array(channels), "take": Out(2).array(channels),
            "write": Out(stream.Signature(layouts.channel_write(config))).array(channels),
            "planes": In(stream.Signature(layouts.plane_write(config))).array(2),
            "fresh": In(stream.Signature(layouts.fresh_write(config))),
            "epilogue_job": Out(stream.Signature(layouts.JOB)),
            "rows": Out(stream.Signature(row(config))),
            "done": Out(layouts.DONE),
            "entries_used": Out(2), "wait_weights": Out(1), "wait_rows": Out(1)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        layout = sequencer.step(config)

        # Steps, then what was fetched for one, then what was aligned and merged for one.
        m.submodules.sequencer = steps = Sequencer(config)
        m.submodules.planes = planes = Planes(config)
        m.submodules.fresh = fresh = Fresh(config)
        m.submodules.epilogue_jobs = jobs = Queue(layouts.JOB, depth=EPILOGUE_JOBS)
        connect(m, flipped(self.job), steps.job)
        connect(m, steps.epilogue_job, jobs.i)
        connect(m, jobs.o, flipped(self.epilogue_job))
        connect(m, flipped(self.fresh), fresh.write)
        for outer, inner in zip(self.planes, planes.write, strict=True):
            connect(m, flipped(outer), inner)

        fire = Signal()
        fetched, fetched_valid = Signal(layout, reset_less=True), Signal()
        aligned, aligned_valid = Signal(layout, reset_less=True), Signal()
        shift = Signal(data.ArrayLayout(SHIFT_BITS, config.tokens), reset_less=True)
        align = ~aligned_valid | fire
        fetch = ~fetched_valid | align
        # The sequencer's counters do not wait for what all channels say in the same cycle.
        m.submodules.skid = skid = Skid(steps.step.payload.shape())
        connect(m, steps.step, skid.i)
        step = skid.o
        m.d.comb += [
            step.ready.eq(fetch), planes.read_en.eq(fetch), planes.align_en.eq(align),
            planes.block[0].eq(step.p.block[0]), planes.block[1].eq(step.p.block[1]),
            planes.ratio.eq(fetched.ratio), planes.cross.eq(fetched.upper[0]),
            fresh.read_en.eq(fetch), fresh.head.eq(step.p.head), fresh.beat.eq(step.p.beat),
            fresh.row.eq(step.p.head_row),
            fresh.merge_en.eq(align), fresh.kind.eq(fetched.merge), fresh.delta.eq(fetched.delta),
            fresh.columns.eq(fetched.columns), fresh.buffer.eq(fetched.buffer),
            fresh.high.eq(fetched.high[0]), fresh.turn.eq(fetched.turn)]
        with m.If(fetch):
            m.d.sync += [fetched.eq(step.p), fetched_valid.eq(step.valid)]
        with m.If(align):
            m.d.sync += [aligned.eq(fetched), aligned_valid.eq(fetched_valid)]
            for column in range(config.tokens):
                high = fetched.high[column >= config.tokens // 2]
                m.d.sync += shift[column].eq(
                    planes.exponents[column] - fetched.exponent + Mux(high, 8, 0))

        # A step waits for its entries, a place for the row that it ends, and earlier writes.
        places = Signal(range(ROWS + 1), init=ROWS)
        writing, blocked = Signal(config.channels), Signal()
        m.submodules.go = go = Leaf(Go(config))
        m.d.comb += [
            go.valid.eq(aligned_valid), go.pair.eq(aligned.pair), go.stay.eq(aligned.stay),
            go.place.eq(~aligned.out | (places != 0)), go.writing.eq(writing),
            go.taken.eq(Cat(port.ready for port in self.write)),
            blocked.eq(go.blocked), fire.eq(go.fire)]
        m.d.comb += [inner.eq(outer) for inner, outer in zip(go.some, self.some, strict=True)]
        m.d.comb += [take.eq(go.take) for take in self.take]
        m.d.sync += [
            self.entries_used.eq(Mux(fire & aligned.stay, 3, go.take)),
            self.ends.eq(fire & aligned.last_step),
            self.wait_weights.eq(aligned_valid & go.free & ~go.enough),
            self.wait_rows.eq(aligned_valid & ~go.free)]

        # Writes of merged entries, and reports of instructions that leave their sums in the bank.
        address = Signal(32, reset_less=True)
        ended, signal = Signal(), Signal.like(aligned.signal, reset_less=True)
        m.d.sync += [self.done.valid.eq(ended & ~blocked), self.done.signal.eq(signal)]
        with m.If(~blocked):
            m.d.sync += ended.eq(0)
        with m.If(fire):
            m.d.sync += [
                address.eq(aligned.address), signal.eq(aligned.signal),
                ended.eq(aligned.last_step & aligned.done)]
        for lane, port in enumerate(self.write):
            m.d.comb += [port.valid.eq(writing[lane]), port.p.address.eq(address)]
            with m.If(port.ready):
                m.d.sync += writing[lane].eq(0)
            with m.If(fire):
                m.d.sync += writing[lane].eq(fresh.lanes[lane] | fresh.bytes.any())

        # What the lanes need later, on its way.
        slot = Signal(range(ROWS))
        with m.If(fire & aligned.out):
            m.d.sync += slot.eq(slot + 1)
        how, what = Signal(combine(config)), Signal(bank.control(config))
        m.d.comb += [
            how.shift.eq(shift), how.digits.eq(aligned.digits), how.two_beat.eq(aligned.two_beat),
            how.pair.eq(aligned.pair),
            what.base.eq(aligned.base), what.keep.eq(aligned.keep), what.out.eq(aligned.out),
            what.row.eq(aligned.row), what.slot.eq(slot)]
        how_late = delay(m, how, Lane.COMBINE(config) - 1)
        what_late = delay(m, what, Lane.CONTROL(config) - 1)
        pending = Signal(Lane.CONTROL(config) - 1)      # unlike what it is about, this is reset
        m.d.sync += pending.eq(Cat(fire, pending))

        # Finished rows, shown token by token.  All writes of an instruction go before its last row.
        m.submodules.rows = reader = RowReader(config)
        ending = Signal(Bank.LATENCY + 1)
        m.d.sync += ending.eq(Cat(pending[-1] & what_late.out, ending))
        m.d.comb += [
            reader.begun.eq(fire & aligned.out), reader.info.columns.eq(aligned.columns),
            reader.info.last_row.eq(aligned.last_row), reader.info.turn.eq(aligned.turn),
            reader.finished.eq(ending[-1]), reader.hold.eq(writing.any()),
            self.rows.valid.eq(reader.valid), reader.ready.eq(self.rows.ready),
            self.rows.p.token.eq(reader.token), self.rows.p.last_token.eq(reader.last_token),
            self.rows.p.last_row.eq(reader.last_row)]
        m.d.sync += places.eq(places + reader.freed - (fire & aligned.out))

        all_candidates = planes.candidates
        if products.staggered(platform):
            size = 8 * half_columns(config)
            all_candidates = [
                Cat(delay(m, borrow(half.word_select(k, size)),
                          products.link(config, k // CHOICES * PAIR))
                    for k in range(len(half) // size)) for half in planes.candidates]
        lanes = []
        for first in range(0, config.channels, GROUP):
            name = f"group_{first // GROUP}"
            candidates = [
                Signal(half_bits(config), name=f"{name}_candidates_{half}", reset_less=True)
                for half in range(2)]
            group_how = Signal(combine(config), name=f"{name}_how", reset_less=True)
            group_what = Signal(what.shape(), name=f"{name}_what")
            group_valid = Signal(name=f"{name}_valid")
            m.d.sync += [
                copy.eq(value) for copy, value in zip(candidates, all_candidates, strict=True)]
            m.d.sync += [
                group_valid.eq(fire), group_how.eq(how_late), group_what.eq(what_late),
                group_what.valid.eq(pending[-1])]
            for channel in range(first, min(first + GROUP, config.channels)):
                m.submodules[f"lane_{channel}"] = lane = Leaf(Lane(config))
                lanes.append(lane)
                m.d.comb += [
                    lane.entries[0].eq(self.entries[channel][0]),
                    lane.entries[1].eq(self.entries[channel][1]), lane.swap.eq(self.swap[channel]),
                    lane.valid.eq(group_valid), lane.pair.eq(aligned.pair),
                    lane.upper.eq(aligned.upper),
                    lane.hold.eq(writing[channel] & ~self.write[channel].ready),
                    lane.merge_all.eq(fresh.lanes[channel]), lane.merge_bytes.eq(fresh.bytes),
                    lane.fresh_k.eq(fresh.k[channel % config.tokens]),
                    lane.fresh_v.eq(fresh.v[channel]),
                    self.write[channel].p.data.eq(lane.merged),
                    lane.candidates[0].eq(candidates[0]), lane.candidates[1].eq(candidates[1]),
                    lane.combine.eq(group_how), lane.control.eq(group_what),
                    lane.read_en.eq(reader.read_en), lane.read_slot.eq(reader.read_slot),
                    lane.token.eq(reader.token)]
        # Rows of K go on in the order of positions.
        back = (-reader.turn)[:len(reader.turn)]
        m.d.comb += [
            sums.eq(result) for sums, result in zip(
                self.rows.p.acc, turned([lane.result for lane in lanes], back, config.tokens),
                strict=True)]
        return m
