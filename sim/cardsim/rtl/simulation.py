# SPDX-License-Identifier: Apache-2.0
"""The host's end of the process that simulates the cards of a ring, or one card."""

import contextlib
import multiprocessing.connection
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from heddle.card import CardError
from rtl_gen.spec.config import CardConfig

from . import build
from .command import INTERRUPT, Command, Outcome
from .timing import LinkTiming, Timing

#: Seconds for which a card that is started waits until all of its ring are.
PATIENCE = 2.0


class _Start:
    """Commands that start together."""

    def __init__(self) -> None:
        self.commands: dict[int, Command] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.error = ""
        self.over = False


class Simulation:
    """A process that simulates ``config.cards`` cards; any thread may call it.

    Parameters
    ----------
    config : CardConfig
    timing : Timing
        Of the HBM model.
    link : LinkTiming, optional
        Of the links between cards.
    threads : int, optional
        That the cards are simulated on; by default one a processor and card.  What happens does
        not depend on it.
    waves : str, optional
        Record every command to this VCD file (slow and large); each card of a ring to one of its
        own beside it.
    trace : bool
        Build the cards so that they can record; they are then simulated on one thread.
    say : callable
        Is told in a few words what takes long.
    """

    def __init__(self, config: CardConfig, *, timing: Timing, link: LinkTiming | None = None,
                 threads: int | None = None, waves: str | None = None, trace: bool = False,
                 say: Callable[[str], None] = lambda text: None) -> None:
        link, self.trace = link or LinkTiming(), trace
        link.cuts(config)       # raises if it is of another ring
        library = build.library(config, trace=trace, say=say)
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cardsim.rtl.server", str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self.pid = self._process.pid
        self._pipe = multiprocessing.connection.Connection(ours.detach())
        self._end = weakref.finalize(self, _end, self._process, self._pipe)
        self._waves = str(pathlib.Path(tempfile.gettempdir()) / f"heddle-{self.pid}.vcd")
        self._calls, self._changed = threading.Lock(), threading.Condition()
        self._open = set(range(config.cards))
        self._start = _Start()
        self._pipe.send((str(library), config, timing, link,
                         threads or os.cpu_count() or 1, waves))
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

    def _ask(self, name: str, *arguments: Any) -> Any:
        with self._calls:
            try:
                self._pipe.send((name, arguments))
            except (OSError, ValueError):
                raise CardError("the simulated card is closed or its process has ended; "
                                "open the card again") from None
            try:
                return self._answer()
            except CardError:
                raise
            except BaseException:
                # Whoever is interrupted here must not find this call's answer to the next one.
                with contextlib.suppress(CardError):
                    os.kill(self.pid, INTERRUPT)
                    self._answer()
                    self._pipe.send(("forget", ()))
                    self._answer()
                raise

    def _check(self, card: int) -> None:
        if card not in self._open:
            raise CardError("the simulated card is closed; open the card again")

    def call(self, name: str, card: int, *arguments: Any) -> Any:
        """Call a method of the server for a card."""
        self._check(card)
        return self._ask(name, card, *arguments)

    def run(self, card: int, command: Command, waves: str | None = None) -> Outcome:
        """Run a command; those of all open cards start in one cycle.

        The first card that is given one waits for the others, for :data:`PATIENCE` at most, and
        then starts all that have one; each call returns when all of these have ended.  If the first
        one fails, a waveform goes to ``waves``.
        """
        with self._changed:
            self._check(card)
            start = self._start
            if card in start.commands:
                raise CardError("a card must end its command before it is given another")
            start.commands[card] = command
            self._changed.notify_all()
            if len(start.commands) > 1:
                self._changed.wait_for(lambda: start.over)
                if start.error:
                    raise CardError(start.error)
                return start.outcomes[card]
        try:
            with self._changed:
                self._changed.wait_for(lambda: start.commands.keys() >= self._open, PATIENCE)
                self._start = _Start()
            start.outcomes = self._ask(
                "run", start.commands, self._waves if waves is None else waves)
        except BaseException as error:
            start.error = str(error) or f"the run was given up ({type(error).__name__})"
            raise
        finally:
            with self._changed:
                if self._start is start:
                    self._start = _Start()
                start.over = True
                self._changed.notify_all()
        return start.outcomes[card]

    def close(self, card: int) -> None:
        """Give a card back; the process ends with the last."""
        with self._changed:
            self._open.discard(card)
            self._changed.notify_all()      # nobody waits for it any more
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
