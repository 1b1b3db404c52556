# SPDX-License-Identifier: Apache-2.0
"""A whole card."""

from amaranth import Cat, DomainRenamer, Module, Signal
from amaranth.lib.wiring import connect, flipped

from ..common import layouts, tree_sum
from ..control import Control, Reporter, queues
from ..emit import Leaf
from ..link import Exchange, Link
from ..matmul import Engine
from ..matmul.epilogue import Epilogue
from ..matmul.probpath import ProbPath
from ..memory import Channel, ConstantsArbiter, MemoryUnit
from ..memory.turns import EPILOGUE, MEMORY
from ..sample import Sampler
from ..spec.config import CardConfig
from ..spec.isa import Queue
from ..spec.link import State
from ..vector import Scales, Scratchpad, Vector, scratchpad
from . import events
from .join import Fork, Join
from .shared import SharedPort
from .shell import CONTROL, SIDES, Shell, channel_prefix

#: Links of a card.  A frame is under way 108 cycles at 200 MHz (540 ns): acknowledgements come some
#: 250 cycles after the beat, so 256 beats would do; as block memory 512 cost the same.  A cut is
#: noticed after 4096 cycles (20 us), when 16 keepalives in a row have not come.
LINK = {"depth": 512, "frame_beats": 8, "timeout": 512, "keepalive": 256, "silence": 4096}


