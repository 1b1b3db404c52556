# SPDX-License-Identifier: Apache-2.0
"""The HTTP server that runs the application, as `heddle serve` does."""

import asyncio
import contextlib
import socket

import uvicorn
from fastapi import FastAPI

#: Seconds that an idle connection stays open.  Longer than clients keep theirs (httpx, and with it
#: the `openai` client: 5; load balancers: 60), so that the client is the one that closes it:
#: whoever sends a request while the other end closes loses it, and cannot know whether it ran.
KEEP_ALIVE = 75
#: Seconds in which requests that are given up get their answers: a step of the cards ends first.
ANSWERS = 10


class _Server(uvicorn.Server):
    """Gives requests up when their grace ends, and lets them say so.

    uvicorn alone would cancel their tasks: a status of 500, or a stream without an end.
    """

    def __init__(self, app: FastAPI, config: uvicorn.Config, grace: int | None) -> None:
        super().__init__(config)
        self._engine, self._grace = app.state.engine, grace

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        giving_up = asyncio.create_task(self._give_up())
        await super().shutdown(sockets)
        giving_up.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await giving_up

    async def _give_up(self) -> None:
        if self._grace is not None:
            await asyncio.sleep(self._grace)
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
        app, log_level="warning", lifespan="on", timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=None if grace is None else grace + ANSWERS), grace)
