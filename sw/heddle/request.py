# SPDX-License-Identifier: Apache-2.0
"""What is asked of a model, and what has come of it."""

import dataclasses
import enum
import time

import numpy as np

from .sampling import Sampling


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Tokens to go on from, and how.

    Attributes
    ----------
    prompt : tuple of int
        At least one token.
    max_new_tokens : int
        0 only scores the prompt.
    sampling : Sampling
    stop_tokens : tuple of int
        Tokens that end the text; the one that did is its last.
    logprobs : int, optional
        Give the log probability of each new token, and of so many best ones at its place.
    echo : bool
        With ``logprobs``: of the prompt's tokens as well, but the first, before which there is
        none.
    """

    prompt: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    stop_tokens: tuple[int, ...] = ()
    logprobs: int | None = None
    echo: bool = False

    @property
    def scored(self) -> bool:
        """Whether the prompt's tokens are foretold one by one."""
        return self.echo and self.logprobs is not None


@dataclasses.dataclass(frozen=True)
class Token:
    """A token of a text, and how likely the model found it."""

    id: int
    #: In nats, of all logits at temperature 1; None if nobody asked.
    logprob: float | None = None
    #: The best tokens at its place, best first, with their log probabilities.
    best: tuple[tuple[int, float], ...] = ()


class Finish(enum.StrEnum):
    """Why a sequence ended."""

    #: A stop token or a stop text.
    STOP = "stop"
    #: As many tokens as were asked for.
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


class Sequence:
    """A request on its way: what the scheduler knows of it.

    Attributes
    ----------
    request : Request
    new : list of Token
        So far.
    foretold : list of Token
        The prompt's tokens from the second on, if they are scored.
    finish : Finish or None
        None until it has ended.
    error : Exception or None
        Why it failed.
    slot : int or None
        Whose K and V it has, while it runs.
    position : int
        K and V of all positions before have been made.
    submitted, started, first, ended : float or None
        When, by ``time.monotonic``: the first is that of the first new token.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.new: list[Token] = []
        self.foretold: list[Token] = []
        self.finish: Finish | None = None
        self.error: Exception | None = None
        self.slot: int | None = None
        self.position = 0
        #: Commands of one token each, after one of several that failed.
        self.singly = False
        #: Prompt and new tokens.
        self.tokens = list(request.prompt)
        self.rng = np.random.default_rng(request.sampling.seed)
        self.submitted = time.monotonic()
        self.started: float | None = None
        self.first: float | None = None
        self.ended: float | None = None

    @property
    def pending(self) -> int:
        """Tokens whose K and V are still to be made before the next one is known."""
        return len(self.tokens) - self.position

    @property
    def left(self) -> int:
        """New tokens that may still come."""
        return self.request.max_new_tokens - len(self.new)

    def take(self, token: Token) -> None:
        """A new token."""
        if self.first is None:
            self.first = time.monotonic()
        self.new.append(token)
        self.tokens.append(token.id)
        if token.id in self.request.stop_tokens:
            self.end(Finish.STOP)
        elif not self.left:
            self.end(Finish.LENGTH)

    def end(self, finish: Finish, error: Exception | None = None) -> None:
        """Nothing more comes."""
        if self.finish is None:
            self.finish, self.error, self.ended = finish, error, time.monotonic()
