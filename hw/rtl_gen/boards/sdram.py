# SPDX-License-Identifier: Apache-2.0
"""SDR SDRAM: the chip, and a controller that moves whole beats."""

import dataclasses
import math

from amaranth import Array, Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """A chip of 16 bits with four banks; times in ns, the slower of what the data sheets of the
    chips say that the board is sold with (AS4C16M16SA-7, MT48LC16M16A2-75, W9825G6KH-6, each with a
    CAS latency of 2)."""

    row_bits: int = 13
    column_bits: int = 9
    #: Cycles from READ to its data.
    cas: int = 2
    #: ACTIVATE to READ or WRITE, PRECHARGE to ACTIVATE, ACTIVATE to ACTIVATE of one bank.
    rcd: float = 21
    rp: float = 21
    rc: float = 70
    #: ACTIVATE to PRECHARGE, and to ACTIVATE of another bank.
    ras: float = 45
    rrd: float = 15
    #: The last word written to PRECHARGE; REFRESH to anything.
    wr: float = 15
    rfc: float = 70
    #: Cycles from a mode register set to anything.
    mrd: int = 2
    #: Every row is refreshed in so many ns.
    retention: float = 64e6
    #: Before the first command.
    power_up: float = 200e3

    #: Bits and bytes of a word, and bank bits.
    BITS = 16
    BYTES = 2
    BANK_BITS = 2

    @property
    def bytes(self) -> int:
        """Size of the chip."""
        return self.BYTES << self.row_bits + self.column_bits + self.BANK_BITS

    @property
    def refresh(self) -> float:
        """ns between refreshes, on average."""
        return self.retention / (1 << self.row_bits)


class Command:
    """What the pins (ras_n, cas_n, we_n) say, that of ras_n the highest bit."""

    NOP, ACTIVATE, READ, WRITE, PRECHARGE, REFRESH, MODE = (
        0b111, 0b011, 0b101, 0b100, 0b010, 0b001, 0b000)


#: Address bit that lets PRECHARGE close all banks.
ALL_BANKS = 10


def pins(chip: Chip) -> wiring.Signature:
    """The chip's pins as the controller drives them, all registered, but for the clock.  The board
    clocks the chip half a cycle later, at the falling edge."""
    return wiring.Signature({
        "cke": Out(1), "cs_n": Out(1), "ras_n": Out(1), "cas_n": Out(1), "we_n": Out(1),
        "ba": Out(Chip.BANK_BITS), "a": Out(chip.row_bits), "dqm": Out(Chip.BYTES),
        "dq_o": Out(Chip.BITS), "dq_oe": Out(1), "dq_i": In(Chip.BITS)})


