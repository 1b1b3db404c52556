# SPDX-License-Identifier: Apache-2.0
"""Errors as answers."""

import json
import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .schemas import MOST_PROMPTS, UNSUPPORTED, ErrorBody

#: Kinds of errors, by status.
KINDS = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error",
         503: "server_error", **dict.fromkeys((400, 404, 405, 408, 413), "invalid_request_error")}

#: Arguments that have several forms: the checker says what each of them is not.
UNIONS = {"prompt": "a text, a list of texts, a list of tokens or a list of such lists, none of "
                    f"them empty and at most {MOST_PROMPTS} prompts",
          "stop": "a text of at least one character, or up to 4 of them"}
#: What FastAPI says of a body that it cannot even read as text, or whose numbers are too long.
_UNREADABLE = "There was an error parsing the body"


class Refused(Exception):
    """A request that is answered with an error.

    Parameters
    ----------
    status : int
        Of HTTP.
    message : str
        One sentence.
    param, code : str, optional
        The argument that is wrong, and a name for what is.
    retry : int, optional
        Seconds after which to try again.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None,
                 code: str | None = None, retry: int | None = None) -> None:
        self.status, self.param, self.code, self.retry = status, param, code, retry
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        """As the OpenAI API writes it."""
        return {"error": {"message": str(self), "type": KINDS[self.status], "param": self.param,
                          "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer."""
        headers = {"Retry-After": str(self.retry)} if self.retry is not None else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def text(error: Refused) -> str:
    """An error as an event of a stream."""
    return json.dumps(error.body())


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the API's description says of errors."""
    return {status: {"model": ErrorBody} for status in statuses}


def _place(found: dict[str, Any]) -> str:
    """Which part of a body is wrong; the branches of a union have names that tell nobody."""
    place = ""
    for part in found["loc"][1:]:
        if isinstance(part, int):
            place += f"[{part}]"
        elif "[" not in part and part not in ("str", "int", "constrained-str"):
            place += f".{part}"
    return place.removeprefix(".")


def _sentence(found: dict[str, Any], place: str) -> str:
    """What was wrong with a body, said plainly where the checker does not."""
    name = re.split(r"[.\[]", place)[0]
    if name in UNSUPPORTED:
        return f"{name} is not supported: leave it out"
    if found["type"] == "json_invalid":
        return f"the body must be JSON: {found['ctx']['error']}"
    if name in UNIONS:
        return f"{name} must be {UNIONS[name]}"
    if not place and found["type"] == "model_attributes_type":
        return "the body must be a JSON object, sent with Content-Type: application/json"
    return f"{place or 'the body'}: {found['msg']}"


def install(app: FastAPI) -> None:
    """Answer all errors in one form."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = "" if first["type"] == "json_invalid" else _place(first)
        return Refused(400, _sentence(first, place), param=place or None).response()

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return Refused(400, "the client has gone").response()     # nobody reads it

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        # Unknown paths and methods; a body that is no JSON at all.
        status = error.status_code if error.status_code in KINDS else 400
        answer = Refused(status, "the body must be JSON in UTF-8" if error.detail == _UNREADABLE
                         else f"{request.method} {request.url.path}: {error.detail}").response()
        answer.headers.update(error.headers or {})
        return answer
