# SPDX-License-Identifier: Apache-2.0
"""What is refused before anybody reads it: large bodies, and strangers."""

import asyncio
import contextlib
import secrets

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import Refused

#: Bytes and seconds for which the rest of a refused body is taken and thrown away: whoever is still
#: sending when the connection ends may not see the answer.
LINGER_BYTES, LINGER_SECONDS = 8 << 20, 2.0


class Bodies:
    """Bodies that are still coming, for a server that wants to end."""

    def __init__(self) -> None:
        self.closing = False
        self._waits: set[asyncio.Timeout] = set()

    def give_up(self) -> None:
        """Wait for none of them any more."""
        self.closing = True
        for wait in self._waits:
            if not wait.expired():      # one that has cannot be changed, and ends by itself
                wait.reschedule(0.0)

    async def next(self, receive: Receive, end: float) -> Message:
        """The next message, or TimeoutError."""
        async with asyncio.timeout_at(0.0 if self.closing else end) as wait:
            self._waits.add(wait)
            try:
                return await receive()
            finally:
                self._waits.discard(wait)


class Limits:
    """Refuses bodies above ``most`` bytes (413) and requests without the key (401).

    Parameters
    ----------
    app : ASGI application
    most : int
    key : str, optional
        Wanted of every path below ``/v1`` and of ``/metrics``; None admits everybody.
    bodies : Bodies
    seconds : float
        In which a body must have come (408).
    """

    def __init__(self, app: ASGIApp, *, most: int, key: str | None, bodies: Bodies,
                 seconds: float = 30.0) -> None:
        self._app, self._most, self._seconds, self._bodies = app, most, seconds, bodies
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), scope["path"]
        body = _Body(receive, self._most, self._seconds, self._bodies)
        body.whole = "content-length" not in headers and "transfer-encoding" not in headers
        send = body.ending(send)
        if not (path.startswith("/v1/") or path == "/metrics") or self._admits(headers):
            length = headers.get("content-length", "0")
            # A length that is no number is refused by the server itself.
            if length.isdecimal() and int(length) > self._most:
                await Refused(413, body.large).response()(scope, receive, send)
                return
            await self._app(scope, body.receive, send)
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


class _Body:
    """The body of one request as it comes."""

    def __init__(self, receive: Receive, most: int, seconds: float, bodies: Bodies) -> None:
        self._receive, self._most, self._seconds = receive, most, seconds
        self._bodies, self._size = bodies, 0
        self._end = asyncio.get_running_loop().time() + seconds
        #: Whether nothing more of it can come.
        self.whole = False
        self.large = f"the body must have at most {most} bytes"

    async def receive(self) -> Message:
        """``receive`` that also finds a body without a length, and one that does not come."""
        if self.whole:
            return await self._receive()        # waits for the client to go away
        # The only exception that FastAPI lets through from here is HTTPException.
        try:
            message = await self._bodies.next(self._receive, self._end)
        except TimeoutError:
            if self._bodies.closing:
                raise HTTPException(503, "the server is closing") from None
            raise HTTPException(408, f"the body must come within {self._seconds:g} s") from None
        self.whole = not message.get("more_body")
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            raise HTTPException(413, self.large)
        return message

    def ending(self, send: Send) -> Send:
        """``send`` that ends the connection behind an answer whose request has not been read."""
        async def checked(message: Message) -> None:
            if message["type"] == "http.response.start" and not self.whole:
                await self._linger()
                if not self.whole:
                    message = {**message, "headers": [*message.get("headers", ()),
                                                      (b"connection", b"close")]}
            await send(message)

        return checked

    async def _linger(self) -> None:
        end, left = asyncio.get_running_loop().time() + LINGER_SECONDS, LINGER_BYTES
        with contextlib.suppress(TimeoutError):
            while not self.whole and left > 0:
                message = await self._bodies.next(self._receive, end)
                left -= len(message.get("body", b""))
                self.whole = not message.get("more_body")
