# SPDX-License-Identifier: Apache-2.0
"""The HTTP server that runs the application, as `heddle serve` does."""

import uvicorn
from fastapi import FastAPI

#: Seconds that an idle connection stays open.  Longer than clients keep theirs (httpx, and with it
#: the `openai` client: 5; load balancers: 60), so that the client is the one that closes it:
#: whoever sends a request while the other end closes loses it, and cannot know whether it ran.
KEEP_ALIVE = 75


def server(app: FastAPI, *, grace: int | None = None) -> uvicorn.Server:
    """A server of ``app``; ``run(sockets=[…])`` serves until ``should_exit`` or a signal.

    Parameters
    ----------
    app : FastAPI
        Of `create`.
    grace : int, optional
        Seconds that running requests have to end; None waits for all.
    """
    return uvicorn.Server(uvicorn.Config(
        app, log_level="warning", lifespan="on", timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=grace))
