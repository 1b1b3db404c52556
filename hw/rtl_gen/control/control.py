# SPDX-License-Identifier: Apache-2.0
"""Everything of a card that is neither memory nor arithmetic."""

from amaranth import Module, Mux, ResetInserter, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..common import Queue, axi, layouts, tree_sum
from ..spec import contract
from ..spec.config import CardConfig
from ..spec.registers import STATUS, STATUS_MAGIC, Error, Sticky
from .command import Command
from .dispatch import Dispatch, queues, reporters
from .packer import WORD, Packer
from .performance import NAMES, Performance, events
from .port import SystemPort
from .queues import Queues
from .registers import ADDRESS_BITS, Registers
from .ring import Ring
from .ring import port as link_port
from .supervisor import Supervisor

#: What the messages of a card in a ring do: one had not the length that its RECEIVE says, and from
#: which side it came; the next beat of one has not come; a beat moves.
MESSAGES = data.StructLayout({"wrong": 1, "side": 1, "waits": 1, "moves": 1})
#: Cycles without a write under way after which all are taken to be in memory: longer than a beat
#: takes from a unit to its channel.
SETTLE = 8


class Control(wiring.Component):
    """Registers, commands, dispatch, queues, counters, errors.

    Parameters
    ----------
    config : CardConfig
    commit : int
        32 bits that name the source the card was built from.

    Members
    -------
    bus : AXI4-Lite slave
        The control port.
    interrupt : ``Out(1)``
    axi : AXI4 master
        Into channel 0, shared with the channel (``card.SharedPort``).
    system_reads : ``Out(1)``
        Reads of channel 0 are control's.
    base : ``Out(ArrayLayout(64, channels))``
        Byte address of each channel.
    jobs : array of ``Out(stream.Signature(layouts.JOB))``
        To the units, in the order of ``queues(config)``.
    done : ``In(ArrayLayout(layouts.DONE, len(reporters(config))))``
        Their reports.
    stream : ``Out(stream.Signature(layouts.stream_job))``
        What all channels are to read, in program order.
    owner : ``Out(stream.Signature(1))``
        Whose the next constants are (``Owner``), in program order.
    sampled : ``In({valid: 1, token: 20})``, record : ``In(stream.Signature(WORD))``
        From the sampler.
    reading, writing : ``In(1)``
        Some channel has reads, or writes, under way.
    read_error, write_error : ``In(1)``
        Some channel had an error answer; until it is reset.
    flush : ``Out(1)``
        It waits until all is written.
    abort : ``Out(1)``
        Channels ask for no more, and swallow what comes.
    reset_units : ``Out(1)``
        Resets everything but control.
    events : ``In(events(config))``
    nonfinite, out_of_range : ``In(1)``
        Sticky bits to set.
    links : array of 2 :func:`ring.port`
        Of a card in a ring: the links to its neighbours, but for their streams.
    messages : ``In(MESSAGES)``
        Of a card in a ring: what its messages do.
    """

    def __init__(self, config: CardConfig, *, commit: int):
        self.config, self.commit = config, commit
        #: The parts that benches and the pin `events` look into.
        self.dispatch, self.queues = Dispatch(config), Queues(config)
        reports = len(reporters(config))
        self.supervisor = Supervisor(reports, ring=config.cards > 1)
        ring = {"links": Out(link_port()).array(2), "messages": In(MESSAGES)}
        super().__init__({
            "bus": In(axi.lite(ADDRESS_BITS)), "interrupt": Out(1),
            "axi": Out(axi.full(config.beat_bytes)), "system_reads": Out(1),
            "base": Out(data.ArrayLayout(unsigned(64), config.channels)),
            "jobs": Out(stream.Signature(layouts.JOB)).array(len(queues(config))),
            "done": In(data.ArrayLayout(layouts.DONE, reports)),
            "stream": Out(stream.Signature(layouts.stream_job(config))),
            "owner": Out(stream.Signature(1)),
            "sampled": In(data.StructLayout({"valid": 1, "token": 20})),
            "record": In(stream.Signature(WORD)),
            "reading": In(1), "writing": In(1), "read_error": In(1), "write_error": In(1),
            "flush": Out(1), "abort": Out(1), "reset_units": Out(1),
            "events": In(events(config)), "nonfinite": In(1), "out_of_range": In(1),
            **(ring if config.cards > 1 else {})})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.registers = registers = Registers(config)
        m.submodules.port = port = SystemPort(config)
        m.submodules.command = command = Command(config)
        m.submodules.dispatch = dispatch = self.dispatch
        m.submodules.supervisor = supervisor = self.supervisor
        m.submodules.performance = performance = Performance(config)
        # What holds instructions under way begins anew with every command and after errors.
        anew = Signal()
        again = ResetInserter(anew)
        queues, packer, places = self.queues, Packer(config), Queue(32, depth=config.queue_depth)
        streams = Queue(layouts.stream_job(config), depth=config.queue_depth)
        owners = Queue(1, depth=2 * config.queue_depth)
        m.submodules.queues, m.submodules.packer = again(queues), again(packer)
        m.submodules.places, m.submodules.streams = again(places), again(streams)
        m.submodules.owners = again(owners)
        m.d.comb += [anew.eq(supervisor.reset_units | registers.start),
                     self.abort.eq(supervisor.abort),
                     self.flush.eq(dispatch.waits | supervisor.abort),
                     self.reset_units.eq(supervisor.reset_units)]

        connect(m, flipped(self.bus), registers.bus)
        connect(m, port.axi, flipped(self.axi))
        connect(m, command.read, port.read)
        connect(m, port.words, command.words)
        m.d.comb += [
            self.interrupt.eq(registers.interrupt), self.base.eq(registers.base),
            self.system_reads.eq(port.reading),
            command.record.eq(registers.command), command.base.eq(registers.base[0])]

        # Command and dispatch.
        for name in ("program", "token", "preset", "instructions", "entry", "given", "results",
                     "result_beats", "stops"):
            m.d.comb += getattr(dispatch, name).eq(getattr(command, name))
        m.d.comb += [
            command.start.eq(supervisor.load), dispatch.start.eq(supervisor.run),
            dispatch.stop.eq(supervisor.stop),
            dispatch.look.eq(supervisor.look), dispatch.look_pc.eq(supervisor.look_pc)]
        sampled = Signal(20)
        m.d.comb += dispatch.sampled.eq(sampled)
        with m.If(self.sampled.valid):
            m.d.sync += sampled.eq(self.sampled.token)
        with m.If(registers.start):
            m.d.sync += sampled.eq(0)

        # Dispatch and queues.
        for k in range(len(self.jobs)):
            connect(m, dispatch.jobs[k], queues.i[k])
            connect(m, queues.o[k], flipped(self.jobs[k]))
        connect(m, dispatch.stream, streams.i)
        connect(m, streams.o, flipped(self.stream))
        connect(m, dispatch.owner, owners.i)
        connect(m, owners.o, flipped(self.owner))
        m.d.comb += [
            queues.clear.eq(supervisor.run), queues.here.eq(dispatch.done),
            queues.done.eq(self.done), queues.request.eq(dispatch.request),
            queues.wait.eq(dispatch.wait), dispatch.grant.eq(queues.grant),
            queues.issue.eq(dispatch.issue), queues.issued.eq(dispatch.issued),
            dispatch.room.eq(queues.room)]

        # Records out.
        connect(m, dispatch.record, places.i)
        for into, results, status in (
                (packer.address, places.o, supervisor.address),
                (packer.i, self.record, supervisor.record)):
            m.d.comb += [
                into.payload.eq(Mux(supervisor.reporting, status.payload, results.payload)),
                into.valid.eq(Mux(supervisor.reporting, status.valid, results.valid)),
                status.ready.eq(into.ready & supervisor.reporting),
                results.ready.eq(into.ready & ~supervisor.reporting)]
        m.d.comb += [
            port.write.valid.eq(packer.o.valid), packer.o.ready.eq(port.write.ready),
            port.write.p.data.eq(packer.o.p.data),
            port.write.p.address.eq(registers.base[0] + packer.o.p.address * config.beat_bytes)]

        # What is still to happen.
        outstanding, under_way = Signal(), Signal()
        settled, settled_drain = Signal(range(SETTLE + 1)), Signal(range(SETTLE + 1))
        m.d.comb += outstanding.eq(self.writing | packer.busy | port.writing)
        unfinished = outstanding | queues.busy.any() | under_way
        for count, again_when in ((settled, outstanding | queues.writes),
                                  (settled_drain, unfinished)):
            with m.If(again_when | dispatch.issued.any()):
                m.d.sync += count.eq(0)
            with m.Elif(count != SETTLE):
                m.d.sync += count.eq(count + 1)
        m.d.comb += [dispatch.written.eq(settled == SETTLE),
                     dispatch.drained.eq(settled_drain == SETTLE)]

        # Errors.
        read_error, write_error = Signal(), Signal()
        with m.If(registers.start):
            m.d.sync += [read_error.eq(0), write_error.eq(0)]
        with m.If(port.read_error):
            m.d.sync += read_error.eq(1)
        with m.If(port.write_error):
            m.d.sync += write_error.eq(1)
        sticky = Signal(2)
        with m.If(registers.start):
            m.d.sync += sticky.eq(0)
        with m.Elif(supervisor.running):
            m.d.sync += sticky.eq(sticky | Mux(self.nonfinite, Sticky.NONFINITE, 0)
                                  | Mux(self.out_of_range, Sticky.RANGE, 0))
        m.d.comb += [
            supervisor.start.eq(registers.start), registers.finish.eq(supervisor.finish),
            supervisor.idle.eq(command.idle), supervisor.ready.eq(command.ready),
            supervisor.refused.eq(command.refused), command.error.eq(read_error),
            supervisor.halted.eq(dispatch.halted), supervisor.fault.eq(dispatch.fault),
            supervisor.pc.eq(dispatch.pc), supervisor.watchdog.eq(command.watchdog),
            supervisor.read_error.eq(self.read_error | read_error),
            supervisor.write_error.eq(self.write_error | write_error),
            supervisor.quiet.eq(~self.reading & ~self.writing & ~port.reading & ~port.writing),
            supervisor.busy.eq(queues.busy), supervisor.oldest.eq(queues.oldest),
            supervisor.sequence.eq(dispatch.issue.sequence),
            supervisor.place.eq(command.status), supervisor.written.eq(~outstanding)]
        reports = Signal(4)
        m.d.comb += reports.eq(tree_sum(
            [dispatch.done.valid, *(done.valid for done in self.done)]))
        moves = Signal()
        m.d.sync += supervisor.progress.eq(
            moves | dispatch.issued.any() | queues.started | reports.any()
            | self.events.read_beats.any() | self.events.write_beats.any()
            | self.events.entries.any()
            | (port.words.valid & port.words.ready) | (packer.i.valid & packer.i.ready))

        m.d.comb += [
            performance.clear.eq(registers.start), performance.enable.eq(supervisor.running),
            performance.events.eq(self.events), performance.retired.eq(reports),
            performance.held.eq(queues.held[1]), performance.empty.eq(queues.empty[1]),
            performance.retract.eq(dispatch.fault.valid
                                   & (dispatch.fault.code == Error.COUNTER_OVERFLOW))]
        words = {}
        if config.cards > 1:
            m.submodules.ring = ring = Ring(config)
            for inner, outer in zip(ring.links, self.links, strict=True):
                connect(m, inner, flipped(outer))
            m.d.comb += [
                ring.clear.eq(registers.start), ring.begin.eq(supervisor.run),
                ring.word.eq(command.ring), ring.running.eq(supervisor.running),
                ring.error.eq(supervisor.error), ring.message.valid.eq(self.messages.wrong),
                ring.message.side.eq(self.messages.side), supervisor.link_error.eq(ring.failed),
                under_way.eq(~ring.idle), moves.eq(self.messages.moves),
                performance.waits_link.eq(self.messages.waits)]
            words = {name: ring.status[name] for name, _ in ring.status.shape()}
        self._status(m, registers, dispatch, supervisor, performance, sticky, words)
        return m

    def _status(self, m, registers, dispatch, supervisor, performance, sticky, words):
        """The words of the status record, as they are now."""
        # The word of an error is looked up once; until the next command it stays.
        shown = Signal()
        with m.If(registers.start):
            m.d.sync += shown.eq(0)
        with m.If(supervisor.look):
            m.d.sync += shown.eq(1)
        shows = shown & (supervisor.error != Error.NONE)
        words |= {
            "magic": STATUS_MAGIC, "contract": contract.DIGEST,
            "configuration": self.config.digest, "commit": self.commit,
            "error": supervisor.error, "pc": supervisor.error_pc,
            "steps": dispatch.step, "sticky": sticky}
        words |= {f"word{k}": Mux(shows, dispatch.word[32 * k:32 * k + 32], 0) for k in range(8)}
        for name, count in zip(NAMES, performance.counts, strict=True):
            words |= {f"{name}_low": count[:32], f"{name}_high": count[32:]}
        m.d.comb += [registers.status[k].eq(words.get(name, 0)) for k, name in enumerate(STATUS)]
        m.d.comb += [registers.index.eq(supervisor.index), supervisor.held.eq(registers.held)]
        with m.If(~registers.held):
            m.d.sync += supervisor.word.eq(registers.word)
