# SPDX-License-Identifier: Apache-2.0
"""What lies between the functional cards of a ring: messages in order, nothing lost, no time."""

import threading
from collections import defaultdict, deque
from typing import Any

import numpy as np
import numpy.typing as npt

from rtl_gen.spec.link import Failure
from rtl_gen.spec.registers import STOP, Error

from .arithmetic import tame

#: Seconds for which a card that is started waits for the others to be started.
PATIENCE = 2.0

Words = npt.NDArray[np.uint32]


class LinkError(Exception):
    """A card cannot go on, because of its neighbours or of what they sent."""

    def __init__(self, code: Error, about: int = 0) -> None:
        self.code, self.about = code, about


def about(card: int, error: int, failure: int = 0, side: int = 0) -> int:
    """What a card says when it stops."""
    values = {"card": card, "error": error, "failure": failure, "side": side}
    return sum(values[name] << low for name, (_, low) in STOP.items())


class Ring:
    """Carries messages between cards that run in threads of their own.

    Parameters
    ----------
    cards : int
    """

    def __init__(self, cards: int) -> None:
        self.cards = cards
        self._changed = threading.Condition()
        self._messages: dict[tuple[int, int], deque[Words]] = defaultdict(deque)
        self._running: set[int] = set()
        self._waiting: set[tuple[int, int]] = set()
        self._stopped = 0

    def begin(self, card: int) -> None:
        """A card starts a command; returns when all have, or after :data:`PATIENCE`."""
        with self._changed:
            if not self._running:
                self._messages.clear()
                self._stopped = 0
            self._running.add(card)
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._running) == self.cards or self._stopped,
                                   PATIENCE)

    def end(self, card: int, stopped: int = 0) -> None:
        """A card has ended its command; ``stopped`` says why, if it was an error."""
        with self._changed:
            self._running.discard(card)
            self._stopped = self._stopped or stopped
            self._changed.notify_all()

    def send(self, card: int, side: int, words: Words) -> None:
        """A message [words, lanes] to the previous card (side 0) or the next one (1)."""
        with self._changed:
            # What goes to the card before this one comes to it from behind.
            self._messages[(card + (1 if side else -1)) % self.cards, 1 - side].append(words)
            self._changed.notify_all()

    def receive(self, card: int, side: int, words: int) -> Words:
        """The next message [words, lanes] from the neighbour on a side.

        Raises
        ------
        LinkError
            Another card has stopped; none can go on; or the message is of another length.
        """
        here = card, side
        with self._changed:
            while not self._messages[here]:
                if self._stopped:
                    raise LinkError(Error.LINK, self._stopped)
                self._waiting.add(here)
                stuck = {who for who, where in self._waiting if not self._messages[who, where]}
                if stuck >= self._running:
                    self._waiting.discard(here)
                    raise LinkError(Error.WATCHDOG)
                self._changed.wait()
                self._waiting.discard(here)
            message = self._messages[here].popleft()
        if len(message) != words:
            raise LinkError(Error.LINK, about(card, Error.LINK, Failure.MESSAGE, side))
        return message


class Send:
    """Scratchpad to a neighbour."""

    def __init__(self, state: Any, f: dict[str, int], ring: Ring, card: int, side: int) -> None:
        self.state, self.ring, self.card, self.side = state, ring, card, side
        self.rows = _rows(f, "src")

    def __call__(self) -> None:
        self.ring.send(self.card, self.side, self.state.words[self.rows])


class Receive:
    """A neighbour to scratchpad."""

    def __init__(self, state: Any, f: dict[str, int], ring: Ring, card: int, side: int) -> None:
        self.state, self.ring, self.card, self.side = state, ring, card, side
        self.rows = _rows(f, "dst")

    def __call__(self) -> None:
        message = self.ring.receive(self.card, self.side, len(self.rows))
        self.state.words[self.rows] = message
        if not self.state.wild:
            self.state.wild = not tame(message.view(np.float32))


def _rows(f: dict[str, int], first: str) -> npt.NDArray[np.int64]:
    """Scratchpad words of a message, in its order."""
    starts = f[first] + f["stride"] * np.arange(f["columns"])
    return (starts[:, None] + np.arange(f["words"])).ravel()
