# SPDX-License-Identifier: Apache-2.0
"""A card's HBM: one buffer in the bank of each channel, all of one size."""

from collections.abc import Iterator
from typing import Any

from rtl_gen.spec.config import CardConfig

from ..card import CardError
from .device import XRT_ERRORS, Device, said

#: Buffers are of whole pages.
PAGE = 4096


class Memory:
    """Bytes of all channels; channel c is at ``c · channel_bytes``.

    XRT keeps a copy of every buffer on the host, so that buffers should be no larger than they must
    be: nothing is taken before it is needed, then all of every channel, or what was reserved.

    Parameters
    ----------
    device : Device
    config : CardConfig
    """

    def __init__(self, device: Device, config: CardConfig) -> None:
        self._device, self._config = device, config
        direction = device.pyxrt.xclBOSyncDirection
        self._to = direction.XCL_BO_SYNC_BO_TO_DEVICE
        self._from = direction.XCL_BO_SYNC_BO_FROM_DEVICE
        self.buffers: list[Any] = []
        #: Bytes of each that there is, or is to be.
        self.size = config.channel_bytes

    def reserve(self, size: int) -> None:
        """Take so many bytes of each channel; nothing beyond is used."""
        if not 0 < size <= self._config.channel_bytes:
            raise ValueError(f"size must be in 1..{self._config.channel_bytes}, not {size}")
        if self.buffers:
            raise CardError("memory must be reserved before it is used")
        self.take(-(-size // PAGE) * PAGE)

    def take(self, size: int) -> None:
        """Have buffers of that size, where there are none yet."""
        self.size = size
        try:
            for channel in range(self._config.channels):
                self.buffers.append(self._device.buffer(channel, size))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give all buffers back."""
        self.buffers, self.size = [], self._config.channel_bytes

    def address(self, offset: int) -> int:
        """Where channel 0's port sees a byte of its channel."""
        return int(self.buffers[0].address()) + offset

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write to the board."""
        view = memoryview(data).cast("B")
        for channel, offset, done, size in self._pieces(address, len(view)):
            self._store(channel, offset, view[done:done + size])

    def read(self, address: int, size: int) -> bytes:
        """Read from the board."""
        parts = []
        for channel, offset, _, length in self._pieces(address, size):
            parts.append(self._fetch(channel, offset, length))
        return b"".join(parts)

    def written(self, offset: int, size: int) -> bytes:
        """What the host wrote last, or read last, at a place of channel 0; the board is not asked.
        """
        self._check(offset, size)
        try:
            return bytes(self.buffers[0].read(size, offset).tobytes())
        except XRT_ERRORS as error:
            raise self._failed("read from", 0, error) from None

    def _store(self, channel: int, offset: int, data: bytes | memoryview) -> None:
        self._check(offset, len(data))
        buffer = self.buffers[channel]
        try:
            buffer.write(data, offset)
            buffer.sync(self._to, len(data), offset)
        except XRT_ERRORS as error:
            raise self._failed("written to", channel, error) from None

    def _fetch(self, channel: int, offset: int, size: int) -> bytes:
        self._check(offset, size)
        buffer = self.buffers[channel]
        try:
            buffer.sync(self._from, size, offset)
            return bytes(buffer.read(size, offset).tobytes())
        except XRT_ERRORS as error:
            raise self._failed("read from", channel, error) from None

    def _check(self, offset: int, size: int) -> None:
        """Take memory if there is none yet; refuse what lies beyond it."""
        if not self.buffers:
            self.take(self.size)
        if offset + size > self.size:
            raise CardError(f"addresses in a channel must be below {self.size:#x}, which was "
                            f"reserved, not {offset + size - 1:#x}")

    def _failed(self, what: str, channel: int, error: Exception) -> CardError:
        return CardError(f"channel {channel} of board {self._device} could not be {what}: "
                         f"{said(error)}")

    def _pieces(self, address: int, size: int) -> Iterator[tuple[int, int, int, int]]:
        """(channel, offset in it, offset in the data, bytes) of a range."""
        channel_bytes = self._config.channel_bytes
        total = self._config.channels * channel_bytes
        if address < 0 or address + size > total:
            raise ValueError(f"addresses of the card must be below {total:#x}, not "
                             f"{address:#x}..{address + size:#x}")
        done = 0
        while done < size:
            channel, offset = divmod(address + done, channel_bytes)
            length = min(size - done, channel_bytes - offset)
            yield channel, offset, done, length
            done += length
