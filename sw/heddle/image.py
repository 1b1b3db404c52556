# SPDX-License-Identifier: Apache-2.0
"""What lies in a card's memory: weights, constants and tables of a model, as blocks of beats."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rtl_gen.spec.config import HEAD

from .checkpoint import MATRICES, Layer
from .errors import UserError
from .layout import Layout
from .pack.patterns import pack_stream
from .prune import check_pattern, prune_rows
from .quantise import Rows, quantise_rows, wide_sum
from .reference import Source
from .shape import Shape
from .tiling import Matrix

Floats = npt.NDArray[np.float32]
#: Bytes of a table that are laid out at a time.
_CHUNK = 1 << 22


class Block(NamedTuple):
    """Beats [channels, beats, beat_bytes] from a beat address on, the same in every channel."""

    address: int
    data: npt.NDArray[np.uint8]


class Pruned:
    """A source whose layers' matrices obey a pattern: they are pruned, or known to."""

    def __init__(self, source: Source, pruning: tuple[int, int], *, noted: bool = False) -> None:
        """With ``noted``, the model claims the pattern: what breaks it is an error."""
        self._source, self._pruning, self._noted = source, pruning, noted
        self.shape: Shape = source.shape
        self.final_norm = source.final_norm
        self.embedding = source.embedding
        self.positions = source.positions
        self.head = source.head

    def layer(self, number: int) -> Layer:
        layer = self._source.layer(number)
        if self._noted:
            for name, part in MATRICES.items():
                check_pattern(getattr(layer, name), *self._pruning, f"h.{number}.{part}.weight")
            return layer
        pruned = {name: prune_rows(getattr(layer, name), *self._pruning) for name in MATRICES}
        return dataclasses.replace(layer, **pruned)


