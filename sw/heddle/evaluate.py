# SPDX-License-Identifier: Apache-2.0
"""Perplexity of a text on a card."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from .errors import UserError
from .runtime import Runtime


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """How well a model foretells a text."""

    windows: int
    #: Log probability of every token that was foretold, in nats.
    log_probabilities: tuple[float, ...]
    #: The best token at each of these places.
    best_token_ids: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens that were foretold."""
        return len(self.log_probabilities)

    @property
    def log_likelihood(self) -> float:
        """Log probability of all of them together, in nats."""
        return math.fsum(self.log_probabilities)

    @property
    def perplexity(self) -> float:
        return math.exp(-self.log_likelihood / self.tokens)


def windows(tokens: Sequence[int], size: int, limit: int | None = None) -> list[list[int]]:
    """Consecutive windows of a text, a last short one dropped; the first ``limit`` of them."""
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1 window, not {limit}")
    if size < 2:
        raise UserError(f"the context must be at least 2 to score a text, not {size}")
    found = [list(tokens[start:start + size]) for start in range(0, len(tokens) - size + 1, size)]
    if not found:
        raise UserError(f"the text must have at least {size} tokens, one window, not {len(tokens)}")
    return found[:limit]


def evaluate(runtime: Runtime, tokens: Sequence[int], *, limit: int | None = None,
             progress: Callable[[int, int], None] = lambda done, total: None) -> Score:
    """Score a text in windows of the context, each from its second token.

    Parameters
    ----------
    tokens : sequence of int
        The whole text as one sequence.
    limit : int, optional
        Windows to score.
    progress : callable
        Called with (windows done, windows).
    """
    parts = windows(tokens, runtime.layout.context, limit)
    logs, best = [], []
    for done, part in enumerate(parts):
        # The last token is foretold, not read: one step less than tokens.
        for result in runtime.run(part, 0, len(part) - 1):
            if result.target_logit is None:
                raise AssertionError("every step but the last must have a target")
            logs.append(result.target_logit - result.log_sum)
            best.append(result.token)
        progress(done + 1, len(parts))
    return Score(windows=len(parts), log_probabilities=tuple(logs), best_token_ids=tuple(best))
