# SPDX-License-Identifier: Apache-2.0
"""The compiled card as Python calls it; used inside the child process only."""

import ctypes
import pathlib
from collections.abc import Iterator

from rtl_gen.spec import registers
from rtl_gen.spec.config import CardConfig

from .timing import Timing

#: How a run ended, by the number that the library returns.
ENDS = ("done", "limit", "violation", "finished")


class Model:
    """One Verilated card with its HBM.

    Parameters
    ----------
    library : pathlib.Path
        From :func:`cardsim.rtl.build.library`.
    config : CardConfig
    timing : Timing
        Of the HBM model.
    """

    def __init__(self, library: pathlib.Path, config: CardConfig, timing: Timing) -> None:
        self.config = config
        lib = self._lib = ctypes.CDLL(str(library))
        lib.heddle_open.argtypes = [ctypes.c_uint64]
        lib.heddle_hbm_open.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_uint32]
        for name in ("heddle_hbm_write", "heddle_hbm_read"):
            getattr(lib, name).argtypes = [
                ctypes.c_int, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint64]
        lib.heddle_hbm_violation.restype = ctypes.c_char_p
        lib.heddle_cycles.restype = ctypes.c_uint64
        lib.heddle_run.argtypes = [ctypes.c_uint64]
        lib.heddle_control_read.argtypes = [ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)]
        lib.heddle_control_write.argtypes = [ctypes.c_uint32, ctypes.c_uint32]
        lib.heddle_events_record.argtypes = [ctypes.c_uint64, ctypes.c_uint32]
        lib.heddle_events_size.restype = ctypes.c_uint64
        lib.heddle_events_data.restype = ctypes.c_void_p
        lib.heddle_trace.argtypes = [ctypes.c_char_p]
        lib.heddle_hbm_timing(ctypes.byref(timing.structure(config)))
        for channel in range(config.channels):
            lib.heddle_hbm_open(channel, config.channel_bytes, config.beat_bytes)
        lib.heddle_open(timing.seed)
        self.reset()

    def reset(self) -> None:
        """Reset the card and tell it where its channels lie; memory stays."""
        self._lib.heddle_reset()
        for channel in range(self.config.channels):
            base = channel * self.config.channel_bytes
            at = registers.CHANNEL_BASE + 8 * channel
            self.control_write(at, base & 0xFFFFFFFF)
            self.control_write(at + 4, base >> 32)
        self.control_write(registers.CONTROL["gie"], 1)
        self.control_write(registers.CONTROL["ier"], 1)

    def memory_write(self, address: int, data: bytes) -> None:
        """Write through the back door, over channel ends if need be."""
        for channel, offset, start, size in self._pieces(address, len(data)):
            self._lib.heddle_hbm_write(channel, offset, data[start:start + size], size)

    def memory_read(self, address: int, size: int) -> bytes:
        """Read through the back door."""
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

    def control_write(self, address: int, data: int) -> None:
        """Write a register through the control port."""
        if result := self._lib.heddle_control_write(address, data):
            raise RuntimeError(f"the control port {_ANSWER[result]} to a write at {address:#x}")

    def control_read(self, address: int) -> int:
        """Read a register through the control port."""
        value = ctypes.c_uint32()
        if result := self._lib.heddle_control_read(address, ctypes.byref(value)):
            raise RuntimeError(f"the control port {_ANSWER[result]} to a read at {address:#x}")
        return value.value

    def start(self, command_address: int) -> None:
        """Start the command whose record lies at that byte address of channel 0."""
        self.control_write(registers.CONTROL["command_low"], command_address & 0xFFFFFFFF)
        self.control_write(registers.CONTROL["command_high"], command_address >> 32)
        self.control_write(registers.CONTROL["ap_ctrl"], 1)

    def clock(self, cycles: int) -> str:
        """Clock until the interrupt, for at most ``cycles``; one of :data:`ENDS`."""
        return ENDS[self._lib.heddle_run(cycles)]

    def acknowledge(self) -> list[int]:
        """Take the interrupt back and read the status record through the control port."""
        if self.control_read(registers.CONTROL["isr"]) & 1:
            self.control_write(registers.CONTROL["isr"], 1)     # writing 1 toggles
        self.control_read(registers.CONTROL["ap_ctrl"])
        return [self.control_read(registers.STATUS_BASE + 4 * k)
                for k in range(len(registers.STATUS))]

    @property
    def violation(self) -> str:
        """The first breach of the AXI protocol, or nothing."""
        return str(self._lib.heddle_hbm_violation().decode())

    @property
    def cycles(self) -> int:
        """Cycles since the start."""
        return int(self._lib.heddle_cycles())

    def record(self, cycles: int) -> None:
        """Record the events of at most so many cycles from here on; 0: of none."""
        self._lib.heddle_events_record(cycles, self.config.channels)

    def events(self) -> bytes:
        """What was recorded, as :func:`events.decode` takes it."""
        return ctypes.string_at(self._lib.heddle_events_data(), self._lib.heddle_events_size())

    def waves(self, path: str | None) -> bool:
        """Start recording to ``path``, or stop; False if the library cannot."""
        return bool(self._lib.heddle_trace(path.encode() if path else None))


_ANSWER = {1: "answered with an error", 2: "did not answer"}
