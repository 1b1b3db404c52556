# SPDX-License-Identifier: Apache-2.0
"""The HTTP server that runs the application, as `heddle serve` does."""

import asyncio
import contextlib
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds that an idle connection stays open.  Longer than clients keep theirs (httpx, and with it
#: the `openai` client: 5; load balancers: 60), so that the client is the one that closes it:
#: whoever sends a request while the other end closes loses it, and cannot know whether it ran.
KEEP_ALIVE = 75
#: Seconds in which requests that are given up get their answers: a step of the cards ends first.
ANSWERS = 10
#: Seconds from a connection, or from the first byte of a later request, to the end of its head.
HEAD_SECONDS = 30.0
#: Connections at a time; one more is told so and closed.
MOST_CONNECTIONS = 512
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n" \
    b"content-type: text/plain\r\ncontent-length: %d\r\n\r\n%s"
_TOO_MANY = f"the server has {MOST_CONNECTIONS} connections: try again later".encode()


class _Protocol(H11Protocol):
    """Does not wait for ever for a request that has begun, or never does.

    uvicorn's own limit is for connections on which not a byte has come since an answer.
    """

    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.write(_FULL % (len(_TOO_MANY), _TOO_MANY))
            transport.close()
            return
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._answering:
            self._unwatch()
        elif self._watch is None:
            self._expect()

    def on_response_complete(self) -> None:
        super().on_response_complete()      # may go on with what came meanwhile
        if not self._answering and self.conn.trailing_data[0]:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect(self) -> None:
        self._unwatch()
        self._watch = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None


class _Server(uvicorn.Server):
    """Gives requests up when their grace ends, and lets them say so.

    uvicorn alone would cancel their tasks: a status of 500, or a stream without an end.
    """

    def __init__(self, app: FastAPI, config: uvicorn.Config, grace: int | None) -> None:
        super().__init__(config)
        self._engine, self._bodies, self._grace = app.state.engine, app.state.bodies, grace

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        giving_up = asyncio.create_task(self._give_up())
        await super().shutdown(sockets)
        giving_up.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await giving_up

    async def _give_up(self) -> None:
        if self._grace is not None:
            await asyncio.sleep(self._grace)
            self._bodies.give_up()
            await asyncio.to_thread(self._engine.close)


def server(app: FastAPI, *, grace: int | None = None) -> uvicorn.Server:
    """A server of ``app``; ``run(sockets=[…])`` serves until ``should_exit`` or a signal.

    Parameters
    ----------
    app : FastAPI
        Of `create`.
    grace : int, optional
        Seconds that running requests have to end, once it is to stop; those that have not are
        answered 503. None waits for all.
    """
    return _Server(app, uvicorn.Config(
        app, log_level="warning", lifespan="on", http=_Protocol, timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=None if grace is None else grace + ANSWERS), grace)
