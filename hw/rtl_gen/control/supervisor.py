# SPDX-License-Identifier: Apache-2.0
"""From start to done: load, run, watch, clear up after errors, report."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..spec.registers import STATUS, Error
from .flight import ISSUE
from .packer import WORD

#: Cycles without progress before a command is given up, unless its record says otherwise.
WATCHDOG = 100_000
#: Cycles for which all units are held in reset after an error.
RESET = 16


class Supervisor(wiring.Component):
    """The life of a command.

    Errors that dispatch finds are reported when everything before them has finished.  Errors of
    memory and of links, and silence, end the command at once: channels stop asking and swallow
    what was asked for, then all units are reset.  What does not come in the usual time is not
    waited for.

    Parameters
    ----------
    reporters : int
    ring : bool
        There are links.

    Members
    -------
    start : ``In(1)``, finish : ``Out(1)``
        Pulses, from and to ``Registers``.
    load, run, stop : ``Out(1)``
        Pulses, to ``Command`` and ``Dispatch``.
    idle, ready, refused : from ``Command``
    halted, fault, pc : from ``Dispatch``
    look, look_pc : to ``Dispatch``
        To have the word of an error; without it there is none.
    watchdog : ``In(32)``
        Cycles that the program may be silent; 0 for the usual.
    progress : ``In(1)``
        Something moved.
    read_error, write_error : ``In(1)``
        Levels, of the channels or of control's own port.
    link_error : ``In(1)``
        Level: a link to a neighbour has failed since ``run``.
    quiet : ``In(1)``
        Nothing is outstanding on any port.
    busy, oldest : ``In``
        From each ``Flight``.
    sequence : ``In(16)``
        Of the instruction that is dispatched next.
    abort, reset_units : ``Out(1)``
    address : ``Out(stream.Signature(32))``, record : ``Out(stream.Signature(WORD))``
        The status record, to a ``Packer``.
    place : ``In(32)``, word : ``In(32)``, index : ``Out``
        Beat address of the record; word number ``index`` of it, a cycle later.
    held : ``In(1)``
        Not a cycle later, as somebody else reads one.
    written : ``In(1)``
        The record is in memory.
    running : ``Out(1)``
        Counters count.
    reporting : ``Out(1)``
        The packer is for the status record.
    error : ``Out(8)``, error_pc : ``Out(32)``
        Of the last command.
    """

    def __init__(self, reporters: int, *, ring: bool = False):
        self.reporters, self.ring = reporters, ring
        super().__init__({
            "start": In(1), "finish": Out(1),
            "load": Out(1), "run": Out(1), "stop": Out(1),
            "idle": In(1), "ready": In(1), "refused": In(1),
            "halted": In(1), "fault": In(data.StructLayout({"valid": 1, "code": 8})), "pc": In(32),
            "look": Out(1), "look_pc": Out(32),
            "watchdog": In(32), "progress": In(1), "read_error": In(1), "write_error": In(1),
            "link_error": In(1),
            "quiet": In(1), "busy": In(reporters), "oldest": In(data.ArrayLayout(ISSUE, reporters)),
            "sequence": In(16),
            "abort": Out(1), "reset_units": Out(1),
            "address": Out(stream.Signature(32)), "record": Out(stream.Signature(WORD)),
            "place": In(32), "word": In(32), "index": Out(range(len(STATUS))), "held": In(1),
            "written": In(1),
            "running": Out(1), "reporting": Out(1), "error": Out(8), "error_pc": Out(32)})

    def elaborate(self, platform):
        m = Module()
        silence, limit = Signal(32), Signal(32)
        m.d.sync += silence.eq(silence + 1)
        timeout = Signal()
        # A command's own limit is for its program: memory alone gets the usual time.
        program = Signal()
        m.d.sync += [limit.eq(Mux(program & (self.watchdog != 0), self.watchdog, WATCHDOG)),
                     timeout.eq(silence >= limit)]

        def rest():
            """Start the time of silence again."""
            m.d.sync += [silence.eq(0), timeout.eq(0)]

        # The oldest of the unfinished instructions, looked for one reporter at a time.
        scan, age = Signal(range(self.reporters + 1)), Signal(16)
        head, head_age = Signal(ISSUE), Signal(16)
        m.d.comb += [head.eq(self.oldest[scan]), head_age.eq(self.sequence - head.sequence)]

        failed, second = self.read_error | self.write_error, Error.AXI_WRITE
        if self.ring:
            failed = failed | self.link_error
            second = Mux(self.write_error, Error.AXI_WRITE, Error.LINK)
        left = Signal(range(RESET))
        m.d.comb += [self.look_pc.eq(self.error_pc), self.address.payload.eq(self.place),
                     self.record.p.word.eq(self.word),
                     self.record.p.last.eq(self.index == len(STATUS) - 1)]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [self.error.eq(Error.NONE), self.error_pc.eq(0), self.running.eq(1)]
                    rest()
                    m.next = "START"
            with m.State("START"):
                m.d.comb += self.load.eq(self.idle)
                with m.If(self.idle):
                    m.next = "LOAD"
                with m.Elif(timeout):
                    m.d.sync += self.error.eq(Error.WATCHDOG)
                    m.next = "FINISH"
            with m.State("LOAD"):
                with m.If(self.progress):
                    rest()
                with m.If(self.refused):
                    m.d.sync += self.error.eq(Mux(
                        self.read_error, Error.AXI_READ, Error.BAD_COMMAND))
                    m.next = "FINISH"
                with m.Elif(self.ready & self.read_error):
                    m.d.sync += [self.error.eq(Error.AXI_READ), self.index.eq(0),
                                 self.running.eq(0)]
                    m.next = "READ"
                with m.Elif(self.ready):
                    m.d.comb += self.run.eq(1)
                    rest()
                    m.next = "RUN"
                with m.Elif(timeout):
                    m.d.sync += self.error.eq(Error.WATCHDOG)
                    m.next = "FINISH"
            with m.State("RUN"):
                m.d.comb += program.eq(1)
                with m.If(self.progress):
                    rest()
                m.d.sync += [self.error_pc.eq(self.pc), scan.eq(0), age.eq(0)]
                with m.If(failed):
                    m.d.sync += self.error.eq(Mux(self.read_error, Error.AXI_READ, second))
                    m.next = "BLAME"
                with m.Elif(self.halted):
                    m.next = "LOOK"
                with m.Elif(self.fault.valid):
                    m.d.sync += self.error.eq(self.fault.code)
                    m.next = "LOOK"
                with m.Elif(timeout):
                    m.d.sync += self.error.eq(Error.WATCHDOG)
                    m.next = "BLAME"
            with m.State("BLAME"):
                m.d.comb += [self.stop.eq(1), self.abort.eq(1)]
                rest()
                m.d.sync += scan.eq(scan + 1)
                with m.If(self.busy.bit_select(scan, 1) & (head_age > age)):
                    m.d.sync += [age.eq(head_age), self.error_pc.eq(head.pc)]
                with m.If(scan == self.reporters - 1):
                    m.next = "ABORT"
            with m.State("ABORT"):
                m.d.comb += self.abort.eq(1)
                m.d.sync += left.eq(RESET - 1)
                with m.If(self.quiet | timeout):
                    m.next = "RESET"
            with m.State("RESET"):
                m.d.comb += [self.abort.eq(1), self.reset_units.eq(1)]
                m.d.sync += left.eq(left - 1)
                with m.If(left == 0):
                    m.next = "LOOK"
            with m.State("LOOK"):
                m.d.comb += self.look.eq(1)
                m.d.sync += [self.index.eq(0), self.running.eq(0)]
                m.next = "READ"
            with m.State("READ"):
                rest()
                with m.If(~self.held):
                    m.next = "REPORT"
            with m.State("REPORT"):
                m.d.comb += [self.reporting.eq(1), self.record.valid.eq(1),
                             self.address.valid.eq(1)]
                with m.If(self.record.ready):
                    m.d.sync += self.index.eq(self.index + 1)
                    m.next = "READ"
                    with m.If(self.record.p.last):
                        m.next = "WRITTEN"
                with m.Elif(timeout):
                    m.next = "FINISH"
            with m.State("WRITTEN"):
                m.d.comb += self.reporting.eq(1)
                with m.If(self.written | timeout):
                    with m.If(self.write_error & (self.error == Error.NONE)):
                        m.d.sync += self.error.eq(Error.AXI_WRITE)
                    m.next = "FINISH"
            with m.State("FINISH"):
                m.d.comb += self.finish.eq(1)
                m.d.sync += self.running.eq(0)
                m.next = "IDLE"
        return m
