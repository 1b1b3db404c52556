# SPDX-License-Identifier: Apache-2.0
"""Weights as signed bytes: symmetric, one FP32 scale per output row."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: Largest magnitude of a weight.
LIMIT = 127
#: Scales below are subnormal and would be zero on the card.
_SMALLEST = np.float32(2.0**-126)


class Rows(NamedTuple):
    """A quantised matrix [rows, inputs]: the weights are ``q * scale[:, None]``."""

    q: npt.NDArray[np.int8]
    scale: Floats

    def dequantised(self) -> Floats:
        """What the card computes with, as FP32."""
        return self.q.astype(np.float32) * self.scale[:, None]


def quantise_rows(weights: npt.ArrayLike) -> Rows:
    """Quantise each row with the scale that takes its largest weight to ±127.

    Rows without a weight (and those too small for FP32) get scale 0.
    """
    w = np.asarray(weights, np.float32)
    scale = np.abs(w).max(axis=1, initial=0) / np.float32(LIMIT)
    scale = np.where(scale < _SMALLEST, np.float32(0), scale)
    divisor = np.where(scale == 0, np.float32(np.inf), scale)[:, None]
    return Rows(np.rint(w / divisor).clip(-LIMIT, LIMIT).astype(np.int8), scale)


def wide_sum(q: npt.NDArray[np.int8], vector: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """``q @ vector`` in FP64, in blocks of rows: the matrix is never held in FP64 at once."""
    v, block = np.asarray(vector, np.float64), 4096
    parts = [q[row:row + block].astype(np.float64) @ v for row in range(0, len(q), block)]
    return np.concatenate(parts) if parts else np.zeros(0)