class Card(Shell):
    """Every unit, and what joins them.

    Parameters
    ----------
    config : CardConfig
    commit : int
        32 bits that name the source; the status record shows them.
    events : bool
        Has the pin ``events`` (``spec.events``), which a simulation records.
    """

    def __init__(self, config: CardConfig, *, commit: int, events: bool = False):
        self.commit = commit
        super().__init__(config, events=events)

    def elaborate(self, platform):
        m = Module()
        config = self.config
        control = Control(config, commit=self.commit)
        m.submodules.control = DomainRenamer("shell")(control)
        self.clock(m, control.reset_units)
        self.join(m, CONTROL, flipped(control.bus))
        m.d.comb += self.interrupt.eq(control.interrupt)

        m.submodules.memory = memory = MemoryUnit(config)
        m.submodules.engine = engine = Engine(config)
        m.submodules.epilogue = epilogue = Epilogue(config)
        m.submodules.probabilities = probabilities = ProbPath(config)
        m.submodules.vector = vector = Vector(config)
        m.submodules.sampler = sampler = Sampler(config)
        m.submodules.scratchpad = storage = Scratchpad(config)
        m.submodules.scales = scales = Scales(config)

        for queue, unit in ((Queue.MEMORY, memory), (Queue.MATMUL, engine), (Queue.VECTOR, vector)):
            connect(m, control.jobs[queues(config).index(queue)], unit.job)
        for reporter, unit in ((Reporter.MEMORY, memory), (Reporter.BANK, engine),
                               (Reporter.EPILOGUE, epilogue), (Reporter.SOFTMAX, probabilities),
                               (Reporter.VECTOR, vector)):
            m.d.comb += control.done[reporter].eq(unit.done)

        # Products.
        connect(m, engine.epilogue_job, epilogue.job)
        connect(m, engine.rows, epilogue.rows)
        connect(m, epilogue.prob_job, probabilities.job)
        connect(m, epilogue.scores, probabilities.scores)
        connect(m, probabilities.planes, engine.planes[0])
        connect(m, vector.plane, engine.planes[1])
        connect(m, vector.fresh, engine.fresh)
        m.d.comb += [
            epilogue.norms.eq(vector.norms), epilogue.results.eq(probabilities.results),
            epilogue.pending.eq(probabilities.pending)]

        # Storage.
        for number, port in (
                (scratchpad.EPILOGUE, epilogue.read), (scratchpad.OPERAND_A, vector.read[0]),
                (scratchpad.OPERAND_B, vector.read[1]), (scratchpad.STORE, memory.read),
                (scratchpad.SAMPLER, sampler.read)):
            connect(m, port, storage.read[number])
        for number, unit in ((scratchpad.FROM_EPILOGUE, epilogue), (scratchpad.FROM_LOAD, memory),
                             (scratchpad.FROM_VECTOR, vector)):
            connect(m, unit.write, storage.write[number])
        connect(m, epilogue.k_read, scales.k_read)
        connect(m, probabilities.v_read, scales.v_read)
        connect(m, memory.row_read, scales.row_read)
        connect(m, scales.row, memory.row)
        connect(m, memory.load, scales.load)
        connect(m, vector.scale, scales.cache)

        # Sampling.
        connect(m, vector.sample_job, sampler.job)
        connect(m, sampler.record, control.record)
        m.d.comb += [vector.sample_done.eq(sampler.done), control.sampled.eq(sampler.sampled)]

        nonfinite = Signal(4)
        m.d.sync += [
            nonfinite.eq(Cat(unit.nonfinite for unit in (
                epilogue, probabilities, vector, sampler))),
            control.nonfinite.eq(nonfinite.any()),
            control.out_of_range.eq(probabilities.range | vector.range)]
        m.d.comb += [
            control.events.entries.eq(engine.entries_used),
            control.events.wait_weights.eq(engine.wait_weights),
            control.events.wait_rows.eq(engine.wait_rows)]
        if self.has_events:
            m.d.comb += events.show(self.events, control, engine, epilogue)
        self._channels(m, control, memory, engine, epilogue)
        if config.cards > 1:
            self._ring(m, control, storage)
        return m

    def _ring(self, m, control, storage):
        """The links to both neighbours, which outlive a reset of the units, and the messages."""
        order = queues(self.config)
        m.submodules.exchange = exchange = Exchange(self.config)
        for k, side in enumerate(SIDES):
            connect(m, control.jobs[order.index(Queue[f"SEND_{side}".upper()])], exchange.send[k])
            connect(m, control.jobs[order.index(Queue[f"RECEIVE_{side}".upper()])],
                    exchange.receive[k])
        connect(m, exchange.read, storage.read[scratchpad.SEND])
        connect(m, exchange.write, storage.write[scratchpad.FROM_RECEIVE])
        m.d.comb += [
            *(control.done[one].eq(exchange.done[k]) for k, one in enumerate((
                Reporter.SEND_PREVIOUS, Reporter.SEND_NEXT,
                Reporter.RECEIVE_PREVIOUS, Reporter.RECEIVE_NEXT))),
            *(control.messages[name].eq(getattr(exchange, name))
              for name in ("wrong", "side", "waits", "moves"))]
        for k, side in enumerate(SIDES):
            link, port = Link(beat_bytes=self.config.beat_bytes, **LINK), control.links[k]
            m.submodules[f"link_{side}"] = DomainRenamer("shell")(link)
            self.join_link(m, side, link.tx, link.rx)
            connect(m, exchange.o[k], link.i)
            m.d.comb += [
                # What came in the session before is forgotten when the next one begins.
                exchange.i[k].payload.eq(link.o.payload),
                exchange.i[k].valid.eq(link.o.valid & (link.state != State.OFF)),
                link.o.ready.eq(exchange.i[k].ready),
                *(getattr(link, name).eq(getattr(port, name)) for name in ("start", "me", "stop")),
                *(getattr(port, name).eq(getattr(link, name)) for name in (
                    "state", "failure", "about", "idle", "counters"))]

    def _channels(self, m, control, memory, engine, epilogue):
        """The channels: their pins, streams, constants, writes and what they report."""
        config = self.config
        m.submodules.streams = streams = Fork(layouts.stream_job(config), ways=config.channels)
        connect(m, control.stream, streams.i)
        m.submodules.turns = turns = ConstantsArbiter(config)
        connect(m, control.owner, turns.owner)
        connect(m, memory.constants, turns.users[MEMORY])
        user = turns.users[EPILOGUE]
        m.d.comb += [
            epilogue.word_level.eq(user.level),
            user.take.eq(epilogue.word_take), user.skip.eq(epilogue.word_skip),
            user.release.eq(epilogue.word_skip)]
        shared = SharedPort(config)
        m.submodules.shared = DomainRenamer("shell")(shared)
        m.d.comb += shared.system_reads.eq(control.system_reads)
        connect(m, control.axi, shared.system)
        self.join(m, channel_prefix(0), shared.axi)

        drain = Signal()    # not `abort`: Verilator renames ports that C knows
        flush = Signal()
        m.d.sync += [drain.eq(control.abort), flush.eq(control.flush)]
        reports = {name: Signal(config.channels, name=name) for name in (
            "reading", "writing", "read_error", "write_error", "read_beat", "write_beat")}
        for k in range(config.channels):
            m.submodules[f"channel_{k}"] = channel = Leaf(Channel(config))
            if k == 0:
                connect(m, channel.component.axi, shared.channel)
            else:
                self.join(m, channel_prefix(k), channel.axi)
            m.submodules[f"writes_{k}"] = writes = Join(layouts.channel_write(config), ways=2)
            connect(m, engine.write[k], writes.i[0])
            connect(m, memory.beats[k], writes.i[1])
            connect(m, writes.o, channel.write)
            connect(m, streams.o[k], channel.job)
            m.d.comb += [
                channel.base.eq(control.base[k]), channel.drain.eq(drain),
                channel.flush.eq(flush),
                engine.entries[k][0].eq(channel.entries[0]),
                engine.entries[k][1].eq(channel.entries[1]),
                engine.swap[k].eq(channel.swap),
                engine.some[k].eq(channel.some), channel.take.eq(engine.take[k]),
                turns.level[k].eq(channel.word_level),
                channel.word_take.eq(turns.take), channel.word_skip.eq(turns.skip),
                memory.words[k].eq(channel.words[0]), epilogue.words[k].eq(channel.words)]
            m.d.comb += [bits[k].eq(getattr(channel, name)) for name, bits in reports.items()]
        # A write is under way from the moment when a unit offers it.
        offered = Cat(port.valid for port in (*engine.write, *memory.beats)).any()
        pending = Signal()
        m.d.sync += pending.eq(offered)
        # Registered: so many channels lie far apart.
        m.d.sync += [
            control.reading.eq(reports["reading"].any()),
            control.writing.eq(reports["writing"].any() | pending),
            control.read_error.eq(reports["read_error"].any()),
            control.write_error.eq(reports["write_error"].any()),
            control.events.read_beats.eq(tree_sum(reports["read_beat"])),
            control.events.write_beats.eq(tree_sum(reports["write_beat"]))]
