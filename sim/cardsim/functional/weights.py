# SPDX-License-Identifier: Apache-2.0
"""From products' streams in HBM to a matrix; matrices are kept until somebody writes there."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from rtl_gen.spec.formats import PATTERNS, SUPERGROUP, UNITS_PER_BEAT, Pattern, stream_beats

from .memory import Memory
from .sums import EXACT_F32

F32 = np.float32
#: Parts of the input dimension that bounds on partial sums are kept for.
PARTS = 8
#: Constants between these magnitudes (or zero) cannot make an epilogue overflow or underflow.
TAME_LOW, TAME_HIGH = 2.0**-30, 2.0**30
#: Ways to put the matrices of several streams together.
BELOW, BESIDE = 1, 2


@dataclasses.dataclass(frozen=True)
class Stream:
    """Where and how a product's weights lie: everything that decoding depends on."""

    address: int
    rows: int
    beats: int
    pattern: int
    wide: bool
    k_outer: bool
    #: Names of the row constants, in their order.
    constants: tuple[str, ...]

    def span(self, beat_bytes: int) -> tuple[int, int]:
        """First byte of the stream in each channel and the one after its last."""
        beats = sum(stream_beats(self.rows, len(self.constants), self.beats << self.wide,
                                 PATTERNS[self.pattern], beat_bytes))
        return self.address * beat_bytes, (self.address + beats) * beat_bytes


