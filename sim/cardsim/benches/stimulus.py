# SPDX-License-Identifier: Apache-2.0
"""FP32 numbers to try units with."""

import random

import numpy as np
import numpy.typing as npt

#: Zeros, subnormals, the ends of the normal range, one, infinities, NaN.
CORNERS = np.array([
    0, 0x80000000, 1, 0x807FFFFF, 0x00800000, 0x80800000, 0x3F800000, 0xBF800000, 0x7F7FFFFF,
    0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001], np.uint32).view(np.float32)


def numbers(rng: random.Random, count: int, *, wild: bool = False) -> npt.NDArray[np.float32]:
    """Random numbers of many magnitudes; ``wild`` adds any bit pattern and the corners."""
    values = np.array([rng.gauss(0, 1) * 2.0 ** rng.randrange(-8, 6) for _ in range(count)],
                      np.float32)
    if wild:
        for k in range(count):
            kind = rng.random()
            if kind < 0.2:
                values[k] = CORNERS[rng.randrange(len(CORNERS))]
            elif kind < 0.6:
                values.view(np.uint32)[k] = rng.getrandbits(32)
    return values


def to_int(word: npt.NDArray[np.float32]) -> int:
    """A word of FP32 numbers as one integer, the first lane lowest."""
    return int.from_bytes(np.ascontiguousarray(word, np.float32).tobytes(), "little")


def from_int(word: int, lanes: int) -> npt.NDArray[np.float32]:
    """The inverse of :func:`to_int`."""
    return np.frombuffer(word.to_bytes(4 * lanes, "little"), np.float32)
