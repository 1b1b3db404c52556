# SPDX-License-Identifier: Apache-2.0
"""What is refused before anybody reads it: large bodies, and strangers."""

import asyncio
import secrets

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import Refused


class Limits:
    """Refuses bodies above ``most`` bytes (413) and requests without the key (401).

    Parameters
    ----------
    app : ASGI application
    most : int
    key : str, optional
        Wanted of every path below ``/v1`` and of ``/metrics``; None admits everybody.
    seconds : float
        In which a body must have come (408).
    """

    def __init__(self, app: ASGIApp, *, most: int, key: str | None, seconds: float = 30.0) -> None:
        self._app, self._most, self._seconds = app, most, seconds
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), scope["path"]
        if not (path.startswith("/v1/") or path == "/metrics") or self._admits(headers):
            length = headers.get("content-length", "0")
            # A length that is no number is refused by the server itself.
            if length.isdecimal() and int(length) > self._most:
                await Refused(413, self._large()).response()(scope, receive, send)
                return
            await self._app(scope, self._counted(receive), send)
            return
        await Refused(401, "the request must have the header Authorization: Bearer, with the "
                      "server's key", code="invalid_api_key").response()(scope, receive, send)

    def _admits(self, headers: Headers) -> bool:
        if self._key is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Compared in a time that does not tell how much of it is right.
        return secrets.compare_digest(given.strip().encode(), self._key) \
            and scheme.lower() == "bearer"

    def _large(self) -> str:
        return f"the body must have at most {self._most} bytes"

    def _counted(self, receive: Receive) -> Receive:
        """``receive`` that also finds a body without a length, and one that does not come."""
        size, end = 0, asyncio.get_running_loop().time() + self._seconds
        whole = False

        async def counting() -> Message:
            nonlocal size, whole
            if whole:
                return await receive()      # waits for the client to go away
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the body must come within {self._seconds:g} s") from None
            whole = not message.get("more_body")
            size += len(message.get("body", b""))
            if size > self._most:
                # The only exception that FastAPI lets through from here.
                raise HTTPException(413, self._large())
            return message

        return counting