class Weights:
    """Decoded streams.

    Parameters
    ----------
    memory : Memory
    streams : tuple of Stream
    joined : int
        How they go together if there are several: ``BELOW`` or ``BESIDE`` one another.

    Attributes
    ----------
    matrix : float32 array [rows · C, inputs]
        Integers.  Input blocks behind the last one with a weight are left out.
    norm, part_norm : float
        The largest sum of squares of a row, and of one of ``PARTS`` equal parts of a row.
    reach : float
        Bits that exponents may lie apart so that sums are sure to be exact in FP32.
    used : bool array [entries, blocks of an entry]
        Which plane blocks meet weights other than zero.
    constants : dict of float32 arrays [rows, C]
        By name: ``scale``, ``wg``, ``bias``.
    tame : bool
        The constants are finite, and neither huge nor tiny.
    current : bool
        Nobody has written over the streams.
    """

    def __init__(self, memory: Memory, streams: tuple[Stream, ...], joined: int = BELOW) -> None:
        self.current = True
        #: Layouts of the planes that were found to fit.
        self.seen: set[Any] = set()
        config, stream = memory.config, streams[0]
        width = config.beat_bytes
        pattern = PATTERNS[stream.pattern]
        parts = [_read(memory, stream) for stream in streams]
        dense: npt.NDArray[Any] = np.concatenate([part for part, _ in parts], joined)
        constants = np.concatenate([records for _, records in parts], 1)
        self.constants = {name: np.ascontiguousarray(constants[:, :, k].T)
                          for k, name in enumerate(stream.constants)}
        magnitudes = np.abs(constants)
        self.tame = bool(((magnitudes == 0) | (magnitudes >= TAME_LOW)).all()
                         and (magnitudes <= TAME_HIGH).all())

        covered = width * min(pattern.ratio, 4)         # activations of one entry
        used = (dense != 0).any(axis=(0, 1)).reshape(-1, covered // width, width).any(axis=2)
        kept = max(1, 1 + int(np.flatnonzero(used.any(axis=1)).max(initial=0)))
        self.used: npt.NDArray[np.bool_] = used[:kept]
        self.entries, self.inputs = kept, kept * covered
        self.matrix = np.ascontiguousarray(
            dense[:, :, :self.inputs].transpose(1, 0, 2), F32).reshape(-1, self.inputs)
        squares = (self.matrix.reshape(-1, PARTS, self.inputs // PARTS).astype(float) ** 2).sum(2)
        self.norm = float(squares.sum(1).max())
        self.part_norm = float(squares.max())
        #: Largest sum, by Cauchy and Schwarz, if no activation exceeds a digit of 128.
        self.most = 128 * math.sqrt(self.norm * self.inputs) * (1 + 1e-9)
        self.reach = math.log2(EXACT_F32 / self.most) if self.most else 1000.0

    @functools.cached_property
    def double(self) -> npt.NDArray[np.float64]:
        """The matrix in FP64, for the activations that need it."""
        return self.matrix.astype(np.float64)


def _read(memory: Memory, stream: Stream) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Weights [lanes, rows, inputs] and constants [lanes, rows, names] of a stream."""
    lanes, width = memory.config.channels, memory.config.beat_bytes
    start, end = stream.span(width)
    raw = memory.bytes[:, start:end].reshape(lanes, -1, width)
    pattern, number = PATTERNS[stream.pattern], len(stream.constants)
    aux = stream_beats(stream.rows, number, 0, pattern, width)[0]
    words = np.ascontiguousarray(raw[:, :aux]).reshape(lanes, -1).view(np.uint32).view(F32)
    constants = words[:, :stream.rows * number].reshape(lanes, stream.rows, number)
    return decode(raw[:, aux:], stream, pattern), constants


def decode(raw: npt.NDArray[np.uint8], stream: Stream, pattern: Pattern) -> npt.NDArray[Any]:
    """Weights [lanes, rows, inputs] of a stream without its constants [lanes, beats, B]."""
    lanes, _, width = raw.shape
    if stream.wide:     # dense, without metadata
        digits = raw.reshape(lanes, -1, 2, width).view(np.int8).astype(np.int32)
        values, positions = digits[:, :, 0] * 256 + digits[:, :, 1], None
    else:
        values, positions = _values(raw, stream.rows * stream.beats, pattern)
    order = ((stream.beats, stream.rows) if stream.k_outer else (stream.rows, stream.beats))
    values = values.reshape(lanes, *order, width)
    if stream.k_outer:
        values = values.swapaxes(1, 2)
    if positions is None:
        return values.reshape(lanes, stream.rows, -1)

    dense = np.zeros((lanes, stream.rows, stream.beats, width * pattern.ratio), np.int8)
    positions = positions.reshape(lanes, *order, width)
    # Slots of one group go one after another: two of them may name one position (with a zero).
    for slot in range(pattern.n):
        where = positions[..., slot::pattern.n]
        held = np.take_along_axis(dense, where, -1)
        np.put_along_axis(dense, where, held + values[..., slot::pattern.n], -1)
    return dense.reshape(lanes, stream.rows, -1)


def _values(raw: npt.NDArray[np.uint8], count: int,
            pattern: Pattern) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """(values, positions within what the beat covers), [lanes, value beats, B] each."""
    lanes, _, width = raw.shape
    if not pattern.units:
        return np.ascontiguousarray(raw).view(np.int8), None
    full, rest = divmod(count, SUPERGROUP)
    period = pattern.units + SUPERGROUP
    body = raw[:, :full * period].reshape(lanes, full, period, width)
    tail = raw[:, full * period:]
    notes = -(-rest * pattern.units // UNITS_PER_BEAT)
    values = np.concatenate([body[:, :, pattern.units:].reshape(lanes, -1, width),
                             tail[:, notes:]], 1)
    meta = np.concatenate([body[:, :, :pattern.units].reshape(lanes, -1),
                           tail[:, :notes].reshape(lanes, -1)], 1)

    groups = width // pattern.n
    bits = np.unpackbits(np.ascontiguousarray(meta), axis=1, bitorder="little")
    bits = bits[:, :count * groups * pattern.bits].reshape(lanes, count, groups, pattern.bits)
    within = _positions(bits, pattern)
    slots = [pattern.slot(slot) for slot in range(width)]
    base = np.array([window * 4 * width + 16 * group + ordinal // pattern.n * pattern.m
                     for window, group, ordinal in slots])
    return values.view(np.int8), within.reshape(lanes, count, width) + base


def _positions(bits: npt.NDArray[np.uint8], pattern: Pattern) -> npt.NDArray[Any]:
    """Positions within their group of the kept values, [..., groups, n], from metadata bits."""
    if pattern.coding == "bitmap":
        # Set bits first, each kind in ascending order.
        return np.argsort(1 - bits, axis=-1, kind="stable")[..., :pattern.n]
    if pattern.coding == "positions":
        return bits.reshape(*bits.shape[:-1], pattern.n, 4) @ (1 << np.arange(4))
    choices = list(itertools.combinations(range(pattern.m), pattern.n))
    # Numbers without a choice do not occur in a legal stream.
    choices += [choices[0]] * ((1 << pattern.bits) - len(choices))
    return np.array(choices)[bits @ (1 << np.arange(pattern.bits))]


Key = tuple[tuple[Stream, ...], int]


class WeightCache:
    """Decoded streams by their places; a write to a place forgets what was decoded from it."""

    PAGE = 1 << 14

    def __init__(self, memory: Memory, limit: int) -> None:
        self.memory, self.limit = memory, limit
        self._kept: dict[Key, Weights] = {}
        #: (first byte, end, key) of what lies in a page.
        self._pages: dict[int, set[tuple[int, int, Key]]] = {}
        self._bytes = 0
        memory.written = self._forget

    def get(self, streams: tuple[Stream, ...], joined: int = BELOW) -> Weights:
        """The decoded streams, decoded now unless that is known already."""
        key = streams, joined
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = Weights(self.memory, streams, joined)
            self._bytes += found.matrix.nbytes
            for page, place in self._places(key):
                self._pages.setdefault(page, set()).add(place)
            while self._bytes > self.limit and len(self._kept) > 1:
                self._drop(next(iter(self._kept)))
        return found

    def _places(self, key: Key) -> Iterator[tuple[int, tuple[int, int, Key]]]:
        for stream in key[0]:
            low, high = stream.span(self.memory.config.beat_bytes)
            for page in range(low // self.PAGE, -(-high // self.PAGE)):
                yield page, (low, high, key)

    def _drop(self, key: Key) -> None:
        weights = self._kept.pop(key)
        weights.current = False
        self._bytes -= weights.matrix.nbytes
        for page, place in self._places(key):
            self._pages[page].discard(place)

    def _forget(self, start: int, end: int) -> None:
        for page in range(start // self.PAGE, -(-end // self.PAGE)) if self._kept else ():
            if places := self._pages.get(page):
                for key in {key for low, high, key in places if low < end and start < high}:
                    self._drop(key)
