# SPDX-License-Identifier: Apache-2.0
"""Choosing a token from logits, on the host."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from .errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is chosen; at temperature 0 it is the best one.

    Logits are divided by the temperature, then the ``top_k`` best stay, then the fewest best that
    have a probability of ``top_p`` together.  None leaves a limit out.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    #: Equal seeds choose equal tokens; None chooses anew each time.
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature must be 0 or more, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.seed is not None and self.seed < 0:
            raise UserError(f"seed must be 0 or more, not {self.seed}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0 or self.top_k == 1

    def candidates(self, most: int) -> int | None:
        """How many best logits are enough; None if it takes more than ``most``, that is, all."""
        return self.top_k if self.top_k is not None and self.top_k <= most else None


def best_first(logits: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64],
                                                         npt.NDArray[np.float32]]:
    """Tokens and logits of a whole row in the order of a card: equal logits by smaller token."""
    order = np.lexsort((np.arange(len(logits)), -logits))
    return order, logits[order]


def choose(tokens: npt.NDArray[np.integer], logits: npt.NDArray[np.float32], sampling: Sampling,
           rng: np.random.Generator) -> int:
    """Choose one of ``tokens``, which come with their logits, best first."""
    kept = logits[:sampling.top_k].astype(np.float64)
    p = np.exp((kept - kept[0]) / sampling.temperature)
    p /= p.sum()
    if sampling.top_p is not None:
        # The one that reaches top_p stays.
        p = p[:int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1]
    edges = np.cumsum(p)
    place = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
    return int(tokens[min(place, len(p) - 1)])
