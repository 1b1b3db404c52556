# SPDX-License-Identifier: Apache-2.0
"""The compiled cards as Python calls them; used inside the child process only."""

import ctypes
import pathlib
from collections.abc import Iterable, Iterator

from rtl_gen.spec import registers
from rtl_gen.spec.config import CardConfig

from .timing import LinkTiming, Timing

#: How a run ended, by the number that the library returns.
ENDS = ("done", "limit", "violation", "finished")


class Model:
    """The Verilated cards of a ring, or one alone, with their HBM and links.

    All go on together: a call to one of them takes cycles of all.

    Parameters
    ----------
    library : pathlib.Path
        From :func:`cardsim.rtl.build.library`.
    config : CardConfig
    timing : Timing
        Of the HBM model.
    link : LinkTiming, optional
        Of the links.
    threads : int
        On which cards are simulated.
    """

    def __init__(self, library: pathlib.Path, config: CardConfig, timing: Timing,
                 link: LinkTiming | None = None, threads: int = 1) -> None:
        self.config, link = config, link or LinkTiming()
        lib = self._lib = ctypes.CDLL(str(library))
        lib.heddle_open.argtypes = [ctypes.c_uint64, ctypes.c_void_p, ctypes.c_double,
                                    ctypes.c_uint32, ctypes.c_uint32]
        lib.heddle_cut.argtypes = [ctypes.c_int, ctypes.c_uint64]
        lib.heddle_start.argtypes = [ctypes.c_uint32] * 3
        lib.heddle_interrupted.restype = ctypes.c_uint32
        lib.heddle_hbm_open.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_uint32]
        for name in ("heddle_hbm_write", "heddle_hbm_read"):
            getattr(lib, name).argtypes = [
                ctypes.c_int, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint64]
        lib.heddle_hbm_violation.restype = ctypes.c_char_p
        lib.heddle_cycles.restype = ctypes.c_uint64
        lib.heddle_run.argtypes = [ctypes.c_uint64, ctypes.c_uint32]
        lib.heddle_control_read.argtypes = [ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)]
        lib.heddle_control_write.argtypes = [ctypes.c_uint32, ctypes.c_uint32]
        lib.heddle_events_record.argtypes = [ctypes.c_uint64, ctypes.c_uint32]
        lib.heddle_events_size.restype = ctypes.c_uint64
        lib.heddle_events_data.restype = ctypes.c_void_p
        lib.heddle_trace.argtypes = [ctypes.c_char_p]
        lib.heddle_hbm_timing(ctypes.byref(timing.structure(config)))
        for card in range(config.cards):
            self._select(card)
            for channel in range(config.channels):
                lib.heddle_hbm_open(channel, config.channel_bytes, config.beat_bytes)
        lib.heddle_open(timing.seed, ctypes.byref(link.structure()), timing.clock(config),
                        config.beat_bytes, threads)
        if link.cut is not None:
            lib.heddle_cut(*link.cut)
        for card in range(config.cards):
            self.reset(card)

    def _select(self, card: int) -> None:
        self._lib.heddle_select(card)

    def reset(self, card: int = 0) -> None:
        """Reset a card and tell it where its channels lie; memory stays."""
        self._select(card)
        self._lib.heddle_reset()
        for channel in range(self.config.channels):
            base = channel * self.config.channel_bytes
            at = registers.CHANNEL_BASE + 8 * channel
            self.control_write(at, base & 0xFFFFFFFF, card)
            self.control_write(at + 4, base >> 32, card)
        self.control_write(registers.CONTROL["gie"], 1, card)
        self.control_write(registers.CONTROL["ier"], 1, card)

    def memory_write(self, address: int, data: bytes, card: int = 0) -> None:
        """Write through the back door, over channel ends if need be."""
        self._select(card)
        for channel, offset, start, size in self._pieces(address, len(data)):
            self._lib.heddle_hbm_write(channel, offset, data[start:start + size], size)

    def memory_read(self, address: int, size: int, card: int = 0) -> bytes:
        """Read through the back door."""
        self._select(card)
        parts = []
        for channel, offset, _, length in self._pieces(address, size):
            buffer = ctypes.create_string_buffer(length)
            self._lib.heddle_hbm_read(channel, offset, buffer, length)
            parts.append(buffer.raw)
        return b"".join(parts)

    def _pieces(self, address: int, size: int) -> Iterator[tuple[int, int, int, int]]:
        """(channel, offset in it, offset in the data, bytes) of a host address range."""
        total = self.config.channels * self.config.channel_bytes
        if address < 0 or address + size > total:
            raise ValueError(f"host addresses must be below {total:#x}, not "
                             f"{address:#x}..{address + size:#x}")
        done = 0
        while done < size:
            channel, offset = divmod(address + done, self.config.channel_bytes)
            length = min(size - done, self.config.channel_bytes - offset)
            yield channel, offset, done, length
            done += length

    def control_write(self, address: int, data: int, card: int = 0) -> None:
        """Write a register through the control port."""
        self._select(card)
        if result := self._lib.heddle_control_write(address, data):
            raise RuntimeError(f"the control port {_ANSWER[result]} to a write at {address:#x}")

    def control_read(self, address: int, card: int = 0) -> int:
        """Read a register through the control port."""
        self._select(card)
        value = ctypes.c_uint32()
        if result := self._lib.heddle_control_read(address, ctypes.byref(value)):
            raise RuntimeError(f"the control port {_ANSWER[result]} to a read at {address:#x}")
        return value.value

    def start(self, command_address: int) -> None:
        """Start the command, of the only card, whose record lies at that byte address of channel 0."""
        self.start_all({0: command_address})

    def start_all(self, commands: dict[int, int]) -> None:
        """Start commands, by card, in the same cycle."""
        for card, address in commands.items():
            self.control_write(registers.CONTROL["command_low"], address & 0xFFFFFFFF, card)
            self.control_write(registers.CONTROL["command_high"], address >> 32, card)
        if self.config.cards == 1:
            self.control_write(registers.CONTROL["ap_ctrl"], 1)
        else:
            self._lib.heddle_start(_mask(commands), registers.CONTROL["ap_ctrl"], 1)

    def clock(self, cycles: int, cards: Iterable[int] = (0,)) -> str:
        """Clock until the interrupts of these cards, for at most ``cycles``; one of :data:`ENDS`."""
        return ENDS[self._lib.heddle_run(cycles, _mask(cards))]

    @property
    def interrupted(self) -> set[int]:
        """Cards of a ring that have ended what they were started with."""
        mask = self._lib.heddle_interrupted()
        return {card for card in range(self.config.cards) if mask >> card & 1}

    def acknowledge(self, card: int = 0) -> list[int]:
        """Take the interrupt back and read the status record through the control port."""
        if self.control_read(registers.CONTROL["isr"], card) & 1:
            self.control_write(registers.CONTROL["isr"], 1, card)   # writing 1 toggles
        self.control_read(registers.CONTROL["ap_ctrl"], card)
        return [self.control_read(registers.STATUS_BASE + 4 * k, card)
                for k in range(len(registers.STATUS))]

    @property
    def violation(self) -> str:
        """The first breach of the AXI protocol, or nothing."""
        return str(self._lib.heddle_hbm_violation().decode())

    @property
    def cycles(self) -> int:
        """Cycles since the start."""
        return int(self._lib.heddle_cycles())

    def record(self, cycles: int, card: int = 0) -> None:
        """Record the events of at most so many cycles from here on; 0: of none."""
        self._select(card)
        self._lib.heddle_events_record(cycles, self.config.channels)

    def events(self, card: int = 0) -> bytes:
        """What was recorded, as :func:`events.decode` takes it."""
        self._select(card)
        return ctypes.string_at(self._lib.heddle_events_data(), self._lib.heddle_events_size())

    def waves(self, path: str | None) -> bool:
        """Start recording to ``path``, or stop; False if the library cannot.

        Further cards of a ring are recorded beside it.
        """
        able = True
        for card in range(self.config.cards):
            self._select(card)
            name = path and (f"{path}.card{card}.vcd" if card else path)
            able &= bool(self._lib.heddle_trace(name.encode() if name else None))
        return able


def _mask(cards: Iterable[int]) -> int:
    return sum(1 << card for card in cards)


_ANSWER = {1: "answered with an error", 2: "did not answer"}
