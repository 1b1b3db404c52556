# SPDX-License-Identifier: Apache-2.0
"""Cards on boards with a serial line (entry point ``uart`` of the group ``heddle.cards``)."""

import contextlib
import os
import time
from typing import Any

from rtl_gen.spec import registers
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.serial import HELLO_WORDS, LONGEST, REVISION, Kind

from .card import CardError, CardMissing, CardStopped, CardTimeout, Identity, Status
from .serial_line import BAUD, PATIENCE, SerialLine, ports

#: Names the port where no option does.
VARIABLE = "HEDDLE_PORT"
#: Bit of ``ap_ctrl``: no command runs.
IDLE = 4
#: Seconds between two looks at a command that runs, the first time and at most.
FIRST_LOOK, LOOK = 0.0005, 0.02


class UartCard:
    """A card behind a serial line; see :class:`heddle.card.Card`.

    Parameters
    ----------
    config : CardConfig
    line : SerialLine
        Closed with the card.

    Raises
    ------
    CardError
        No board answers, or it is another one.
    """

    def __init__(self, config: CardConfig, line: SerialLine) -> None:
        self.config, self._line = config, line
        words = self._words(line.ask(Kind.HELLO, size=4 * len(HELLO_WORDS)))
        #: What the board says of itself, by the names of ``serial.HELLO_WORDS``.
        self.hello = dict(zip(HELLO_WORDS, words, strict=True))
        for name, wanted in (("revision", REVISION), ("beat_bytes", config.beat_bytes)):
            if self.hello[name] != wanted:
                raise CardError(f"{name} of the board on {line.port} must be {wanted}, "
                                f"not {self.hello[name]}: build board and heddle from one version")
        if self.hello["memory"] < config.channels * config.channel_bytes:
            raise CardError(f"memory of the board on {line.port} must have at least "
                            f"{config.channels * config.channel_bytes} bytes for {config.name}, "
                            f"not {self.hello['memory']}")
        if self._get(registers.CONTROL["ap_ctrl"], 1)[0] & IDLE:
            self._place()
        else:
            self.reset()

    @staticmethod
    def _words(data: bytes) -> list[int]:
        return [int.from_bytes(data[k:k + 4], "little") for k in range(0, len(data), 4)]

    def _set(self, address: int, *words: int) -> None:
        self._line.ask(Kind.SET, address=address,
                       payload=b"".join(word.to_bytes(4, "little") for word in words))

    def _get(self, address: int, count: int) -> list[int]:
        return self._words(self._line.ask(Kind.GET, address=address, size=4 * count))

    def _place(self) -> None:
        """Tell the card where its channels lie."""
        for channel in range(self.config.channels):
            base = channel * self.config.channel_bytes
            self._set(registers.CHANNEL_BASE + 8 * channel, base & 0xFFFFFFFF, base >> 32)

    @property
    def clock_mhz(self) -> float:
        """As the board says."""
        return self.hello["clock"] / 1e6

    def identity(self) -> Identity:
        words = self._get(registers.STATUS_BASE, registers.STATUS.index("commit") + 1)
        read = dict(zip(registers.STATUS, words, strict=False))
        return Identity(contract=read["contract"], configuration=read["configuration"],
                        commit=read["commit"], board="uart")

    def _beats(self, address: int, size: int) -> range:
        """The bytes of the whole beats around some bytes."""
        beat = self.config.beat_bytes
        end = -(-(address + size) // beat) * beat
        if address < 0 or end > self.hello["memory"]:
            raise CardError(f"memory must be accessed below {self.hello['memory']:#x}, not at "
                            f"{address:#x} to {address + size:#x}")
        return range(address // beat * beat, end)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        if not len(data):
            return
        beat, around = self.config.beat_bytes, self._beats(address, len(data))
        head = self.read(around.start, address - around.start)
        whole = head + bytes(data)
        if missing := len(around) - len(whole):
            whole += self.read(around.stop - beat, beat)[beat - missing:]
        for first in range(0, len(whole), LONGEST):
            self._line.ask(Kind.WRITE, address=around.start + first,
                           payload=whole[first:first + LONGEST])

    def read(self, address: int, size: int) -> bytes:
        if not size:
            return b""
        around = self._beats(address, size)
        found = b"".join(
            self._line.ask(Kind.READ, address=first, size=min(LONGEST, around.stop - first))
            for first in range(around.start, around.stop, LONGEST))
        return found[address - around.start:][:size]

    def run(self, command_address: int, timeout: float) -> Status:
        end, pause = time.monotonic() + timeout, FIRST_LOOK
        self._set(registers.CONTROL["command_low"],
                  command_address & 0xFFFFFFFF, command_address >> 32)
        self._set(registers.CONTROL["ap_ctrl"], 1)
        while not self._get(registers.CONTROL["ap_ctrl"], 1)[0] & IDLE:
            if time.monotonic() >= end:
                raise CardTimeout(f"the command must end within {timeout:g} s, not run on; "
                                  "reset the card")
            time.sleep(pause)
            pause = min(2 * pause, LOOK)
        status = Status(tuple(self._get(registers.STATUS_BASE, len(registers.STATUS))))
        if status.error:
            raise CardStopped(status)
        return status

    def reset(self) -> None:
        self._line.ask(Kind.RESET)
        self._place()

    def close(self) -> None:
        self._line.close()


def open_cards(config: CardConfig, *, port: str | None = None, baud: int = BAUD,
               patience: float = PATIENCE, **simulated: Any) -> list[UartCard]:
    """Open the card on a serial port.

    Parameters
    ----------
    config : CardConfig
    port : str, optional
        Device; if it is not given, what the environment variable ``HEDDLE_PORT`` names.
    baud : int
    patience : float
        Seconds within which the board answers.
    simulated
        Options of simulated cards, which a board has not: refused unless they are None.
    """
    if meant := [name for name, value in simulated.items() if value is not None and name != "say"]:
        raise CardError(f"options of a board must be port, baud and patience, not {meant[0]}")
    if config.cards != 1:
        raise CardError(f"cards must be 1 on a serial line, not {config.cards}")
    name = port or os.environ.get(VARIABLE)
    if not name:
        there = ", ".join(ports()) or "none"
        raise CardMissing(f"{VARIABLE} must name the board's serial port; there are: {there}")
    line = SerialLine(name, baud=baud, patience=patience)
    with contextlib.ExitStack() as stack:
        stack.callback(line.close)
        card = UartCard(config, line)
        stack.pop_all()
    return [card]
