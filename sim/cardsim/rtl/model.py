# SPDX-License-Identifier: Apache-2.0
"""The compiled card as Python calls it; used inside the child process only."""

import ctypes
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rtl_gen.spec import registers
from rtl_gen.spec.config import CardConfig

from .timing import LinkTiming, Timing

#: How a run ended, by the number that the library returns.
ENDS = ("done", "limit", "violation", "finished")


class _Access(ctypes.Structure):
    """``heddle::Access`` of card.h."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("kind", "address", "data", "result")]


#: An access to the control port: kind, address, data.
Access = tuple[int, int, int]
_WRITE, _READ, _RESET = range(3)


def write(address: int, data: int) -> Access:
    """A write to a register, for :meth:`Model.control`."""
    return _WRITE, address, data


def read(address: int) -> Access:
    """A read of a register, for :meth:`Model.control`."""
    return _READ, address, 0


def wave_file(path: str, card: int, config: CardConfig) -> str:
    """Where the waveform of a card goes: of a ring, each has a file of its own."""
    whole = pathlib.Path(path)
    return path if config.cards == 1 else str(
        whole.with_name(f"{whole.stem}.card{card}{whole.suffix}"))


class Model:
    """The Verilated cards of a ring, or one card, with their HBM and links.

    Calls that mean one card take its number, 0 if there is but one.  All cards have one clock: to
    access the registers of one passes time on the others.

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
        That cards are simulated on; what happens does not depend on it.
    """

    def __init__(self, library: pathlib.Path, config: CardConfig, timing: Timing,
                 link: LinkTiming | None = None, threads: int = 1) -> None:
        self.config, link = config, link or LinkTiming()
        lib = self._lib = ctypes.CDLL(str(library))
        u32, u64 = ctypes.c_uint32, ctypes.c_uint64
        for name in ("heddle_hbm_write", "heddle_hbm_read"):
            getattr(lib, name).argtypes = [ctypes.c_int, ctypes.c_int, u64, ctypes.c_char_p, u64]
        for name in ("heddle_cycles", "heddle_ended_at", "heddle_events_size"):
            getattr(lib, name).restype = u64
        lib.heddle_hbm_open.argtypes = [ctypes.c_int, ctypes.c_int, u64, u32, ctypes.c_void_p]
        lib.heddle_open.argtypes = [u32, u64, ctypes.c_void_p, u32]
        lib.heddle_cut.argtypes = [u32, u32, u64]
        lib.heddle_begin.argtypes = [u32, ctypes.c_void_p, u64]
        lib.heddle_run.argtypes = [u64]
        lib.heddle_violation.restype = ctypes.c_char_p
        lib.heddle_events_record.argtypes = [u32, u64, u32]
        lib.heddle_events_data.restype = ctypes.c_void_p
        lib.heddle_trace.argtypes = [u32, ctypes.c_char_p]
        lib.heddle_hbm_open(config.cards, config.channels, config.channel_bytes, config.beat_bytes,
                            ctypes.byref(timing.structure(config)))
        lib.heddle_open(config.beat_bytes, timing.seed,
                        ctypes.byref(link.structure(timing.clock(config))), threads)
        for cut in link.cuts(config):
            lib.heddle_cut(*cut)
        self.reset(*range(config.cards))

    def reset(self, *cards: int) -> None:
        """Reset cards (the only one) and tell them where their channels lie; memory stays."""
        bases = [(registers.CHANNEL_BASE + 8 * channel, channel * self.config.channel_bytes)
                 for channel in range(self.config.channels)]
        script = [
            (_RESET, 0, 0),
            *(write(at + 4 * half, base >> 32 * half & 0xFFFFFFFF)
              for at, base in bases for half in range(2)),
            write(registers.CONTROL["gie"], 1), write(registers.CONTROL["ier"], 1)]
        self.control(dict.fromkeys(cards or (0,), script))

    def memory_write(self, address: int, data: bytes, card: int = 0) -> None:
        """Write through the back door, over channel ends if need be."""
        for channel, offset, start, size in self._pieces(address, len(data)):
            self._lib.heddle_hbm_write(card, channel, offset, data[start:start + size], size)

    def memory_read(self, address: int, size: int, card: int = 0) -> bytes:
        """Read through the back door."""
        parts = []
        for channel, offset, _, length in self._pieces(address, size):
            buffer = ctypes.create_string_buffer(length)
            self._lib.heddle_hbm_read(card, channel, offset, buffer, length)
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

    def control(self, scripts: Mapping[int, Sequence[Access]]) -> dict[int, list[int]]:
        """Carry out accesses to the control ports of cards, which all begin in one cycle.

        Returns
        -------
        dict
            Of every card, the words of its accesses, read or written.
        """
        made = {}
        for card, script in scripts.items():
            made[card] = (_Access * len(script))(*(_Access(*access) for access in script))
            self._lib.heddle_begin(card, made[card], len(script))
        self._lib.heddle_settle()
        for accesses in made.values():
            for access in accesses:
                if access.result:
                    kind = "read" if access.kind == _READ else "write"
                    raise RuntimeError(f"the control port {_ANSWER[access.result]} to a {kind} at "
                                       f"{access.address:#x}")
        return {card: [access.data for access in accesses] for card, accesses in made.items()}

    def control_write(self, address: int, data: int, card: int = 0) -> None:
        """Write a register through the control port."""
        self.control({card: [write(address, data)]})

    def control_read(self, address: int, card: int = 0) -> int:
        """Read a register through the control port."""
        return self.control({card: [read(address)]})[card][0]

    def start(self, command_address: int) -> None:
        """Start the command whose record lies at that byte address of channel 0."""
        self.start_all({0: command_address})

    def start_all(self, commands: Mapping[int, int]) -> None:
        """Start commands, by card, in one cycle."""
        self.control({card: [
            write(registers.CONTROL["command_low"], address & 0xFFFFFFFF),
            write(registers.CONTROL["command_high"], address >> 32),
            write(registers.CONTROL["ap_ctrl"], 1)] for card, address in commands.items()})

    def clock(self, cycles: int, cards: Iterable[int] = (0,)) -> str:
        """Clock until the interrupts of all these cards, for at most ``cycles``.

        Returns
        -------
        str
            One of :data:`ENDS`: of the first of them.
        """
        cards = list(cards)
        for card in cards:
            self._lib.heddle_await(card)
        self._lib.heddle_run(cycles)
        return self.end(cards[0])

    def end(self, card: int = 0) -> str:
        """How the last wait for a card has ended; one of :data:`ENDS`."""
        return ENDS[self._lib.heddle_end(card)]

    def ended_at(self, card: int = 0) -> int:
        """The cycle in which it did, if that was before the limit."""
        return int(self._lib.heddle_ended_at(card))

    def acknowledge(self) -> list[int]:
        """Take the interrupt back and read the status record through the control port."""
        return self.acknowledge_all([0])[0]

    def acknowledge_all(self, cards: Iterable[int]) -> dict[int, list[int]]:
        """The same of several cards at once."""
        isr = registers.CONTROL["isr"]
        pending = self.control({card: [read(isr)] for card in cards})
        status = [read(registers.CONTROL["ap_ctrl"]),
                  *(read(registers.STATUS_BASE + 4 * k) for k in range(len(registers.STATUS)))]
        words = self.control({   # writing 1 toggles
            card: [write(isr, 1), *status] if word & 1 else status
            for card, (word,) in pending.items()})
        return {card: found[-len(registers.STATUS):] for card, found in words.items()}

    @property
    def violation(self) -> str:
        """The first breach of a protocol by the only card, or nothing."""
        return self.violation_of(0)

    def violation_of(self, card: int) -> str:
        """The same of a card of several."""
        return str(self._lib.heddle_violation(card).decode())

    @property
    def cycles(self) -> int:
        """Cycles since the start."""
        return int(self._lib.heddle_cycles())

    def record(self, cycles: int, card: int = 0) -> None:
        """Record the events of at most so many cycles from here on; 0: of none."""
        self._lib.heddle_events_record(card, cycles, self.config.channels)

    def events(self, card: int = 0) -> bytes:
        """What was recorded, as :func:`events.decode` takes it."""
        return ctypes.string_at(self._lib.heddle_events_data(card),
                                self._lib.heddle_events_size(card))

    def waves(self, path: str | None) -> bool:
        """Start recording to ``path`` (see :func:`wave_file`), or stop; False if it cannot."""
        return all(self._lib.heddle_trace(
            card, wave_file(path, card, self.config).encode() if path else None)
            for card in range(self.config.cards))


_ANSWER = {1: "answered with an error", 2: "did not answer"}
