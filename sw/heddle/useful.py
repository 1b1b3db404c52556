# SPDX-License-Identifier: Apache-2.0
"""Bytes that a pass must read from memory, whatever the card: the numerator of its utilisation."""

import dataclasses
import math

from rtl_gen.spec.config import HEAD

from .layout import Layout
from .tiling import Matrix


@dataclasses.dataclass(frozen=True, kw_only=True)
class UsefulBytes:
    """Bytes of one pass, of all channels of a card.

    Padding, rows beyond the length and zeros that a pattern keeps (3:4 is stored dense) count
    nowhere.
    """

    #: Values of the layers' matrices and of the LM head.
    weights: int
    #: Which of them were kept.
    metadata: int
    #: K and V of the positions in memory; the fresh ones come from the chip.
    cache: int
    #: Row scales, biases, terms of the norms, scales of K and V, embeddings, gammas: read, but not
    #: counted as useful.
    constants: int

    @property
    def useful(self) -> int:
        """Weights, metadata, K and V."""
        return self.weights + self.metadata + self.cache


def useful_bytes(layout: Layout, cached: int, *, tokens: int = 1, head: bool = True) -> UsefulBytes:
    """What one pass reads.

    Parameters
    ----------
    layout : Layout
    cached : int
        Positions in memory, of all sequences together.
    tokens : int
        Tokens whose embeddings are read.
    head : bool
        Whether the LM head is computed.
    """
    shape, pruning = layout.shape, layout.pruning
    layers = [matrix for name, matrix in layout.matrices.items() if name != "head"]
    used = [(matrix, pruning, shape.layers) for matrix in layers]
    if head:
        used.append((layout.matrices["head"], (1, 1), 1))
    # Of a matrix that all cards have whole each needs its part: what it reads of the others is the
    # price of the layout.
    whole = {id(layout.matrices[name]) for name in layout.parts.whole}

    def mine(matrix: Matrix, total: int) -> int:
        cards, card = layout.parts.cards, layout.card
        return total * (card + 1) // cards - total * card // cards if id(matrix) in whole else total

    heads = len(layout.heads)
    cache = 2 * shape.layers * cached * heads * HEAD * (1 + layout.options.wide)
    scales = 4 * shape.layers * cached * heads
    vectors = 4 * shape.width * (2 * tokens + 2 * shape.layers + 1)
    return UsefulBytes(
        weights=sum(mine(matrix, count * _values(matrix, *nm)) for matrix, nm, count in used),
        metadata=sum(mine(matrix, count * _metadata(matrix)) for matrix, _, count in used),
        cache=cache,
        constants=scales + vectors + sum(
            mine(matrix, 4 * count * matrix.outputs * matrix.constants)
            for matrix, _, count in used))


def _values(matrix: Matrix, n: int, m: int) -> int:
    """Bytes of kept values."""
    groups, rest = divmod(matrix.inputs, m)
    return matrix.outputs * (groups * n + min(n, rest))


def _metadata(matrix: Matrix) -> int:
    """Bytes of position codes."""
    pattern = matrix.pattern
    return math.ceil(matrix.outputs * math.ceil(matrix.inputs / pattern.m) * pattern.bits / 8)