class Sdram(wiring.Component):
    """Reads and writes beats, one after another, with rows left open in all four banks.

    The highest address bit chooses between banks 0, 1 and banks 2, 3: two streams through the two
    halves of the chip meet in no bank.  A beat's bank and row lie above its column, so that beats
    that follow each other need a new row only once in 2^column_bits words.

    Parameters
    ----------
    chip : Chip
    clock_hz : float
    beat_bytes : int
        A power of two.
    power_up : float, optional
        ns before the first command, if not those of the chip: simulations need not wait.

    Members
    -------
    i : ``In(stream({address, write, data}))``
        A beat, by its number.
    o : ``Out({valid, data})``
        Beats read, in the order in which they were asked for; they are never held up.
    pins : see :func:`pins`
    """

    def __init__(self, chip: Chip, *, clock_hz: float, beat_bytes: int,
                 power_up: float | None = None) -> None:
        self.words = beat_bytes // Chip.BYTES
        if self.words < 2 or self.words & self.words - 1 or self.words > 1 << chip.column_bits:
            raise ValueError(f"beat_bytes must be a power of two in 4..{2 << chip.column_bits}, "
                             f"not {beat_bytes}")
        self.chip, self.clock_hz, self.beat_bytes = chip, clock_hz, beat_bytes
        self.power_up = chip.power_up if power_up is None else power_up
        self.interval = math.floor(chip.refresh * clock_hz / 1e9)
        if self.interval < 64:
            raise ValueError(f"clock_hz must leave 64 cycles between refreshes "
                             f"({chip.refresh:g} ns), not be {clock_hz:g}")
        self.address_bits = (chip.bytes // beat_bytes - 1).bit_length()
        super().__init__({
            "i": In(stream.Signature(self.request(self.address_bits, beat_bytes))),
            "o": Out(data.StructLayout({"valid": 1, "data": 8 * beat_bytes})),
            "pins": Out(pins(chip))})

    @staticmethod
    def request(address_bits: int, beat_bytes: int) -> data.StructLayout:
        """A beat to be read or written."""
        return data.StructLayout({
            "address": address_bits, "write": 1, "data": 8 * beat_bytes})

    def cycles(self, nanoseconds: float) -> int:
        """Clock cycles that last at least so long."""
        return math.ceil(nanoseconds * self.clock_hz / 1e9 - 1e-6)

    def elaborate(self, platform):
        m = Module()
        chip, pins = self.chip, self.pins

        # What goes to the pins with the next clock edge.
        command, bank, address = Signal(3), Signal(Chip.BANK_BITS), Signal(chip.row_bits)
        powered = Signal()
        m.d.comb += command.eq(Command.NOP)
        m.d.sync += [
            Cat(pins.we_n, pins.cas_n, pins.ras_n).eq(command), pins.ba.eq(bank),
            pins.a.eq(address), pins.cke.eq(1), pins.cs_n.eq(0), pins.dqm.eq(~powered.replicate(2))]

        # Times that have to pass: before any command, before a bank is closed.
        pause = Signal(range(max(
            self.cycles(time) for time in (chip.rcd, chip.rrd, chip.rp, chip.rfc)) + chip.mrd))
        opened = Signal(range(self.cycles(max(chip.ras, chip.rc - chip.rp)) + 1))
        wrote = Signal(range(self.cycles(chip.wr) + 1))
        for timer in (pause, opened, wrote):
            with m.If(timer != 0):
                m.d.sync += timer.eq(timer - 1)

        # A refresh falls due in every interval, and waits for the beat under way.
        elapsed, due, refreshed = Signal(range(self.interval)), Signal(2), Signal()
        interval_ends = Signal()
        m.d.comb += interval_ends.eq(elapsed == self.interval - 1)
        with m.If(powered):
            m.d.sync += [elapsed.eq(Mux(interval_ends, 0, elapsed + 1)),
                         due.eq(due + interval_ends - refreshed)]

        # Power-up: wait, close all banks, refresh eight times, set the mode.
        wait = self.cycles(self.power_up)
        counted, step = Signal(range(wait + 1)), Signal(range(11))
        mode = chip.cas << 4 | 1 << 9       # bursts of one word, read and written
        rows_open = Signal(1 << Chip.BANK_BITS)
        with m.If(~powered):
            with m.If(counted != wait):
                m.d.sync += counted.eq(counted + 1)
            with m.Elif(pause == 0):
                m.d.sync += step.eq(step + 1)
                with m.Switch(step):
                    with m.Case(0):
                        self._close_all(m, command, address, pause)
                    with m.Case(9):
                        m.d.comb += [command.eq(Command.MODE), address.eq(mode)]
                        m.d.sync += pause.eq(chip.mrd)
                    with m.Case(10):
                        m.d.sync += powered.eq(1)
                    with m.Default():
                        m.d.comb += command.eq(Command.REFRESH)
                        m.d.sync += pause.eq(self.cycles(chip.rfc) - 1)

        # The beat under way, and where it lies.
        here, beat = Signal(), Signal(self.i.payload.shape(), reset_less=True)
        word = Signal(range(self.words))
        start = Cat(Const(0, (self.words - 1).bit_length()), beat.address)
        column_bits, row_bits = chip.column_bits, chip.row_bits
        column, low, row, high = (
            start[:column_bits], start[column_bits], start[column_bits + 1:][:row_bits], start[-1])
        place = Cat(low, high)
        rows = Array(Signal(row_bits, name=f"row_{k}") for k in range(1 << Chip.BANK_BITS))
        last, moves = Signal(), Signal()
        m.d.comb += [last.eq(word == self.words - 1),
                     self.i.ready.eq(powered & (~here | (moves & last)))]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [here.eq(1), beat.eq(self.i.payload)]
        with m.Elif(moves & last):
            m.d.sync += here.eq(0)

        # Words read are under way: which cycles bring one.
        flight = Signal(chip.cas + 1)
        reads = Signal()
        m.d.sync += flight.eq(Cat(reads, flight))

        m.d.sync += pins.dq_oe.eq(0)
        with m.If(powered & (pause == 0)):
            with m.If((due != 0) & (word == 0)):
                with m.If(rows_open.any()):
                    with m.If((opened == 0) & (wrote == 0)):
                        self._close_all(m, command, address, pause)
                        m.d.sync += rows_open.eq(0)
                with m.Else():
                    m.d.comb += [command.eq(Command.REFRESH), refreshed.eq(1)]
                    m.d.sync += pause.eq(self.cycles(chip.rfc) - 1)
            with m.Elif(here):
                m.d.comb += bank.eq(place)
                with m.If(~rows_open.bit_select(place, 1)):
                    m.d.comb += [command.eq(Command.ACTIVATE), address.eq(row)]
                    m.d.sync += [
                        rows_open.bit_select(place, 1).eq(1), rows[place].eq(row),
                        pause.eq(max(self.cycles(chip.rcd), self.cycles(chip.rrd)) - 1),
                        opened.eq(self.cycles(max(chip.ras, chip.rc - chip.rp)) - 1)]
                with m.Elif(rows[place] != row):
                    with m.If((opened == 0) & (wrote == 0)):
                        m.d.comb += command.eq(Command.PRECHARGE)
                        m.d.sync += [rows_open.bit_select(place, 1).eq(0),
                                     pause.eq(self.cycles(chip.rp) - 1)]
                # The chip drives the data pins half a cycle beyond the one that takes its word.
                with m.Elif(~beat.write | (flight[:-1] == 0)):
                    m.d.comb += [
                        moves.eq(1), reads.eq(~beat.write), address.eq(column | word),
                        command.eq(Mux(beat.write, Command.WRITE, Command.READ))]
                    m.d.sync += [word.eq(word + 1), pins.dq_oe.eq(beat.write),
                                 pins.dq_o.eq(beat.data.word_select(word, Chip.BITS))]
                    with m.If(beat.write):
                        m.d.sync += wrote.eq(self.cycles(chip.wr) - 1)

        # Words that come in, through a register at the pins.
        sample = Signal(Chip.BITS, reset_less=True)
        came, number = Signal(), Signal(range(self.words))
        gathered = Signal(unsigned(8 * self.beat_bytes), reset_less=True)
        m.d.comb += [came.eq(flight[-1]), self.o.data.eq(gathered)]
        m.d.sync += [sample.eq(pins.dq_i), self.o.valid.eq(came & (number == self.words - 1))]
        with m.If(came):
            m.d.sync += [number.eq(number + 1), gathered.eq(Cat(gathered[Chip.BITS:], sample))]
        return m

    def _close_all(self, m, command, address, pause):
        m.d.comb += [command.eq(Command.PRECHARGE), address[ALL_BANKS].eq(1)]
        m.d.sync += pause.eq(self.cycles(self.chip.rp) - 1)
