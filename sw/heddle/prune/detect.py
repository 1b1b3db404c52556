# SPDX-License-Identifier: Apache-2.0
"""The pattern of a model that nobody noted."""

import numpy as np

from ..checkpoint import MATRICES, Checkpoint
from .patterns import groups


def detect(checkpoint: Checkpoint) -> tuple[int, int]:
    """The sparsest stored pattern that all pruned matrices obey; (1, 1) if there is none.

    Most models are told dense from the first rows of their first matrix.
    """
    ratio, found = 1.0, (1, 1)
    first = checkpoint.tensor(f"h.0.{MATRICES['qkv']}.weight").T[:64]
    for m in (4, 8, 16):
        n = int(np.count_nonzero(groups(first, m), axis=-1).max())
        if n == m:
            continue
        for layer in range(checkpoint.shape.layers):
            for part in MATRICES.values():
                w = checkpoint.tensor(f"h.{layer}.{part}.weight").T
                n = max(n, int(np.count_nonzero(groups(w, m), axis=-1).max()))
        kept = 1 << max(0, n - 1).bit_length()
        if kept < m and m / kept > ratio:
            ratio, found = m / kept, (n, m)
    return found
