# SPDX-License-Identifier: Apache-2.0
"""The thread that runs the cards for a server."""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Sequence

from ..card import CardError
from ..generation import Output
from ..model import Model
from ..request import Finish, Request, Token

_LOG = logging.getLogger(__name__)


class Busy(Exception):
    """There are as many requests already as the server accepts."""


class Closing(Exception):
    """The server accepts nothing more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """What has come of a request since the last event.

    Attributes
    ----------
    index : int
        Of the request among those submitted together.
    pieces : tuple of (Token, str)
        New tokens, each with the text that became certain with it.
    foretold : tuple of Token
        With the first event: the prompt's tokens from the second on, if they are scored.
    first : bool
    finish : Finish or None
        With the last event.
    error : Exception or None
        Why it failed.
    """

    index: int
    pieces: tuple[tuple[Token, str], ...] = ()
    foretold: tuple[Token, ...] = ()
    first: bool = False
    finish: Finish | None = None
    error: Exception | None = None


class Ticket:
    """A request that was submitted."""

    def __init__(self, index: int, request: Request, stops: tuple[str, ...],
                 post: Callable[[Event], None], whole: bool) -> None:
        self.index, self.request, self.stops, self.post = index, request, stops, post
        self.whole = whole
        self.cancelled = self.begun = False
        self.output: Output | None = None
        #: What has not been told of it yet.
        self.pieces: list[tuple[Token, str]] = []


class Engine:
    """Runs the cards of one model in a thread of its own.

    Parameters
    ----------
    model : Model
        Nobody else may use it.
    queue : int
        Requests that may wait for a slot, besides those that have one.
    ended : callable
        Told of each ticket that ended, from the thread.
    """

    def __init__(self, model: Model, *, queue: int,
                 ended: Callable[[Ticket], None] = lambda ticket: None) -> None:
        self.model, self.scheduler = model, model.scheduler
        #: Requests that may be there at a time.
        self.most = len(self.scheduler.slots) + queue
        #: Seconds in which the cards had something to do.
        self.busy = 0.0
        #: Why the cards cannot be used at the moment.
        self.error: Exception | None = None
        self._ended = ended
        self._changed = threading.Condition()
        self._inbox: list[Ticket] = []
        self._tickets: list[Ticket] = []    # of the thread alone
        self._count = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="heddle-engine", daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """Requests that have not ended."""
        return self._count

    def submit(self, requests: Sequence[Request], stops: tuple[str, ...],
               post: Callable[[Event], None], *, whole: bool = False) -> list[Ticket]:
        """Hand in requests that are taken together or not at all.

        Parameters
        ----------
        requests : sequence of Request
        stops : tuple of str
            Stop texts.
        post : callable
            Is given events, from the engine's thread.
        whole : bool
            One event for each request, at its end: nobody waits for pieces of it.

        Raises
        ------
        Busy
        Closing
        """
        tickets = [Ticket(index, request, stops, post, whole)
                   for index, request in enumerate(requests)]
        with self._changed:
            if self._closing:
                raise Closing
            if self._count + len(tickets) > self.most:
                raise Busy
            self._count += len(tickets)
            self._inbox += tickets
            self._changed.notify()
        return tickets

    def cancel(self, tickets: Sequence[Ticket]) -> None:
        """Give requests up; harmless for those that have ended."""
        with self._changed:
            for ticket in tickets:
                ticket.cancelled = True
            self._changed.notify()

    def close(self) -> None:
        """Give up what still runs, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    # ---- The thread. ----

    def _run(self) -> None:
        while self._take():
            begun = time.monotonic()
            try:
                self.scheduler.step()
                self.error = None
            except CardError as error:
                self.error = error
            except Exception as error:
                # A fault of ours must not leave requests waiting for ever: the next step resets
                # the cards and ends what ran.
                _LOG.exception("a step failed")
                self.error = error
            self.busy += time.monotonic() - begun
            self._report()
        for ticket in self._tickets:
            if ticket.output is not None:
                self.scheduler.cancel(ticket.output.sequence)
        self._report()

    def _take(self) -> bool:
        """Wait until there is something to do; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._inbox or self._tickets)
            new, self._inbox = self._inbox, []
        for ticket in new:
            sequence = self.scheduler.submit(ticket.request)
            ticket.output = Output(self.scheduler, sequence, self.model.tokenizer, ticket.stops)
        self._tickets += new
        for ticket in self._tickets:
            if ticket.cancelled and ticket.output is not None:
                self.scheduler.cancel(ticket.output.sequence)
        return not self._closing

    def _report(self) -> None:
        left: list[Ticket] = []
        gone: list[Ticket] = []
        for ticket in self._tickets:
            output = ticket.output
            assert output is not None
            ticket.pieces += output.update()
            ended = output.finish is not None
            (gone if ended else left).append(ticket)
            if ended or (ticket.pieces and not ticket.whole):
                self._post(ticket, Event(
                    index=ticket.index, pieces=tuple(ticket.pieces), finish=output.finish,
                    # A prompt is scored before the first new token.
                    foretold=() if ticket.begun else tuple(output.sequence.foretold),
                    first=not ticket.begun, error=output.sequence.error))
                ticket.begun = True
                ticket.pieces.clear()
        self._tickets = left
        with self._changed:
            self._count -= len(gone)
        for ticket in gone:
            self._ended(ticket)

    def _post(self, ticket: Ticket, event: Event) -> None:
        try:
            ticket.post(event)
        except RuntimeError:
            # Whoever asked is gone, with its event loop.
            ticket.cancelled = True
