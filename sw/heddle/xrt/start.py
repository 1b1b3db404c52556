# SPDX-License-Identifier: Apache-2.0
"""Starts the kernels of a ring right behind each other, and waits for runs."""

import threading
import time
from collections.abc import Callable
from typing import Any

from ..card import CardError, CardTimeout
from .device import XRT_ERRORS, said, tool

#: Seconds for which a card waits until all of its ring are to be started.
PATIENCE = 2.0
#: Milliseconds of one wait of XRT's, for one card and for a card of a ring.  pyxrt holds Python's
#: lock meanwhile: nothing interrupts it, and no thread of another card gets on.
ALONE_MS, RING_MS = 100, 1
#: States of a run that has failed; all others but COMPLETED are those of one that goes on.
FAILED = ("ERROR", "ABORT", "TIMEOUT", "NORESPONSE", "SKERROR", "SKCRASHED")


class RunFailed(CardError):
    """A run has ended, and not well."""


def _state(state: Any) -> str:
    """A state of XRT's without what all their names begin with."""
    return str(getattr(state, "name", state)).removeprefix("ERT_CMD_STATE_")


class Start:
    """A meeting of the cards of a ring.

    Cards wait for their neighbours' messages for half a millisecond, which is less than threads of
    Python may need to start one card after another.  The last card that comes starts them all.

    Parameters
    ----------
    cards : int
    """

    def __init__(self, cards: int) -> None:
        self._changed = threading.Condition()
        self._open = set(range(cards))
        self._waiting: dict[int, tuple[Any, Callable[[], None]]] = {}
        self._errors: dict[int, Exception] = {}

    def begin(self, card: int, run: Any, begun: Callable[[], None]) -> None:
        """Start a run, together with those of the other cards; they are waited for, but not for
        longer than :data:`PATIENCE`.  ``begun`` is called when it may have started, by the thread
        that starts it."""
        with self._changed:
            self._errors.pop(card, None)
            self._waiting[card] = run, begun
            if not self._waiting.keys() >= self._open:
                try:
                    self._changed.wait_for(lambda: card not in self._waiting, PATIENCE)
                except BaseException:
                    self._waiting.pop(card, None)       # nobody is to start it any more
                    raise
            if card in self._waiting:
                for number, (waiting, begins) in self._waiting.items():
                    begins()
                    try:
                        waiting.start()
                    except Exception as error:
                        self._errors[number] = error
                self._waiting.clear()
                self._changed.notify_all()
            if failure := self._errors.pop(card, None):
                raise RunFailed(f"the kernel could not be started: {failure}") from None

    def leave(self, card: int) -> None:
        """The card is closed; nobody waits for it."""
        with self._changed:
            self._open.discard(card)
            self._changed.notify_all()

    @property
    def slice_ms(self) -> int:
        """Milliseconds of one wait."""
        return RING_MS if len(self._open) > 1 else ALONE_MS


def wait(run: Any, seconds: float, slice_ms: int, *, who: str) -> None:
    """Wait for a run until it has completed.

    Raises
    ------
    CardTimeout
        It has not in that time.
    RunFailed
        XRT says that it failed.
    CardError
        XRT cannot say how it is.
    """
    end = time.monotonic() + seconds
    while True:
        left = end - time.monotonic()
        try:
            name = _state(run.wait(max(1, min(slice_ms, int(1000 * left)))))
            if name == "TIMEOUT":
                # The wait's own end; or is it a command that XRT itself has given up?
                name = _state(run.state())
        except XRT_ERRORS as error:
            raise CardError(f"the kernel's run on {who} must be one that XRT can wait for: "
                            f"{said(error)}") from None
        if name == "COMPLETED":
            return
        if name in FAILED:
            raise RunFailed(f"the kernel's run on {who} must end as COMPLETED, not as {name}: "
                            f"look for errors with `{tool()} examine` and `dmesg`")
        if time.monotonic() >= end:
            raise CardTimeout(f"the command on {who} must end within {seconds:g} s, and has not")
        time.sleep(0)       # lets other threads in
