# SPDX-License-Identifier: Apache-2.0
"""One-shot pruning of a matrix, with what is known of its inputs.

``magnitude`` knows nothing of them.  ``wanda`` (Sun et al., "A Simple and Effective Pruning
Approach for Large Language Models", ICLR 2024) weighs each weight with the norm of its input.
``sparsegpt`` (Frantar and Alistarh, "SparseGPT", ICML 2023) also changes the weights that stay so
that the outputs change little.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .patterns import best

Floats = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]
#: Weights [rows, inputs], the sum of x xᵀ [inputs, inputs] over inputs x, N and M; new weights.
Method = Callable[[Floats, Wide, int, int], Floats]

#: What is added to the diagonal of x xᵀ, as a part of its mean: SparseGPT's own choice.
DAMPING = 0.01
#: Inputs after which the others are corrected; a multiple of every M.
BLOCK = 128


def magnitude(weights: Floats, gram: Wide, n: int, m: int) -> Floats:
    """The largest weights stay, as they are; ``gram`` is not looked at."""
    return np.where(best(np.abs(weights), n, m), weights, np.float32(0))


def wanda(weights: Floats, gram: Wide, n: int, m: int) -> Floats:
    """Weights with the largest ``|w| · ‖x‖`` stay, as they are."""
    norms = np.sqrt(np.diagonal(gram))
    return np.where(best(np.abs(weights) * norms, n, m), weights, np.float32(0))


def sparsegpt(weights: Floats, gram: Wide, n: int, m: int) -> Floats:
    """What is taken away is made good by the weights behind it in the row.

    The weights of a group go whose loss, w² / [H⁻¹]ⱼⱼ, is least when the group is reached, H being
    ``gram`` of the inputs from there on; each that goes changes those behind it (optimal brain
    surgeon).  Inputs that were always zero lose their weights.
    """
    w = weights.astype(np.float64)
    dead = np.diagonal(gram) == 0
    w[:, dead] = 0
    upper = _inverse_factor(gram, dead)
    inputs = w.shape[1]
    for first in range(0, inputs, BLOCK):
        last = min(first + BLOCK, inputs)
        errors = np.zeros((len(w), last - first))
        for j in range(first, last):
            if j % m == 0:
                group = slice(j, min(j + m, inputs))
                scores = np.square(w[:, group] / np.diagonal(upper)[group])
                goes = ~best(scores, n, m)
            removed = np.where(goes[:, j % m], w[:, j], 0.0)
            errors[:, j - first] = removed / upper[j, j]
            w[:, j] -= removed
            w[:, j + 1:last] -= np.outer(errors[:, j - first], upper[j, j + 1:last])
        w[:, last:] -= errors @ upper[first:last, last:]
    return w.astype(np.float32)


def _inverse_factor(gram: Wide, dead: npt.NDArray[np.bool_]) -> Wide:
    """Upper U with UᵀU = H⁻¹: row j has the first row of the inverse of H from j on, scaled."""
    h = gram.copy()
    diagonal = np.einsum("ii->i", h)
    diagonal[dead] = 1
    diagonal += DAMPING * diagonal.mean()
    factor: Wide = np.linalg.cholesky(np.linalg.inv(h)).T
    return factor


#: By name; whether it looks at inputs.
METHODS: dict[str, tuple[Method, bool]] = {
    "magnitude": (magnitude, False), "wanda": (wanda, True), "sparsegpt": (sparsegpt, True)}
