# SPDX-License-Identifier: Apache-2.0
"""The host's end of the child process in which the cards of a ring are simulated together."""

import dataclasses
import multiprocessing.connection
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

from heddle.card import CardError
from rtl_gen.spec.config import CardConfig

from .timing import LinkTiming, Timing

#: Seconds for which a card that is started waits for the others to be started.
PATIENCE = 2.0
#: How a command ended, cycles, status words, breach of the AXI protocol, waveform.
Outcome = tuple[str, int, list[int], str, str | None]


class Simulation:
    """A child process that simulates ``config.cards`` cards.

    Parameters
    ----------
    library : pathlib.Path
        The compiled card.
    config : CardConfig
    timing : Timing
    link : LinkTiming
    threads : int
        On which cards are simulated; the cycles do not depend on it.
    waves : str, optional
        Record every command to this file.
    """

    def __init__(self, library: pathlib.Path, config: CardConfig, timing: Timing, link: LinkTiming,
                 *, threads: int, waves: str | None) -> None:
        self._cards, self._lock = config.cards, threading.Lock()
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cardsim.rtl.server", str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._pipe = multiprocessing.connection.Connection(ours.detach())
        self._end = weakref.finalize(self, _end, self._process, self._pipe)
        self._open = set(range(config.cards))
        self._waves = str(pathlib.Path(tempfile.gettempdir()) / f"heddle-{self._process.pid}.vcd")
        #: Cards that are to be started together, with the addresses of their commands.
        self._asked: dict[int, tuple[int, Future[Outcome]]] = {}
        self._changed = threading.Condition()
        self._pipe.send((str(library), dataclasses.asdict(config), dataclasses.asdict(timing),
                         dataclasses.asdict(link), threads, waves))
        self._answer()

    def _answer(self) -> Any:
        try:
            kind, value = self._pipe.recv()
        except (EOFError, OSError):
            status = self._process.wait()
            raise CardError(f"the simulated card's process ended with status {status}; "
                            "open the card again") from None
        if kind == "error":
            raise CardError(value)
        return value

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the child's server."""
        with self._lock:
            try:
                self._pipe.send((name, arguments))
            except (OSError, ValueError):
                raise CardError("the simulated card is closed or its process has ended; "
                                "open the card again") from None
            return self._answer()

    def run(self, card: int, address: int, seconds: float, limit: int) -> Outcome:
        """Run a command of one card.

        Those of all cards of a ring start in the same cycle: a card that is started waits for the
        others, but for no longer than :data:`PATIENCE`.
        """
        mine: Future[Outcome] = Future()
        with self._changed:
            if card in self._asked:
                raise CardError(f"card {card} must end one command before it is given another")
            self._asked[card] = address, mine
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: card not in self._asked or len(self._asked) == self._cards,
                PATIENCE if self._cards > 1 else 0)
            # The first to get here runs the commands of all.
            asked = self._asked if card in self._asked else {}
            if asked:
                self._asked = {}
        if asked:
            self._drive(asked, seconds, limit)
        return mine.result()

    def _drive(self, asked: dict[int, tuple[int, "Future[Outcome]"]], seconds: float, limit: int
               ) -> None:
        try:
            found = self.call("run", {card: address for card, (address, _) in asked.items()},
                              seconds, limit, self._waves)
        except BaseException as error:
            for _, future in asked.values():
                future.set_exception(error)
            raise
        for card, (_, future) in asked.items():
            future.set_result(found[card])

    def close(self, card: int) -> None:
        """Give a card back; the process ends with the last."""
        self._open.discard(card)
        if not self._open:
            self._end()


def _end(process: subprocess.Popen[bytes], pipe: Connection) -> None:
    """Close the pipe, which ends the child; kill it if that does not."""
    pipe.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def threads_for(cards: int) -> int:
    """On how many threads a ring is simulated: as many as there are processors, and cards."""
    return max(1, min(cards, len(os.sched_getaffinity(0))))
