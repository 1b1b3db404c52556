# SPDX-License-Identifier: Apache-2.0
"""A model on cards: from a prompt to text."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from .card import open_cards, parse_cards
from .checkpoint import Checkpoint
from .errors import UserError
from .image import Pruned
from .layout import Layout, layouts
from .options import Options
from .prune import detect, pattern_of
from .runtime import Runtime
from .sampling import Sampling, best_first, choose
from .tokenizer import Tokenizer

#: New tokens of one command: few enough that text appears as it is made.
CHUNK = 8

Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """A text and where it came from."""

    prompt: str
    prompt_token_ids: tuple[int, ...]
    #: The new text and its tokens, a token that ended it included.
    text: str
    token_ids: tuple[int, ...]


class Model:
    """A GPT-2 on cards; make one with :func:`load`.

    A model is a context manager, which gives the cards back at its end.
    """

    def __init__(self, checkpoint: Checkpoint, runtime: Runtime, cards: str) -> None:
        self.checkpoint, self.runtime = checkpoint, runtime
        self.tokenizer = Tokenizer(checkpoint.folder)
        #: As given on the command line.
        self.cards = cards
        self._stops = checkpoint.stop_tokens

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the cards back."""
        self.runtime.close()

    @property
    def context(self) -> int:
        """Positions that a sequence may have."""
        return self.runtime.layout.context

    def generate(self, prompt: str, *, max_new_tokens: int = 64, temperature: float = 0.0,
                 top_k: int | None = None, top_p: float | None = None,
                 seed: int | None = None) -> str:
        """The text that follows ``prompt``; see :meth:`stream`."""
        return "".join(self.stream(prompt, max_new_tokens=max_new_tokens, temperature=temperature,
                                   top_k=top_k, top_p=top_p, seed=seed))

    def stream(self, prompt: str, *, max_new_tokens: int = 64, temperature: float = 0.0,
               top_k: int | None = None, top_p: float | None = None,
               seed: int | None = None) -> Iterator[str]:
        """The text that follows ``prompt``, piece by piece.

        Parameters
        ----------
        prompt : str
            An empty one starts a new text.
        max_new_tokens : int
            Where the text ends if the model does not end it.
        temperature, top_k, top_p, seed
            See :class:`~heddle.sampling.Sampling`; without a temperature every token is the best
            one.
        """
        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        tokens = self.tokens(self.encode(prompt), max_new_tokens, sampling)
        return self.tokenizer.pieces(tokens)

    def complete(self, prompt: str, *, max_new_tokens: int = 64,
                 sampling: Sampling | None = None,
                 show: Callable[[str], None] = lambda piece: None) -> Generation:
        """As :meth:`generate`, with all tokens; ``show`` is called with each piece of text."""
        ids, new, text = self.encode(prompt), [], []

        def kept() -> Iterator[int]:
            for token in self.tokens(ids, max_new_tokens, sampling or Sampling()):
                new.append(token)
                yield token

        for piece in self.tokenizer.pieces(kept()):
            show(piece)
            text.append(piece)
        return Generation(prompt=prompt, prompt_token_ids=tuple(ids), text="".join(text),
                          token_ids=tuple(new))

    def encode(self, prompt: str) -> list[int]:
        """The tokens of a prompt, never none."""
        tokens = self.tokenizer.encode(prompt)
        if tokens:
            return self._known(tokens)
        if self.checkpoint.start_token is None:
            raise UserError("the prompt must not be empty: the model has no token to start from")
        return [self.checkpoint.start_token]

    def _known(self, tokens: list[int]) -> list[int]:
        size = self.checkpoint.shape.vocabulary
        if max(tokens) >= size:
            raise UserError(f"the tokenizer must be the model's own: token {max(tokens)} must be "
                            f"below its vocab_size of {size}")
        return tokens

    def tokens(self, prompt: Sequence[int], count: int, sampling: Sampling) -> Iterator[int]:
        """Up to ``count`` tokens that follow the tokens of ``prompt``; a stop token is the last."""
        if count < 1:
            raise UserError(f"max_new_tokens must be at least 1, not {count}")
        # The last new token is never read back.
        if len(prompt) + count - 1 > self.context:
            raise UserError(f"prompt ({len(prompt)} tokens) and new tokens ({count}) must fit the "
                            f"context of {self.context}")
        return self._greedy(prompt, count) if sampling.greedy \
            else self._sampled(prompt, count, sampling)

    def _greedy(self, prompt: Sequence[int], count: int) -> Iterator[int]:
        result = self.runtime.read(prompt, 0)
        assert result is not None
        position, results = len(prompt), [result]
        while True:
            for result in results:
                yield result.token
                count -= 1
                if result.token in self._stops:
                    return
            if not count:
                return
            results = self.runtime.run([result.token], position, min(count, CHUNK),
                                       stops=self._stops)
            position += len(results)

    def _sampled(self, prompt: Sequence[int], count: int, sampling: Sampling) -> Iterator[int]:
        rng = np.random.default_rng(sampling.seed)
        few = sampling.candidates(self.runtime.layout.config.top_k)
        how: dict[str, Any] = {"candidates": few} if few is not None else {"store_logits": True}
        given, position = list(prompt), 0
        for left in reversed(range(count)):
            result = self.runtime.read(given, position, **how)
            assert result is not None
            if few is None:
                token = choose(*best_first(self.runtime.logits()), sampling, rng)
            else:
                token = choose(result.candidates, result.candidate_logits, sampling, rng)
            yield token
            if token in self._stops or not left:
                return
            position += len(given)
            given = [token]


def load(path: str | pathlib.Path, *, cards: str = "sim:tiny", activation: str = "a16",
         cache: str = "int16", pattern: str | None = None, context: int | None = None,
         split: str = "auto", progress: Progress = _silent, **card_options: Any) -> Model:
    """Load a model onto cards.

    Parameters
    ----------
    path : path
        Folder with ``config.json``, ``model.safetensors`` and ``tokenizer.json``.
    cards : str
        ``backend:config*count``, as in ``sim:tiny`` or ``sim:tiny*2``.
    activation, cache, pattern, context, split
        See :class:`~heddle.options.Options`.  A model that is denser than ``pattern`` is pruned.
    progress : callable
        Called with (parts loaded, parts).
    card_options
        For the backend.

    Raises
    ------
    UserError
        The model cannot run on such cards, or something is wrong with an argument.
    heddle.card.CardError
        A card failed.
    """
    options = Options(activation=activation, cache=cache, pattern=pattern, context=context,
                      split=split)
    checkpoint = Checkpoint(path)
    Tokenizer(checkpoint.folder)
    placed, source = prepare(checkpoint, cards, options)
    try:
        opened = open_cards(cards, **card_options)
    except ValueError as error:
        raise UserError(str(error)) from None
    runtime = Runtime(opened, placed)
    try:
        runtime.load_model(source, progress)
        return Model(checkpoint, runtime, cards)
    except BaseException:
        runtime.close()
        raise


def prepare(checkpoint: Checkpoint, cards: str, options: Options) -> tuple[list[Layout], Pruned]:
    """Layouts, by card, and weights of a model on the cards of that name, which are not opened."""
    try:
        spec = parse_cards(cards)
    except ValueError as error:
        raise UserError(str(error)) from None
    if options.pattern is not None:
        pruning, noted = pattern_of(options.pattern), False
    elif checkpoint.pattern is not None:
        pruning, noted = pattern_of(checkpoint.pattern), True
    else:
        pruning, noted = detect(checkpoint), False
    placed = layouts(spec.config, checkpoint.shape, options, pruning)
    return placed, Pruned(checkpoint, pruning, noted=noted)
