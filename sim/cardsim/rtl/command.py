# SPDX-License-Identifier: Apache-2.0
"""What host and child process of a Verilated card tell each other of a command."""

import dataclasses
import signal

#: Tells the process to give up the command that it runs.
INTERRUPT = signal.SIGUSR1


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that a card is to carry out."""

    #: Of its record.
    address: int
    #: Time of the host after which it is given up.
    seconds: float
    #: Cycles after which it is given up.
    limit: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    #: One of :data:`cardsim.rtl.model.ENDS`.
    end: str
    cycles: int
    #: Status words; none unless it is done.
    words: list[int]
    #: The first breach of a protocol, or nothing.
    violation: str
    #: Waveform of the end, if one was recorded.
    waves: str | None
