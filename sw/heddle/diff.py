# SPDX-License-Identifier: Apache-2.0
"""Layer by layer: how far a card is from FP32."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from .reference import Reference
from .runtime import Runtime

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """How far a vector of the card is from that of the reference, over all tokens."""

    #: As ``layer 0 attention``, the residual stream there; or ``logits``.
    place: str
    #: Root mean square of the reference, and of the difference.
    size: float
    error: float
    largest: float

    @property
    def relative(self) -> float:
        return self.error / self.size if self.size else 0.0


def compare(place: str, card: Floats, reference: Floats) -> Difference:
    """The difference of two arrays."""
    off = card.astype(np.float64) - reference.astype(np.float64)
    size, error = (float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
                   for array in (reference, off))
    return Difference(place=place, size=size, error=error, largest=float(np.abs(off).max()))


def diff(runtime: Runtime, reference: Reference, tokens: Sequence[int],
         progress: Callable[[int, int], None] = lambda done, total: None
         ) -> tuple[list[Difference], int]:
    """Compare a card with a reference on a text, token by token.

    Returns
    -------
    (differences, agreed) : list of Difference, int
        In the order of computation, the logits last; and in how many places both have the same best
        token.
    """
    wanted: dict[str, Floats] = {}
    logits = reference.logits(tokens, wanted.__setitem__)
    seen: dict[str, list[Floats]] = {name: [] for name in (*wanted, "logits")}
    best = []
    for position, token in enumerate(tokens):
        best.append(runtime.run([token], position, 1, probe=True)[0].token)
        for name, vector in {**runtime.probes(), "logits": runtime.logits()}.items():
            seen[name].append(vector)
        progress(position + 1, len(tokens))
    rows = [compare(name, np.stack(vectors), {**wanted, "logits": logits}[name])
            for name, vectors in seen.items()]
    return rows, int(np.count_nonzero(np.asarray(best) == logits.argmax(axis=1)))
