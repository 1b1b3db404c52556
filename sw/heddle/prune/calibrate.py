# SPDX-License-Identifier: Apache-2.0
"""What the matrices of a model see of a text: statistics that pruning weighs weights by.

Layers are taken in order, each with the inputs that the pruned ones before it give (as SparseGPT
and Wanda do), so that memory holds one layer and the activations between two.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..checkpoint import MATRICES, Layer
from ..errors import UserError
from ..reference import Source, block

Floats = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]


def samples(tokens: Sequence[int], count: int, size: int, seed: int = 0) -> list[list[int]]:
    """Windows of a text at random places, none twice.

    Parameters
    ----------
    tokens : sequence of int
        The text.
    count, size : int
        Windows, and tokens of each.  There are fewer windows if the text has fewer places.
    seed : int

    Raises
    ------
    UserError
        The text is shorter than a window.
    """
    if count < 1:
        raise UserError(f"samples must be at least 1, not {count}")
    places = len(tokens) - size + 1
    if places < 1:
        raise UserError(f"the calibration text must have at least {size} tokens, one window, "
                        f"not {len(tokens)}")
    starts = np.random.default_rng(seed).permutation(places)[:count]
    return [list(tokens[start:start + size]) for start in sorted(starts.tolist())]


def calibrated(source: Source, windows: Sequence[Sequence[int]],
               change: Callable[[int, str, Floats, Wide], Floats]) -> Iterator[Layer]:
    """Change all matrices of a model, layer by layer.

    Parameters
    ----------
    source : Source
    windows : sequence of sequences of int
        Tokens that the model reads, each from position 0.
    change : callable
        Is given the layer's number, the matrix's name, its weights [outputs, inputs] and the sum
        of x xᵀ [inputs, inputs] over all its inputs x; returns the new weights.

    Yields
    ------
    Layer
        With the new matrices.
    """
    shape, embedding, positions = source.shape, source.embedding(), source.positions()
    streams = [embedding[np.asarray(window)] + positions[:len(window)] for window in windows]
    for number in range(shape.layers):
        layer = source.layer(number)
        sums = {name: np.zeros((getattr(layer, name).shape[1],) * 2) for name in MATRICES}

        def see(name: str, x: Floats, sums: dict[str, Wide] = sums) -> None:
            sums[name] += x.T @ x

        for x in streams:
            block(x, layer, shape, see)
        changed = {name: change(number, name, getattr(layer, name), sums[name])
                   for name in MATRICES}
        layer = dataclasses.replace(layer, **changed)
        if number + 1 < shape.layers:
            streams = [block(x, layer, shape) for x in streams]
        yield layer
