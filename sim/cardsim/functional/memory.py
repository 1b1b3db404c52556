# SPDX-License-Identifier: Apache-2.0
"""The HBM channels of a functional card."""

import contextlib
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from heddle.card import CardError
from rtl_gen.spec.config import CardConfig

Bytes = npt.NDArray[np.uint8]


class Memory:
    """All channels side by side; memory that was never written costs nothing and reads as zero.

    Attributes
    ----------
    bytes : uint8 array [channels, channel_bytes]
        To be read from freely; writes go through the methods, which tell ``written``.
    signed : int8 array [channels, channel_bytes]
        The same.
    written : callable or None
        Called with (first byte, byte after the last) within the channels after every write.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        size = config.channels * config.channel_bytes
        # Address space only: the system supplies pages as they are written.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._map = mmap.mmap(-1, size, flags=flags)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            # Pages of 2 MB would be filled by a single byte each.
            self._map.madvise(mmap.MADV_NOHUGEPAGE)
        self.bytes: Bytes = np.frombuffer(self._map, np.uint8).reshape(
            config.channels, config.channel_bytes)
        self.signed = self.bytes.view(np.int8)
        self.written: Callable[[int, int], None] | None = None

    def _check(self, address: int, size: int) -> None:
        end = self.bytes.size
        if address < 0 or size < 0 or address + size > end:
            raise CardError(f"memory must be accessed within 0..{end - 1:#x}, not "
                            f"{size} bytes at {address:#x}")

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write ``data`` at a byte address of the card; it may run over into the next channel."""
        raw = np.frombuffer(data, np.uint8)
        self._check(address, len(raw))
        self.bytes.reshape(-1)[address:address + len(raw)] = raw
        size = self.config.channel_bytes
        while len(raw):
            offset = address % size
            part = min(len(raw), size - offset)
            self.touch(offset, offset + part)
            raw, address = raw[part:], address + part

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes from a byte address of the card."""
        self._check(address, size)
        return self.bytes.reshape(-1)[address:address + size].tobytes()

    def touch(self, start: int, end: int) -> None:
        """Report that bytes ``start`` to ``end`` of some channel were written."""
        if self.written is not None:
            self.written(start, end)

    def write_words(self, beat: int, words: npt.NDArray[np.uint32]) -> None:
        """Write 32-bit words to channel 0 from a beat on, with zeros up to a whole beat."""
        start = beat * self.config.beat_bytes
        end = start + -(-4 * len(words) // self.config.beat_bytes) * self.config.beat_bytes
        self.bytes[0, start:end] = 0
        self.bytes[0, start:start + 4 * len(words)] = words.view(np.uint8)
        self.touch(start, end)

    def read_words(self, beat: int, count: int) -> npt.NDArray[Any]:
        """``count`` 32-bit words of channel 0 from a beat on."""
        start = beat * self.config.beat_bytes
        return self.bytes[0, start:start + 4 * count].view(np.uint32).copy()

    def close(self) -> None:
        """Give the memory back."""
        self.written = None
        self.bytes = np.zeros((0, 0), np.uint8)
        self.signed = self.bytes.view(np.int8)
        # Somebody may still hold a view; the memory goes with the last one.
        with contextlib.suppress(BufferError):
            self._map.close()