def stripe(vectors: Floats, layout: Layout) -> npt.NDArray[np.uint8]:
    """Beats [channels, rows, bytes] of FP32 vectors [rows, width]: element e goes to channel e mod
    C."""
    rows, width = vectors.shape
    lanes = layout.config.channels
    size = layout.memory.vector * layout.config.beat_bytes
    striped = np.zeros((lanes, rows, size), np.uint8)
    words = vectors.reshape(rows, width // lanes, lanes).transpose(2, 0, 1)
    striped[:, :, :4 * width // lanes] = np.ascontiguousarray(words, "<f4").view(np.uint8)
    return striped


def heads_together(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows of queries, keys and values, each with all heads, as rows of heads with all three."""
    grouped = matrix.reshape(3, -1, HEAD, *matrix.shape[1:])
    return np.ascontiguousarray(grouped.swapaxes(0, 1)).reshape(matrix.shape)


class Once:
    """A source that is asked for each part once, by whoever lays out the parts of several cards."""

    def __init__(self, source: Source) -> None:
        self.shape: Shape = source.shape
        once = functools.lru_cache(maxsize=1)
        self.layer, self.final_norm = once(source.layer), once(source.final_norm)
        self.embedding, self.positions = once(source.embedding), once(source.positions)
        self.head = once(source.head)


class Images:
    """Lays a card's part of a model out in its memory.

    Parameters
    ----------
    layout : Layout
    source : Source
        Weights that obey the layout's pattern.
    """

    def __init__(self, layout: Layout, source: Source) -> None:
        self._layout, self._source = layout, source

    def blocks(self, progress: Callable[[int, int], None] = lambda done, total: None
               ) -> Iterator[Block]:
        """Everything that a card must hold before its first command.

        ``progress`` is called with parts done and parts: every layer is one, so are the tables.
        The largest parts come first, one at a time: what reads them holds them in FP32, while cards
        that are this process's memory are still empty.
        """
        for number in range(self.stages):
            yield from self.stage(number)
            progress(number + 1, self.stages)

    @property
    def stages(self) -> int:
        """Parts of which there are blocks."""
        return self._layout.shape.layers + 2

    def stage(self, number: int) -> Iterator[Block]:
        """The blocks of one part: the LM head, the tables, then every layer."""
        memory, source = self._layout.memory, self._source
        if number == 0:
            gamma, beta = source.final_norm()
            end = memory.layers + self._layout.shape.layers * memory.layer_stride
            yield Block(end + memory.gamma[0], stripe(gamma[None], self._layout)[:, 0].reshape(
                self._layout.config.channels, memory.vector, -1))
            yield from self._matrix("head", memory.head, source.head(), gamma=gamma, beta=beta)
        elif number == 1:
            yield from self._table(memory.embedding, source.embedding())
            yield from self._table(memory.positions, source.positions()[:self._layout.context])
        else:
            layer = number - 2
            yield from self._layer(memory.layers + layer * memory.layer_stride,
                                   source.layer(layer))

    def _table(self, address: int, vectors: Floats) -> Iterator[Block]:
        per_row = self._layout.memory.vector
        lanes, size = self._layout.config.channels, self._layout.config.beat_bytes
        step = max(1, _CHUNK // (vectors.shape[1] * 4))
        for row in range(0, len(vectors), step):
            striped = stripe(vectors[row:row + step], self._layout)
            yield Block(address + row * per_row, striped.reshape(lanes, -1, size))

    def _layer(self, address: int, layer: Layer) -> Iterator[Block]:
        memory, shape = self._layout.memory, self._layout.shape
        for place, gamma in zip(memory.gamma, (layer.gamma1, layer.gamma2), strict=True):
            yield from self._table(address + place, gamma[None])
        # Scores are divided by 8 on the side of the queries: exact in FP32 and free.
        factor = np.ones(3 * shape.width, np.float32)
        factor[:shape.width] = 1 / np.sqrt(np.float32(HEAD)) if shape.scaled else 1
        parts = memory.matrices
        yield from self._matrix("qkv", address + parts["qkv"], heads_together(layer.qkv),
                                bias=heads_together(layer.qkv_bias), gamma=layer.gamma1,
                                beta=layer.beta1, factor=heads_together(factor))
        yield from self._matrix("out", address + parts["out"], layer.out, bias=layer.out_bias)
        yield from self._matrix("up", address + parts["up"], layer.up,
                                bias=layer.up_bias, gamma=layer.gamma2, beta=layer.beta2)
        yield from self._matrix("down", address + parts["down"], layer.down,
                                bias=layer.down_bias)

    def _mine(self, name: str, outputs: int) -> slice | npt.NDArray[np.int64]:
        """Which rows of a matrix are this card's, in their order."""
        lanes, rows = self._layout.config.channels, self._layout.rows_of[name]
        if rows == list(range(rows[0], rows[-1] + 1)):
            return slice(rows[0] * lanes, min((rows[-1] + 1) * lanes, outputs))
        mine = (np.array(rows)[:, None] * lanes + np.arange(lanes)).ravel()
        return mine[mine < outputs]

    def _matrix(self, name: str, address: int, weights: Floats, *, bias: Floats | None = None,
                gamma: Floats | None = None, beta: Floats | None = None,
                factor: Floats | None = None) -> Iterator[Block]:
        """The pieces of this card's rows of one matrix; ``factor`` scales its outputs."""
        matrix = self._layout.matrices[name]
        mine = self._mine(name, len(weights))
        rows = quantise_rows(weights[mine])
        constants = row_constants(rows, bias=None if bias is None else bias[mine], gamma=gamma,
                                  beta=beta, factor=None if factor is None else factor[mine])
        if constants.shape[1] != matrix.constants:
            raise AssertionError(f"{name} must have {matrix.constants} constants a row")
        if not np.isfinite(constants).all():
            raise UserError(f"{name}: weights must be small enough that sums over a row are finite")
        yield from self._pieces(matrix, address, rows, constants.view(np.uint32))

    def _pieces(self, matrix: Matrix, address: int, rows: Rows,
                constants: npt.NDArray[np.uint32]) -> Iterator[Block]:
        config, pattern = self._layout.config, matrix.pattern
        per_beat = config.beat_bytes * pattern.ratio
        for piece in matrix.pieces:
            first, last = (row * config.channels for row in (piece.row, piece.row + piece.rows))
            part = rows.q[first:last, piece.beat * per_beat:(piece.beat + piece.beats) * per_beat]
            aux = constants[first:last] if piece.last else None
            yield Block(address + piece.offset, pack_stream(part, pattern, config, aux))


def row_constants(rows: Rows, *, bias: Floats | None, gamma: Floats | None, beta: Floats | None,
                  factor: Floats | None) -> Floats:
    """FP32 constants [rows, n] in the order of the stream: scale, with a norm its W·gamma, bias.

    The norm is deferred: the card multiplies by W·diag(gamma) while the mean still forms, and takes
    mean · W·gamma off afterwards.  W·beta joins the bias.
    """
    scale = rows.scale.astype(np.float64)
    total = np.zeros(len(scale)) if bias is None else bias.astype(np.float64)
    columns = [scale]
    if gamma is not None and beta is not None:
        columns.append(scale * wide_sum(rows.q, gamma))
        total = total + scale * wide_sum(rows.q, beta)
    columns.append(total)
    if factor is not None:
        columns = [column * factor for column in columns]
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(np.stack(columns, axis=1), np.float32)
