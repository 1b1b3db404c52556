# SPDX-License-Identifier: Apache-2.0
"""The server: the OpenAI API's completions, on cards."""

import asyncio
import contextlib
import dataclasses
import importlib.metadata
import pathlib
import time
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect

from ..model import Model
from . import errors
from .completions import Texts, requests
from .engine import Engine, Ticket
from .errors import Refused, responses
from .limits import Bodies, Limits
from .metrics import Counted, Metrics
from .schemas import Choice, Completion, CompletionRequest, Health, ModelCard, ModelList

PAGE = pathlib.Path(__file__).with_name("page.html")
#: Seconds between two looks at whether a client is still there.
PATIENCE = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limit:
    """What a server accepts."""

    #: Requests that may wait for a slot.
    queue: int = 64
    #: Bytes of a body.
    body: int = 1 << 20
    #: Seconds that a request may take, waiting included.
    seconds: float = 600.0
    #: Seconds in which a body must have come.
    body_seconds: float = 30.0


def create(model: Model, *, name: str, limit: Limit | None = None, key: str | None = None
           ) -> FastAPI:
    """The server of a model, as an ASGI application.

    Parameters
    ----------
    model : Model
        Nobody else may use it; it is not closed at the end.
    name : str
        What clients call it.
    limit : Limit, optional
    key : str, optional
        That clients must show; without one everybody is served.
    """
    limit, metrics, begun = limit or Limit(), Metrics(), int(time.time())

    def ended(ticket: Ticket) -> None:
        output = ticket.output
        if output is not None and output.finish is not None:
            metrics.ended(output.sequence, output.finish)

    engine = Engine(model, queue=limit.queue, ended=ended)
    metrics.watch(engine)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.close)

    app = FastAPI(title="Heddle", version=importlib.metadata.version("heddle-fpga"),
                  lifespan=lifespan, description="Text from language models on FPGA cards.")
    app.state.engine, app.state.metrics, app.state.bodies = engine, metrics, Bodies()
    errors.install(app)
    app.add_middleware(Limits, most=limit.body, key=key, bodies=app.state.bodies,
                       seconds=limit.body_seconds)
    app.add_middleware(Counted, metrics=metrics)    # outermost: it sees what the limits refuse

    def known(wanted: str) -> None:
        if wanted != name:
            raise Refused(404, f"the model must be {name!r}, not {wanted!r}", param="model",
                          code="model_not_found")

    @app.post("/v1/completions", response_model=Completion,
              responses=responses(400, 401, 404, 408, 413, 429, 503))
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Texts that follow prompts, whole or as server-sent events."""
        known(body.model)
        if body.stream_options and not body.stream:
            raise Refused(400, "stream_options must be left out unless stream is true",
                          param="stream_options")
        wanted = await asyncio.to_thread(requests, model, body)
        texts = Texts(engine, body, wanted, name, limit.seconds)
        texts.submit()
        if body.stream:
            return StreamingResponse(
                _events(texts, body, metrics), media_type="text/event-stream",
                headers={"Cache-Control": "no-cache"})
        return JSONResponse((await _whole(texts, len(wanted), request)).model_dump())

    @app.get("/v1/models", responses=responses(401))
    async def models() -> ModelList:
        """The model that is served."""
        return ModelList(data=[ModelCard(id=name, created=begun)])

    @app.get("/v1/models/{wanted:path}", responses=responses(401, 404))
    async def one_model(wanted: str) -> ModelCard:
        """One model."""
        known(wanted)
        return ModelCard(id=name, created=begun)

    @app.get("/healthz", responses={503: {"model": Health}})
    async def health() -> JSONResponse:
        """Whether the cards can be used."""
        found = Health(status="ok" if engine.error is None else "failed", cards=model.cards,
                       detail=None if engine.error is None else str(engine.error))
        return JSONResponse(found.model_dump(), 200 if engine.error is None else 503)

    @app.get("/metrics", response_class=Response, responses=responses(401))
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        """A page to try the model on."""
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))

    return app


async def _whole(texts: Texts, count: int, request: Request) -> Completion:
    """All texts of a request, when they are ready."""
    choices: dict[int, Choice] = {}

    async def collect() -> None:
        async for piece in texts.pieces():
            have = choices.setdefault(piece.index, piece)
            if have is not piece:
                have.text += piece.text
                have.finish_reason = piece.finish_reason
                if have.logprobs and piece.logprobs:
                    for field in type(have.logprobs).model_fields:
                        getattr(have.logprobs, field).extend(getattr(piece.logprobs, field))

    async def gone() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(PATIENCE)

    work, watch = asyncio.ensure_future(collect()), asyncio.ensure_future(gone())
    try:
        done, _ = await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if work not in done:
            raise ClientDisconnect
        work.result()
    finally:
        texts.cancel()
        for task in (work, watch):
            task.cancel()
    return texts.completion(*(choices[index] for index in range(count)), usage=texts.usage)


async def _events(texts: Texts, body: CompletionRequest, metrics: Metrics) -> AsyncIterator[str]:
    """Server-sent events of a request."""
    def event(completion: Completion) -> str:
        return f"data: {completion.model_dump_json()}\n\n"

    try:
        async for piece in texts.pieces():
            if piece.text or piece.finish_reason or piece.logprobs:
                yield event(texts.completion(piece))
        if body.stream_options and body.stream_options.include_usage:
            yield event(texts.completion(usage=texts.usage))
        yield "data: [DONE]\n\n"
    except Refused as error:
        # The status has been sent already: the client finds the error in the stream.
        metrics.errors.labels(str(error.status)).inc()
        yield f"data: {errors.text(error)}\n\n"
    finally:
        texts.cancel()
