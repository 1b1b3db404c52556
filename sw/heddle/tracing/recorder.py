# SPDX-License-Identifier: Apache-2.0
"""A card that keeps what it recorded of every command, with the program that ran."""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rtl_gen.spec import isa, registers
from rtl_gen.spec.config import CardConfig

from ..card import Card, Identity, Status, Timed
from ..errors import UserError
from ..trace import Plain


@runtime_checkable
class Observed(Timed, Protocol):
    """A card that knows what happened in every cycle."""

    def events(self) -> npt.NDArray[np.void]:
        """Records since the last call, one a cycle: fields of ``rtl_gen.spec.events``, and
        ``channels``, what each channel's port did (bits: read, write, late, full)."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """One command: what ran, and what happened."""

    config: CardConfig
    #: The program in memory.
    program: tuple[Plain, ...]
    #: Registers at the start, and the given words.
    registers: dict[int, int]
    given: tuple[int, ...]
    #: Number of the first instruction.
    entry: int
    status: Status
    #: As :meth:`Observed.events` gives it, from the start of the command on.
    log: npt.NDArray[np.void]


class Recorder:
    """Passes everything on to a card, and keeps a :class:`Recording` of every command.

    Parameters
    ----------
    card : Card
        Opened with ``events=True``.

    Raises
    ------
    UserError
        The card records nothing.
    """

    def __init__(self, card: Card) -> None:
        if not isinstance(card, Observed):
            raise UserError("a trace needs a card that counts cycles and records what happens in "
                            "them, as rtl:tiny does")
        self._observed: Observed = card
        self.card: Card = card
        self.recordings: list[Recording] = []

    @property
    def config(self) -> CardConfig:
        return self.card.config

    @property
    def clock_mhz(self) -> float:
        return self._observed.clock_mhz

    @property
    def channel_gbps(self) -> float:
        return self._observed.channel_gbps

    @property
    def nominal_gbps(self) -> float:
        return self._observed.nominal_gbps

    def identity(self) -> Identity:
        return self.card.identity()

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self.card.write(address, data)

    def read(self, address: int, size: int) -> bytes:
        return self.card.read(address, size)

    def reset(self) -> None:
        self.card.reset()

    def close(self) -> None:
        self.card.close()

    def run(self, command_address: int, timeout: float) -> Status:
        record = dict(zip(registers.COMMAND, self._words(
            command_address, len(registers.COMMAND)), strict=True))
        beat = self.config.beat_bytes
        image = self._words(record["program"] * beat, record["instructions"] * isa.WORD_BYTES // 4)
        given = self._words(record["tokens"] * beat, record["given"])
        self._observed.events()
        status = self.card.run(command_address, timeout)
        words = [sum(word << 32 * k for k, word in enumerate(image[at:at + 8]))
                 for at in range(0, len(image), 8)]
        self.recordings.append(Recording(
            config=self.config, program=tuple(map(isa.decode, words)), given=tuple(given),
            entry=record["entry"],
            registers={k: record[f"r{k}"] for k in isa.Register}, status=status,
            log=self._observed.events()))
        return status

    def _words(self, address: int, count: int) -> list[int]:
        return [int(word) for word in np.frombuffer(self.read(address, 4 * count), "<u4")]
