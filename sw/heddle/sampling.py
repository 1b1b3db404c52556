# SPDX-License-Identifier: Apache-2.0
"""Choosing a token from logits, on the host."""

import dataclasses
import math
import numbers
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .errors import UserError


def whole(name: str, value: object) -> int:
    """A whole number, or :class:`UserError` that names it."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise UserError(f"{name} must be a whole number, not {value!r}")
    return int(value)


def number(name: str, value: object) -> float:
    """A number, or :class:`UserError` that names it."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise UserError(f"{name} must be a number, not {value!r}")
    return float(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is chosen; at temperature 0 it is the best one.

    Logits of tokens that the text has are made smaller by the penalties; all are divided by the
    temperature, then the ``top_k`` best stay, then the fewest best that have a probability of
    ``top_p`` together.  None leaves a limit out.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    #: Divides positive logits of tokens that prompt or text have, and multiplies negative ones
    #: (Keskar et al., CTRL, arXiv:1909.05858, section 4.1).
    repetition_penalty: float = 1.0
    #: Taken from the logits of tokens that the new text has.
    presence_penalty: float = 0.0
    #: The same, for each time that it has them.
    frequency_penalty: float = 0.0
    #: Equal seeds choose equal tokens; None chooses anew each time.
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "repetition_penalty", "presence_penalty",
                     "frequency_penalty"):
            if getattr(self, name) is not None or name != "top_p":
                number(name, getattr(self, name))
        for name in ("top_k", "seed"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name))
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature must be 0 or more, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0.01 <= self.repetition_penalty <= 100:
            raise UserError("repetition_penalty must be in 0.01..100, "
                            f"not {self.repetition_penalty}")
        for name in ("presence_penalty", "frequency_penalty"):
            if not -100 <= getattr(self, name) <= 100:
                raise UserError(f"{name} must be in -100..100, not {getattr(self, name)}")
        if self.seed is not None and self.seed < 0:
            raise UserError(f"seed must be 0 or more, not {self.seed}")

    @property
    def greedy(self) -> bool:
        """Whether it is always the best token."""
        return self.temperature == 0 or self.top_k == 1

    @property
    def penalised(self) -> bool:
        """Whether logits depend on the text."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)

    def candidates(self, most: int) -> int | None:
        """How many best logits are enough; None if it takes more than ``most``, that is, all."""
        if self.penalised:
            return None
        if self.greedy:
            return 0        # the card chooses
        return self.top_k if self.top_k is not None and self.top_k <= most else None


def penalise(logits: npt.NDArray[np.float32], prompt: Sequence[int], new: Sequence[int],
             sampling: Sampling) -> npt.NDArray[np.float32]:
    """Logits [vocabulary] with the penalties for the tokens of a prompt and of the new text."""
    found = logits.copy()
    if sampling.repetition_penalty != 1:
        seen = np.unique([*prompt, *new])
        penalty = np.float32(sampling.repetition_penalty)
        found[seen] = np.where(found[seen] < 0, found[seen] * penalty, found[seen] / penalty)
    tokens, counts = np.unique(np.asarray(new, np.int64), return_counts=True)
    found[tokens] -= (sampling.presence_penalty
                      + sampling.frequency_penalty * counts).astype(np.float32)
    return found


def best_first(logits: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64],
                                                         npt.NDArray[np.float32]]:
    """Tokens and logits of a whole row in the order of a card: equal logits by smaller token."""
    order = np.lexsort((np.arange(len(logits)), -logits))
    return order, logits[order]


def choose(tokens: npt.NDArray[np.integer], logits: npt.NDArray[np.float32], sampling: Sampling,
           rng: np.random.Generator) -> int:
    """Choose one of ``tokens``, which come with their logits, best first."""
    if sampling.greedy:
        return int(tokens[0])
    kept = logits[:sampling.top_k].astype(np.float64)
    with np.errstate(over="ignore"):    # a tiny temperature leaves the best one alone
        p = np.exp((kept - kept[0]) / sampling.temperature)
    p /= p.sum()
    if sampling.top_p is not None:
        # The one that reaches top_p stays.
        p = p[:int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1]
    edges = np.cumsum(p)
    place = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
    return int(tokens[min(place, len(p) - 1)])
