# SPDX-License-Identifier: Apache-2.0
"""A real card behind the protocol that all cards have."""

import contextlib
import functools
import struct
from collections.abc import Callable
from typing import Any

from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.registers import COMMAND, COMMAND_MAGIC, NO_STOP, RING, STATUS, STATUS_MAGIC

from ..card import CardError, CardStopped, CardTimeout, Identity, Status
from .device import Device, tool
from .memory import PAGE, Memory
from .start import RunFailed, Start, wait

#: Seconds for a command that does nothing, for a card that is reset, and for one that is closed.
PROBE_SECONDS, RESET_SECONDS, CLOSE_SECONDS = 10.0, 10.0, 2.0
#: What kernels that nobody could wait for may still write to: kept as long as the process lives.
_left: list[tuple[Any, list[Any]]] = []
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
        #: A run that is not known to have ended, and what is to be put right when it has.
        self._late: Any = None
        self._undo: Callable[[], None] | None = None
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
        undo: Callable[[], None] = memory.release
        if memory.buffers:
            undo = functools.partial(memory.write, 0, memory.read(0, place * beat + _STATUS_BYTES))
        else:
            memory.take(PAGE)
        try:
            memory.write(0, words)
            status = self._command(0, place * beat, PROBE_SECONDS, together=False)
        finally:
            if self._late is None:
                undo()
            else:
                self._undo = undo
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
        try:
            # It is late from now on until it is known to have ended: also if this is interrupted.
            start.begin(self._place if together else 0, run,
                        functools.partial(setattr, self, "_late", run))
            wait(run, timeout, start.slice_ms, who=str(self._device))
        except RunFailed:
            self._late = None
            raise
        self._late = None
        status = Status.from_bytes(memory.read(place, _STATUS_BYTES))
        if status["magic"] != STATUS_MAGIC:
            raise CardError(f"the card on {self._device} must write a status record that begins "
                            f"with {STATUS_MAGIC:#010x}, not {status['magic']:#010x}: it refused "
                            "the command record (BAD_COMMAND) or could not read it")
        return status

    def reset(self) -> None:
        """Wait for a command that did not end in its time, or that nobody waited for: a card clears
        up after every error by itself, and pyxrt has no other way in.

        Raises
        ------
        CardError
            It still has not ended; only XRT's own tool helps then.
        """
        try:
            self._end(RESET_SECONDS)
        except CardTimeout:
            raise CardError(
                f"the card on {self._device} must end its command before it can be reset, and has "
                f"not: close it and run `{tool()} reset --device {self._device.address}`") from None

    def _end(self, seconds: float) -> None:
        """Wait until nothing runs, and put memory right."""
        if self._late is None:
            return
        with contextlib.suppress(RunFailed):        # ended, if not well
            wait(self._late, seconds, self._start.slice_ms, who=str(self._device))
        self._late = None
        if self._undo is not None:
            self._undo()
            self._undo = None

    def close(self) -> None:
        """Give the board back.  Memory that a command may still write to stays taken until the
        process ends."""
        if self._memory is not None:
            try:
                self._end(CLOSE_SECONDS)
            except CardError:
                _left.append((self._late, list(self._memory.buffers)))
            self._memory.release()
            self._memory = None
            self._late = self._undo = None
            self._device.close()
            self._start.leave(self._place)
