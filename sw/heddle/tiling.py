# SPDX-License-Identifier: Apache-2.0
"""How a vector is cut into slices, and a matrix into the MATMULs that stream it."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from rtl_gen.spec.config import SLICE_BLOCKS, CardConfig
from rtl_gen.spec.formats import Pattern, stream_beats

#: Chunks of the inputs that a product starts with, one after another as they are quantised.
CHUNKS = 4
#: Rows of the shortest block of logits, but for what is left.
SHORTEST = 4


@dataclasses.dataclass(frozen=True)
class Slice:
    """Elements of a vector that share an exponent."""

    start: int
    stop: int

    @property
    def count(self) -> int:
        return self.stop - self.start


def slices(width: int, coverage: int, most: int, parts: int, least: int = 1) -> list[Slice]:
    """Cut a vector into multiples of ``coverage``; the last slice may be short.

    There are at least ``parts`` where ``least`` coverages a slice allow, so that no product waits
    for much of the vector, and a slice is at most ``most``, which the card buffers.

    >>> [part.count for part in slices(320, 16, 256, 8)]
    [32, 32, 32, 32, 32, 32, 32, 32, 32, 32]
    >>> [part.count for part in slices(320, 64, 256, 4)]
    [64, 64, 64, 64, 64]
    """
    size = max(least * coverage, min(width // parts, most) // coverage * coverage)
    return [Slice(start, min(start + size, width)) for start in range(0, width, size)]


def vector_slices(width: int, inner: int, coverage: int, config: CardConfig
                  ) -> dict[str, list[Slice]]:
    """The slices of a layer's vectors.

    Products that follow x wait for all its slices, which take an instruction a token each; those
    of the others are made while more of the vector comes.
    """
    most = SLICE_BLOCKS * config.beat_bytes
    return {"x": slices(width, coverage, most, 4), "mixed": slices(width, coverage, most, 8),
            "hidden": slices(inner, coverage, most, 24, least=2)}


def blocks(rows: int, size: int, cards: int = 1) -> list[int]:
    """Where blocks of logits end: nothing hides the time in which the last one is looked through,
    so each of the last ones is half as long as the one before, while every card has some of it.

    >>> blocks(99, 32), blocks(20, 20), blocks(99, 32, 4)
    ([32, 64, 80, 88, 92, 96, 99], [20], [32, 64, 80, 96, 99])
    """
    shortest = SHORTEST * cards
    if rows <= size:
        return [rows]
    ends = [0]
    while rows - ends[-1] > shortest:
        # As long as possible with something of half the length behind it.
        left = rows - ends[-1]
        while size > shortest and left < size + size // 2:
            size //= 2
        ends.append(ends[-1] + size)
    return [*ends[1:], *[rows][ends[-1] == rows:]]


def coverage(pattern: Pattern, config: CardConfig) -> int:
    """Inputs that one step of the engine reads: they need one exponent."""
    return config.beat_bytes * min(pattern.ratio, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """One MATMUL's part of a matrix: rows of every lane, and value beats of these rows."""

    row: int
    rows: int
    beat: int
    beats: int
    #: Starts from zero; its results are complete.
    first: bool
    last: bool
    #: Beat address, from that of the matrix.
    offset: int = 0

    @property
    def banked(self) -> bool:
        """The accumulator bank is used."""
        return not (self.first and self.last)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matrix:
    """A matrix [outputs, inputs] and the pieces that it lies in memory as, in order."""

    outputs: int
    inputs: int
    pattern: Pattern
    #: Constants of a row: scale, and what belongs to a norm and a bias.
    norm: bool
    bias: bool
    pieces: tuple[Piece, ...]
    #: Beats of all pieces.
    beats: int

    @property
    def constants(self) -> int:
        return 1 + self.norm + self.bias


