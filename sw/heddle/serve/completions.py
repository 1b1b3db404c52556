# SPDX-License-Identifier: Apache-2.0
"""One ``POST /v1/completions``: from its body to texts, whole or as they are made."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

from ..errors import RunError, UserError
from ..model import Model
from ..request import Finish, Request, Token
from ..text import stop_texts
from ..tokenizer import BROKEN
from .engine import Busy, Closing, Engine, Event, Ticket
from .errors import Refused
from .schemas import MOST_NEW, Choice, Completion, CompletionRequest, Logprobs, Usage


def prompts(body: CompletionRequest) -> list[str | list[int]]:
    """The prompts of a body, whatever form they have."""
    given = body.prompt
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [[token for token in given if isinstance(token, int)]]
    return [each for each in given if not isinstance(each, int)]


def requests(model: Model, body: CompletionRequest) -> list[Request]:
    """What to ask the cards for: ``n`` texts for each prompt."""
    if body.best_of not in (None, body.n or 1):
        raise Refused(400, f"best_of must equal n ({body.n or 1}), not {body.best_of}",
                      param="best_of")
    found: list[Request] = []
    temperature = 1.0 if body.temperature is None else body.temperature
    for prompt in prompts(body):
        for _ in range(body.n or 1):
            seed = None if body.seed is None else (body.seed + len(found)) % 2**64
            try:
                found.append(model.request(
                    prompt, max_new_tokens=MOST_NEW if body.max_tokens is None else body.max_tokens,
                    temperature=temperature,
                    # Clients send these with temperature 0, too, where nothing is drawn.
                    top_p=None if body.top_p in (None, 1) or not temperature else body.top_p,
                    top_k=body.top_k if temperature else None,
                    repetition_penalty=body.repetition_penalty or 1.0,
                    presence_penalty=body.presence_penalty or 0.0,
                    frequency_penalty=body.frequency_penalty or 0.0, seed=seed,
                    logprobs=body.logprobs, echo=bool(body.echo)))
            except UserError as error:
                said = str(error).replace("max_new_tokens", "max_tokens")
                raise Refused(400, said, param="max_tokens" if said.startswith("max_tokens")
                              else None, code="context_length_exceeded"
                              if "fit the context" in said else None) from None
    return found


class Texts:
    """The texts of one request while they are made; leaving it gives up what still runs.

    Parameters
    ----------
    engine : Engine
    body : CompletionRequest
    wanted : list of Request
    name : str
        The model's.
    seconds : float
        That they may take.
    """

    def __init__(self, engine: Engine, body: CompletionRequest, wanted: list[Request],
                 name: str, seconds: float) -> None:
        self._seconds = seconds
        self._engine, self._body, self._wanted = engine, body, wanted
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tickets: list[Ticket] = []
        self._new = [0] * len(wanted)
        self._offsets = [0] * len(wanted)
        #: Tokens from the last place at which all characters were complete.
        self._parts: list[list[int]] = [[] for _ in wanted]
        self._id, self._created, self._name = f"cmpl-{uuid.uuid4().hex}", int(time.time()), name

    def submit(self) -> None:
        """Hand the requests to the engine."""
        loop = asyncio.get_running_loop()
        if len(self._wanted) > self._engine.most:
            raise Refused(400, f"prompts times n must be at most {self._engine.most} on this "
                          f"server, not {len(self._wanted)}", param="n")

        def post(event: Event) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, event)

        try:
            self._tickets = self._engine.submit(
                self._wanted, stop_texts(self._body.stop), post, whole=not self._body.stream)
        except Busy:
            raise Refused(429, f"the server accepts {self._engine.most} texts at a time: try "
                          "again later, or ask for fewer", code="queue_full", retry=1) from None
        except Closing:
            raise Refused(503, "the server is closing", code="closing") from None

    def cancel(self) -> None:
        """Give up what still runs."""
        self._engine.cancel(self._tickets)

    @property
    def usage(self) -> Usage:
        """Tokens so far; a prompt counts once, however many texts it gets."""
        times = self._body.n or 1
        read = sum(len(request.prompt) for request in self._wanted[::times])
        return Usage(prompt_tokens=read, completion_tokens=sum(self._new),
                     total_tokens=read + sum(self._new))

    def completion(self, *choices: Choice, usage: Usage | None = None) -> Completion:
        """An answer, or an event of a stream."""
        return Completion(id=self._id, created=self._created, model=self._name,
                          choices=list(choices), usage=usage)

    async def pieces(self) -> AsyncIterator[Choice]:
        """Pieces of the texts as they are made, each with its tokens.

        Raises
        ------
        Refused
            One of them failed, or they took too long.
        """
        left = len(self._wanted)
        end = asyncio.get_running_loop().time() + self._seconds
        while left:
            try:
                async with asyncio.timeout_at(end):
                    event = await self._events.get()
            except TimeoutError:
                raise Refused(503, f"the text took longer than the server's limit of "
                              f"{self._seconds:g} s", code="timeout", retry=1) from None
            choice = self._choice(event)
            if event.finish is not None:
                left -= 1
                if event.finish in (Finish.ERROR, Finish.CANCELLED):
                    raise failure(event)
                choice.finish_reason = "stop" if event.finish is Finish.STOP else "length"
            yield choice

    def _choice(self, event: Event) -> Choice:
        request, index = self._wanted[event.index], event.index
        text = "".join(piece for _, piece in event.pieces)
        tokens: list[Token] = [token for token, _ in event.pieces]
        self._new[index] += len(tokens)
        if request.echo and event.first:
            text = self._engine.model.tokenizer.decode(request.prompt) + text
            tokens = [Token(request.prompt[0]), *event.foretold, *tokens]
        return Choice(index=index, text=text, logprobs=self._logprobs(index, tokens)
                      if request.logprobs is not None else None)

    def _logprobs(self, index: int, tokens: list[Token]) -> Logprobs:
        decode = self._engine.model.tokenizer.decode
        found = Logprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for token in tokens:
            text = decode([token.id])
            found.tokens.append(text)
            found.token_logprobs.append(token.logprob)
            best: dict[str, float] = {}
            for other, value in (*token.best, (token.id, token.logprob)):
                # Tokens of one text, such as halves of characters: the more likely one stays.
                if value is not None:
                    best.setdefault(decode([other]), value)
            found.top_logprobs.append(best if token.logprob is not None else None)
            # Parts of one character have its place.
            begun = decode(self._parts[index]).rstrip(BROKEN)
            found.text_offset.append(self._offsets[index] + len(begun))
            self._parts[index].append(token.id)
            if not (whole := decode(self._parts[index])).endswith(BROKEN):
                self._offsets[index] += len(whole)
                self._parts[index].clear()
        return found


def failure(event: Event) -> Refused:
    """What a request that ended badly is answered."""
    if isinstance(event.error, RunError):
        return Refused(400, str(event.error), code="range")
    if event.error is not None:
        return Refused(503, f"the cards failed: {event.error}", code="card_error", retry=5)
    return Refused(503, "the server closed before the text was ready", code="closing")
