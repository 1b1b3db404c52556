# SPDX-License-Identifier: Apache-2.0
"""Texts that come of requests."""

from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Self

from .request import Finish, Request, Sequence, Token
from .scheduler import Scheduler
from .text import Text
from .tokenizer import Tokenizer


class Generation(str):
    """A new text, with what is known of it.

    Attributes
    ----------
    prompt : str
    prompt_token_ids, token_ids : tuple of int
        Of the prompt and of the text; a token that ended it is the last.
    finish_reason : Finish
        ``stop`` (a stop token or text) or ``length``.
    logprobs : tuple of Token or None
        The same tokens with their log probabilities, if they were asked for.
    """

    prompt: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    finish_reason: Finish
    logprobs: tuple[Token, ...] | None

    @property
    def text(self) -> str:
        """The text alone."""
        return str(self)


class Output:
    """The text of a sequence while it runs.

    Parameters
    ----------
    scheduler : Scheduler
        That runs it, and is told when a stop text ends it.
    sequence : Sequence
    tokenizer : Tokenizer
    stops : tuple of str
    """

    def __init__(self, scheduler: Scheduler, sequence: Sequence, tokenizer: Tokenizer,
                 stops: tuple[str, ...]) -> None:
        self.sequence, self._scheduler = sequence, scheduler
        self._text = Text(tokenizer, stops)
        #: New tokens, up to the one that ended the text.
        self.tokens: list[Token] = []
        self.finish: Finish | None = None
        self._pieces: list[str] = []

    def update(self) -> Iterator[tuple[Token, str]]:
        """New tokens since the last call, each with the text that became certain with it."""
        new, finish = self._scheduler.state(self.sequence, len(self.tokens))
        for place, token in enumerate(new, 1):
            if self.finish is not None:
                break
            self.tokens.append(token)
            piece = self._text.add(token.id)
            if self._text.stopped:
                self.finish = Finish.STOP
                self._scheduler.cancel(self.sequence, Finish.STOP)
            elif place == len(new) and finish is not None:
                self.finish = finish
                piece += self._text.end()
                if self._text.stopped:
                    self.finish = Finish.STOP
            self._pieces.append(piece)
            yield token, piece
        if self.finish is None and finish is not None:
            self.finish = finish        # without a new token

    @property
    def text(self) -> str:
        """All pieces so far."""
        return "".join(self._pieces)

    def result(self, prompt: str) -> Generation:
        """What has come of it, at its end.

        Raises
        ------
        Exception
            What it failed with.
        """
        if self.sequence.error is not None:
            raise self.sequence.error
        if self.finish is None:
            raise ValueError("a generation must have ended before it has a result")
        request, made = self.sequence.request, Generation(self.text)
        made.prompt, made.prompt_token_ids = prompt, request.prompt
        made.token_ids = tuple(token.id for token in self.tokens)
        made.finish_reason = self.finish
        made.logprobs = None if request.logprobs is None else tuple(self.tokens)
        return made


class Stream(Iterator[str]):
    """The text of one request, piece by piece, while the cards make it.

    A context manager, too: at its end, and with :meth:`close`, the rest of the text is given up.
    A stream that is left half read takes no part of the cards once it is closed or forgotten.

    Attributes
    ----------
    generation : Generation or None
        The whole, when the last piece has been read.
    """

    def __init__(self, scheduler: Scheduler, tokenizer: Tokenizer, request: Request, *,
                 prompt: str = "", stops: tuple[str, ...] = ()) -> None:
        self.generation: Generation | None = None
        self._pieces = _pieces(scheduler, tokenizer, request, prompt, stops)

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            self.generation = end.value or self.generation
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give up the rest of the text."""
        self._pieces.close()


# No method: a stream that its own generator knew would not end when it is forgotten.
def _pieces(scheduler: Scheduler, tokenizer: Tokenizer, request: Request, prompt: str,
            stops: tuple[str, ...]) -> Generator[str, None, Generation]:
    output = Output(scheduler, scheduler.submit(request), tokenizer, stops)
    try:
        while output.finish is None:
            scheduler.step()
            for _, piece in output.update():
                if piece:
                    yield piece
        return output.result(prompt)
    finally:
        scheduler.cancel(output.sequence)