def chunks_by(ranks: Sequence[int], parts: Sequence[Slice], pattern: Pattern, config: CardConfig
              ) -> list[Slice]:
    """Chunks of inputs in the order in which they come: by the ``ranks`` of their slices.

    A chunk is whole beats of the stream; one that needs several slices has the rank of the last.
    """
    whole = config.beat_bytes * pattern.ratio
    width = parts[-1].stop
    of_beats = [max(rank for rank, part in zip(ranks, parts, strict=True)
                    if part.start < start + whole and start < part.stop)
                for start in range(0, width, whole)]
    starts = [beat for beat, rank in enumerate(of_beats)
              if beat == 0 or rank != of_beats[beat - 1]]
    found = [Slice(start * whole, min(stop * whole, width))
             for start, stop in zip(starts, [*starts[1:], len(of_beats)], strict=True)]
    return sorted(found, key=lambda part: of_beats[part.start // whole])


def chunks(parts: Sequence[Slice], pattern: Pattern, config: CardConfig, most: int = CHUNKS
           ) -> list[Slice]:
    """Chunks of a vector that comes from its start to its end, about evenly spread."""
    ends = chunk_ends(parts, pattern, config, most)
    return [Slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]


def chunk_ends(parts: Sequence[Slice], pattern: Pattern, config: CardConfig,
               most: int = CHUNKS) -> list[int]:
    """Inputs at which chunks end: ends of slices and of beats, about evenly spread."""
    whole = config.beat_bytes * pattern.ratio
    ends = [part.stop for part in parts[:-1] if part.stop % whole == 0]
    picked = sorted({ends[len(ends) * k // most] for k in range(1, most)}) if ends else []
    return [*picked, parts[-1].stop]


def tile(config: CardConfig, *, outputs: int, inputs: int, pattern: Pattern, norm: bool, bias: bool,
         chunks: Sequence[Slice], cuts: Iterable[int], bank: int, chunked: int) -> Matrix:
    """Cut a matrix into pieces.

    The first rows are chunked along the inputs, so that they start before all inputs are there; the
    last chunk then finishes row after row.  The other rows find their inputs complete.

    Parameters
    ----------
    chunks : sequence of Slice
        Inputs in the order in which they come; all but the last end with a beat of the stream.
    cuts : iterable of int
        Lane rows at which pieces with results end, so that somebody can go on with these rows.
    bank : int
        Rows of the accumulator bank that chunks may use.
    chunked : int
        Lane rows to be chunked; fewer where the bank is smaller.
    """
    rows = math.ceil(outputs / config.channels)
    per_row = math.ceil(inputs / (config.beat_bytes * pattern.ratio))
    per_beat = config.beat_bytes * pattern.ratio
    order = [(part.start // per_beat, math.ceil(part.stop / per_beat)) for part in chunks]
    marks = sorted({cut for cut in cuts if 0 < cut < rows} | {rows})
    split = 0
    if len(order) > 1:
        fitting = [mark for mark in marks if mark <= min(bank, chunked)]
        split = fitting[-1] if fitting else min(bank, chunked, rows)
    most = min(config.aux_words // (1 + norm + bias), (1 << 12) - 1)
    pieces, at = [], 0

    def add(row: int, count: int, beat: int, stop: int, first: bool, last: bool) -> None:
        nonlocal at
        piece = Piece(row=row, rows=count, beat=beat, beats=stop - beat, first=first, last=last,
                      offset=at)
        pieces.append(piece)
        at += sum(stream_beats(count, 1 + norm + bias if last else 0, piece.beats, pattern,
                               config.beat_bytes))

    for number, (beat, stop) in enumerate(order[:-1] if split else ()):
        add(0, split, beat, stop, number == 0, False)
    row = 0
    for mark in sorted({*marks, split} - {0}):
        while row < mark:
            count = min(mark - row, most)
            if row < split:
                add(row, count, *order[-1], False, True)
            else:
                add(row, count, 0, per_row, True, True)
            row += count
    return Matrix(outputs=outputs, inputs=inputs, pattern=pattern, norm=norm, bias=bias,
                  pieces=tuple(pieces), beats=at)
