# SPDX-License-Identifier: Apache-2.0
"""Weights as signed bytes: symmetric, one FP32 scale per output row."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: Largest magnitude of a weight.
LIMIT = 127
#: Rows that are taken at a time: bounds the memory that is needed beside the result.
_BLOCK = 1024
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
    q, scale = np.empty(w.shape, np.int8), np.empty(len(w), np.float32)
    for row in range(0, len(w), _BLOCK):
        part = slice(row, row + _BLOCK)
        found = np.abs(w[part]).max(axis=1, initial=0) / np.float32(LIMIT)
        scale[part] = np.where(found < _SMALLEST, np.float32(0), found)
        divisor = np.where(scale[part] == 0, np.float32(np.inf), scale[part])[:, None]
        q[part] = np.rint(w[part] / divisor).clip(-LIMIT, LIMIT)
    return Rows(q, scale)


def wide_sum(q: npt.NDArray[np.int8], vector: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """``q @ vector`` in FP64, in blocks of rows: the matrix is never held in FP64 at once."""
    v = np.asarray(vector, np.float64)
    parts = [q[row:row + _BLOCK].astype(np.float64) @ v for row in range(0, len(q), _BLOCK)]
    return np.concatenate(parts) if parts else np.zeros(0)
