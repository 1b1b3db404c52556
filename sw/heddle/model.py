# SPDX-License-Identifier: Apache-2.0
"""A model on cards: from a prompt to text."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as Many
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack, overload

import numpy as np

from .card import open_cards, parse_cards
from .checkpoint import Checkpoint
from .errors import UserError
from .evaluate import Score
from .generation import Generation, Output, Stream
from .image import Pruned
from .layout import Layout, layouts
from .options import Options
from .prune import detect, pattern_of
from .request import Request
from .runtime import Runtime
from .sampling import Sampling, whole
from .scheduler import Scheduler
from .text import stop_texts
from .tokenizer import Tokenizer

#: A text, or its tokens.
Prompt = str | Many[int]


class Choices(TypedDict, total=False):
    """What :meth:`Model.generate` may be told."""

    max_new_tokens: int
    do_sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    stop: str | Many[str] | None
    seed: int | None
    logprobs: int | None


Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    pass


class Model:
    """A GPT-2 on cards; make one with :func:`load`.

    A model is a context manager, which gives the cards back at its end.
    """

    def __init__(self, checkpoint: Checkpoint, runtime: Runtime, cards: str) -> None:
        self.checkpoint, self.runtime = checkpoint, runtime
        self.tokenizer = Tokenizer(checkpoint.folder)
        #: As given on the command line.
        self.cards = cards
        self.scheduler = Scheduler(runtime)
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

    @overload
    def generate(   # type: ignore[overload-overlap]    # a text is a sequence of texts, too
            self, prompts: str, **how: Unpack[Choices]) -> Generation: ...

    @overload
    def generate(self, prompts: Many[Prompt], **how: Unpack[Choices]) -> list[Generation]: ...

    def generate(self, prompts: str | Many[Prompt], **how: Unpack[Choices]
                 ) -> Generation | list[Generation]:
        """The texts that follow prompts.

        Parameters
        ----------
        prompts : str, or sequence of str or of lists of tokens
            Of any lengths; they share the token columns of the cards, and each gets the text that
            it would get alone.  An empty text starts a new one.
        max_new_tokens : int, default 64
            Where a text ends if the model does not end it.
        do_sample : bool, optional
            Draw tokens at random; False always takes the best one.  By default they are drawn if
            there is a temperature.
        temperature : float, optional
            Divides the logits; 1 if ``do_sample`` is given without.
        top_k : int, optional
            Draw from so many best tokens; like ``top_p`` not without a temperature.
        top_p : float, optional
            Draw from the fewest best tokens that have this probability together.
        repetition_penalty, presence_penalty, frequency_penalty : float
            See :class:`~heddle.sampling.Sampling`.
        stop : str or sequence of str, optional
            The text ends before any of these.
        seed : int, optional
            Equal seeds draw equal tokens.  Prompt number i is drawn with ``seed`` + i.
        logprobs : int, optional
            Give log probabilities of the new tokens, and of so many best ones at each place.

        Returns
        -------
        Generation or list of Generation
            Strings that know their tokens; one for one prompt.

        Raises
        ------
        UserError
            An argument, or a prompt that does not fit the context.
        RunError
            The model's numbers left the range that cards compute in.
        heddle.card.CardError
            A card failed.
        """
        if not isinstance(prompts, Iterable) or isinstance(prompts, bytes | Mapping):
            raise UserError("prompts must be a text, or a list of texts or of lists of tokens, "
                            f"not {prompts!r}")
        alone = isinstance(prompts, str)
        given: list[Prompt] = [prompts] if isinstance(prompts, str) else list(prompts)
        stops = stop_texts(how.get("stop"))
        seed = None if how.get("seed") is None else whole("seed", how["seed"])
        requests = []
        for number, prompt in enumerate(given):
            if seed is not None:
                how["seed"] = seed + number
            requests.append(self.request(prompt, **how))
        outputs = [Output(self.scheduler, self.scheduler.submit(request), self.tokenizer, stops)
                   for request in requests]
        try:
            while any(output.finish is None for output in outputs):
                self.scheduler.step()
                for output in outputs:
                    for _ in output.update():
                        pass
                    if output.sequence.error is not None:
                        raise output.sequence.error
        finally:
            for output in outputs:
                self.scheduler.cancel(output.sequence)
        made = [output.result(prompt if isinstance(prompt, str) else self.tokenizer.decode(prompt))
                for output, prompt in zip(outputs, given, strict=True)]
        return made[0] if alone else made

    def stream(self, prompt: Prompt, **how: Unpack[Choices]) -> Stream:
        """The text that follows a prompt, piece by piece; arguments as for :meth:`generate`.

        >>> with model.stream("ROMEO.") as pieces:      # doctest: +SKIP
        ...     for piece in pieces:
        ...         print(piece, end="", flush=True)
        """
        return Stream(self.scheduler, self.tokenizer, self.request(prompt, **how),
                      prompt=prompt if isinstance(prompt, str) else self.tokenizer.decode(prompt),
                      stops=stop_texts(how.get("stop")))

    def score(self, text: str, *, given: str = "") -> Score:
        """How likely the model finds a text.

        Parameters
        ----------
        text : str
            Its first token is scored only behind ``given``.  One that is longer than the context
            is cut into windows; each begins with the last token of the one before, so that every
            token is scored once.
        given : str
            What comes before, not scored itself.

        Returns
        -------
        Score
            Log probabilities in nats, their sum and the perplexity.
        """
        if self.context < 2:
            raise UserError("the context must be at least 2 to score a text, not "
                            f"{self.context}")
        before = self._encoded(given) if given else []
        tokens = [*before, *self._encoded(text)]
        first = max(len(before), 1)
        if len(tokens) <= first:
            raise UserError("a text must have at least two tokens to be scored, or one behind "
                            f"given, not {len(tokens) - len(before)}")
        if len(before) >= self.context:
            raise UserError(f"given ({len(before)} tokens) must be shorter than the context of "
                            f"{self.context}")
        requests = [Request(prompt=tuple(tokens[start:start + self.context]), max_new_tokens=0,
                            logprobs=1, echo=True)
                    for start in range(0, len(tokens) - 1, self.context - 1)]
        sequences = [self.scheduler.submit(request) for request in requests]
        try:
            while any(sequence.finish is None for sequence in sequences):
                self.scheduler.step()
        finally:
            for sequence in sequences:
                self.scheduler.cancel(sequence)
        for sequence in sequences:
            if sequence.error is not None:
                raise sequence.error
        found = [token for sequence in sequences for token in sequence.foretold][first - 1:]
        return Score(windows=len(sequences),
                     log_probabilities=tuple(token.logprob or 0.0 for token in found),
                     best_token_ids=tuple(token.best[0][0] for token in found))

    def request(self, prompt: Prompt, *, max_new_tokens: int = 64, do_sample: bool | None = None,
                temperature: float | None = None, top_k: int | None = None,
                top_p: float | None = None, repetition_penalty: float = 1.0,
                presence_penalty: float = 0.0, frequency_penalty: float = 0.0,
                stop: str | Many[str] | None = None, seed: int | None = None,
                logprobs: int | None = None, echo: bool = False) -> Request:
        """What :meth:`generate` asks the scheduler for; it checks all but ``stop``."""
        if do_sample is False and temperature:
            raise UserError(f"temperature must be left out without do_sample, not {temperature}")
        max_new_tokens = whole("max_new_tokens", max_new_tokens)
        if do_sample and temperature == 0:
            raise UserError("temperature must be above 0 with do_sample, not 0")
        if temperature is None:
            temperature = 1.0 if do_sample else 0.0
        for name, value in (("top_k", top_k), ("top_p", top_p)):
            if temperature == 0 and value not in (None, 1):
                raise UserError(f"{name} must be left out where the best token is taken always, "
                                f"not {value}: give a temperature above 0 to draw tokens")
        sampling = Sampling(
            temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
            repetition_penalty=repetition_penalty, presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty)
        if not isinstance(prompt, Many | np.ndarray) or isinstance(prompt, bytes):
            raise UserError("a prompt must be a text or a list of tokens; several prompts are a "
                            f"list of these, not {prompt!r}")
        most = self.runtime.layout.config.top_k
        if logprobs is not None and not 0 <= whole("logprobs", logprobs) <= most:
            raise UserError(f"logprobs must be in 0..{most}, not {logprobs}")
        tokens = self.encode(prompt) if isinstance(prompt, str) else self._given(list(prompt))
        least = 0 if echo and logprobs is not None else 1
        if max_new_tokens < least:
            raise UserError(f"max_new_tokens must be at least {least}, not {max_new_tokens}")
        # The last new token is never read back.
        if len(tokens) + max(max_new_tokens, 1) - 1 > self.context:
            raise UserError(f"prompt ({len(tokens)} tokens) and new tokens ({max_new_tokens}) must "
                            f"fit the context of {self.context}")
        return Request(prompt=tuple(tokens), max_new_tokens=max_new_tokens, sampling=sampling,
                       stop_tokens=self._stops, logprobs=logprobs, echo=echo)

    def encode(self, prompt: str) -> list[int]:
        """The tokens of a prompt, never none."""
        if tokens := self._encoded(prompt):
            return tokens
        if self.checkpoint.start_token is None:
            raise UserError("the prompt must not be empty: the model has no token to start from")
        return [self.checkpoint.start_token]

    def _encoded(self, text: str) -> list[int]:
        tokens, size = self.tokenizer.encode(text), self.checkpoint.shape.vocabulary
        if tokens and max(tokens) >= size:
            raise UserError(f"the tokenizer must be the model's own: token {max(tokens)} must be "
                            f"below its vocab_size of {size}")
        return tokens

    def _given(self, tokens: list[int]) -> list[int]:
        size = self.checkpoint.shape.vocabulary
        if not tokens:
            raise UserError("a prompt must have at least one token")
        for token in tokens:
            if not 0 <= whole("a token", token) < size:
                raise UserError(f"a token must be in 0..{size - 1}, not {token}")
        return [int(token) for token in tokens]

    def tokens(self, prompt: Many[int], count: int, sampling: Sampling) -> Iterator[int]:
        """Up to ``count`` tokens that follow the tokens of ``prompt``; a stop token is the last."""
        request = dataclasses.replace(self.request(prompt, max_new_tokens=count), sampling=sampling)

        def made() -> Iterator[int]:
            sequence, done = self.scheduler.submit(request), 0
            try:
                while sequence.finish is None:
                    self.scheduler.step()
                    for token in sequence.new[done:]:
                        done += 1
                        yield token.id
                if sequence.error is not None:
                    raise sequence.error
            finally:
                self.scheduler.cancel(sequence)

        return made()


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
