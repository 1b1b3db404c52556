# SPDX-License-Identifier: Apache-2.0
"""A real card behind the protocol that all cards have."""

import struct
from typing import Any

from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.registers import COMMAND, COMMAND_MAGIC, NO_STOP, RING, STATUS, STATUS_MAGIC

from ..card import CardError, CardStopped, CardTimeout, Identity, Status
from .device import Device
from .memory import PAGE, Memory
from .start import Start, wait

#: Seconds for a command that does nothing, and for a card that is reset.
PROBE_SECONDS, RESET_SECONDS = 10.0, 10.0
#: Entry of a command that does nothing: beyond the end of any program.
NOWHERE = 0xFFFFFFFF
_STATUS_BYTES = 4 * len(STATUS)


class XrtCard:
    """One board with Heddle's kernel.

    Parameters
    ----------
    config : CardConfig
    device : Device
    start : Start
        Shared by the cards of a ring.
    place : int
        The card's number in it.
    """

    def __init__(self, config: CardConfig, device: Device, *, start: Start, place: int = 0) -> None:
        self.config, self._device, self._start, self._place = config, device, start, place
        self._memory: Memory | None = Memory(device, config)
        self._late: Any = None      # a run that did not end in its time
        self._session = 0           # of the last command, in a ring

    @property
    def _open(self) -> Memory:
        if self._memory is None:
            raise CardError(f"the card on {self._device} is closed; open it again")
        return self._memory

    def reserve(self, channel_bytes: int) -> None:
        """Use so many bytes of each channel and no more; without it, buffers are of whole channels
        and the host holds as much memory as the card."""
        self._open.reserve(channel_bytes)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self._open.write(address, data)

    def read(self, address: int, size: int) -> bytes:
        return self._open.read(address, size)

    def identity(self) -> Identity:
        """Asked of the card: a command whose entry is nowhere is stopped at once and leaves a
        status record.  Program and memory stay as they are."""
        memory, beat = self._open, self.config.beat_bytes
        place = -(-4 * len(COMMAND) // beat)
        record = {"magic": COMMAND_MAGIC, "entry": NOWHERE, "status": place,
                  **{f"stop{k}": NO_STOP for k in range(4)},
                  # Not the number of any neighbour's session, nor of the next.
                  "ring": self._place << RING["card"] | (self._session ^ 0x80) << RING["session"]}
        words = struct.pack(f"<{len(COMMAND)}I", *(record.get(name, 0) for name in COMMAND))
        used = bool(memory.buffers)
        if not used:
            memory.take(PAGE)
        try:
            kept = memory.read(0, place * beat + _STATUS_BYTES)
            memory.write(0, words)
            status = self._command(0, place * beat, PROBE_SECONDS, together=False)
            memory.write(0, kept)
        finally:
            if not used:
                memory.release()
        return Identity(contract=status["contract"], configuration=status["configuration"],
                        commit=status["commit"], board=self._device.name)

    def run(self, command_address: int, timeout: float) -> Status:
        """See :meth:`heddle.card.Card.run`."""
        words = struct.unpack(f"<{len(COMMAND)}I",
                              self._open.written(command_address, 4 * len(COMMAND)))
        record = dict(zip(COMMAND, words, strict=True))
        self._session = record["ring"] >> RING["session"] & 0xFF
        status = self._command(command_address, record["status"] * self.config.beat_bytes, timeout)
        if status.error:
            raise CardStopped(status)
        return status

    def _command(self, address: int, place: int, timeout: float, *, together: bool = True
                 ) -> Status:
        """Run the command whose record lies at ``address`` and whose status goes to ``place``."""
        memory = self._open
        if self._late is not None:
            raise CardError(f"the card on {self._device} must be reset: its last command has not "
                            "ended")
        # A record that is refused writes no status: that of another command must not pass for it.
        memory.write(place, bytes(4))
        run = self._device.run(memory.address(address), memory.buffers)
        start = self._start if together else Start(1)
        start.begin(self._place if together else 0, run)
        try:
            wait(run, timeout, start.slice_ms, who=str(self._device))
        except CardTimeout:
            self._late = run
            raise
        status = Status.from_bytes(memory.read(place, _STATUS_BYTES))
        if status["magic"] != STATUS_MAGIC:
            raise CardError(f"the card on {self._device} must write a status record that begins "
                            f"with {STATUS_MAGIC:#010x}, not {status['magic']:#010x}: it refused "
                            "the command record (BAD_COMMAND) or could not read it")
        return status

    def reset(self) -> None:
        """Wait for a command that did not end in its time: a card clears up after every error by
        itself, and pyxrt has no other way in.

        Raises
        ------
        CardError
            It still has not ended; only XRT's own tool helps then.
        """
        if self._late is None:
            return
        try:
            wait(self._late, RESET_SECONDS, self._start.slice_ms, who=str(self._device))
        except CardTimeout:
            raise CardError(
                f"the card on {self._device} must end its command before it can be reset, and has "
                f"not: close it and run `xrt-smi reset --device {self._device.address}`") from None
        except CardError:
            pass        # ended, if not well
        self._late = None

    def close(self) -> None:
        if self._memory is not None:
            self._memory.release()
            self._memory = None
            self._late = None
            self._device.close()
            self._start.leave(self._place)
