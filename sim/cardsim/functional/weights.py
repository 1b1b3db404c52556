# SPDX-License-Identifier: Apache-2.0
"""Streams in HBM: how a product finds its weights there, and what is known of them."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from rtl_gen.spec.formats import PATTERNS, Pattern, stream_beats

from . import kernels
from .memory import Memory

F32 = np.float32
#: Constants between these magnitudes (or zero) cannot make an epilogue overflow or underflow.
TAME_LOW, TAME_HIGH = 2.0**-30, 2.0**30
#: Ways to put the matrices of several streams together.
BELOW, BESIDE = 1, 2


@dataclasses.dataclass(frozen=True)
class Stream:
    """Where and how a product's weights lie: everything that finding them depends on."""

    address: int
    rows: int
    beats: int
    pattern: int
    wide: bool
    k_outer: bool
    #: Names of the row constants, in their order.
    constants: tuple[str, ...] = ()

    def span(self, beat_bytes: int) -> tuple[int, int]:
        """First byte of the stream in each channel and the one after its last."""
        beats = sum(self._beats(beat_bytes))
        return self.address * beat_bytes, (self.address + beats) * beat_bytes

    def values(self, beat_bytes: int) -> int:
        """First byte behind the row constants."""
        return (self.address + self._beats(beat_bytes)[0]) * beat_bytes

    def _beats(self, beat_bytes: int) -> tuple[int, int, int]:
        return stream_beats(self.rows, len(self.constants), self.beats << self.wide,
                            PATTERNS[self.pattern], beat_bytes)


class Plan:
    """What the kernels must know to read streams that are one matrix.

    Attributes
    ----------
    blocks : int
        Plane blocks that meet weights.
    wide : bool
        Weights have two digits.
    arguments : tuple of arrays
        Those of the kernels' parameters ``memory`` to ``choices``.
    """

    def __init__(self, memory: Memory, streams: tuple[Stream, ...], joined: int = BELOW) -> None:
        width, stream = memory.config.beat_bytes, streams[0]
        pattern = PATTERNS[stream.pattern]
        self.wide = stream.wide
        lines, row, block = [], 0, 0
        for each in streams:
            lines.append((each.values(width), each.rows, each.beats, each.beats * pattern.ratio,
                          block, row))
            row += each.rows if joined == BELOW else 0
            block += each.beats * pattern.ratio if joined == BESIDE else 0
        self.rows = sum(each.rows for each in streams) if joined == BELOW else stream.rows
        self._lines = np.array(lines, np.int64)
        self.blocks = int((self._lines[:, kernels.FROM] + self._lines[:, kernels.BLOCKS]).max())
        layout = np.array((width, stream.wide, stream.k_outer, pattern.ratio, pattern.n,
                           pattern.bits, pattern.units), np.int64)
        self.arguments: tuple[Any, Any, Any, Any, Any] = (
            memory.signed, self._lines, layout, *tables(pattern, width))

    def cut(self, blocks: int) -> None:
        """Leave out the blocks from number ``blocks`` on."""
        starts = self._lines[:, kernels.FROM]
        self._lines[:, kernels.BLOCKS] = np.clip(blocks - starts, 0,
                                                 self._lines[:, kernels.BLOCKS])
        self.blocks = blocks


@functools.cache
def tables(pattern: Pattern, width: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """How a sparse pattern is decoded.

    Returns
    -------
    slots : uint64 array [width]
        Where the group of each value of a beat begins, in what the beat covers.
    choices : uint64 array [2^bits]
        By metadata of a group: the positions of its values in it, a byte each.
    """
    if pattern.m == 1:
        return np.zeros(1, np.uint64), np.zeros(1, np.uint64)
    slots = [window * 4 * width + 16 * group + ordinal // pattern.n * pattern.m
             for window, group, ordinal in map(pattern.slot, range(width))]
    codes = np.arange(1 << pattern.bits)[:, None]
    if pattern.coding == "bitmap":
        # Set bits first, each kind in ascending order.
        positions = np.argsort(1 - (codes >> np.arange(pattern.m) & 1), axis=1, kind="stable")
    elif pattern.coding == "positions":
        positions = codes >> 4 * np.arange(pattern.n) & 15
    else:
        listed = list(itertools.combinations(range(pattern.m), pattern.n))
        # Numbers without a choice do not occur in a legal stream.
        positions = np.array([listed[code] if code < len(listed) else listed[0]
                              for code in range(len(codes))])
    shifts = 8 * np.arange(pattern.n, dtype=np.uint64)
    choices = positions[:, :pattern.n].astype(np.uint64) << shifts
    return np.array(slots, np.uint64), np.bitwise_or.reduce(choices, axis=1)


class Weights:
    """A product's streams, and what is known of them as long as nobody writes there.

    Parameters
    ----------
    memory : Memory
    streams : tuple of Stream
    joined : int
        How they go together if there are several: ``BELOW`` or ``BESIDE`` one another.

    Attributes
    ----------
    plan : Plan
        Inputs behind the last one with a weight other than zero are left out.
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
        constants = np.concatenate([_constants(memory, stream) for stream in streams], 1)
        self.constants = {name: np.ascontiguousarray(constants[:, :, k].T)
                          for k, name in enumerate(streams[0].constants)}
        magnitudes = np.abs(constants)
        self.tame = bool(((magnitudes == 0) | (magnitudes >= TAME_LOW)).all()
                         and (magnitudes <= TAME_HIGH).all())

        self.plan = Plan(memory, streams, joined)
        flat = np.zeros(self.plan.blocks, np.bool_)
        kernels.scan(*self.plan.arguments, flat)
        used = flat.reshape(-1, min(PATTERNS[streams[0].pattern].ratio, 4))
        kept = max(1, 1 + int(np.flatnonzero(used.any(axis=1)).max(initial=0)))
        self.used: npt.NDArray[np.bool_] = used[:kept]
        self.plan.cut(self.used.size)


def _constants(memory: Memory, stream: Stream) -> npt.NDArray[np.float32]:
    """Row constants [lanes, rows, names] of a stream."""
    width, number = memory.config.beat_bytes, len(stream.constants)
    raw = memory.bytes[:, stream.address * width:stream.values(width)]
    words = np.ascontiguousarray(raw).view(F32)[:, :stream.rows * number]
    return words.reshape(len(raw), stream.rows, number)


Key = tuple[tuple[Stream, ...], int]


class WeightCache:
    """Weights by their places; a write to a place forgets what was known of it."""

    PAGE = 1 << 14

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._kept: dict[Key, Weights] = {}
        #: (first byte, end, key) of what lies in a page.
        self._pages: dict[int, set[tuple[int, int, Key]]] = {}
        memory.written = self._forget

    def get(self, streams: tuple[Stream, ...], joined: int = BELOW) -> Weights:
        """The weights of these streams, looked at now unless they are known already."""
        key = streams, joined
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = Weights(self.memory, streams, joined)
            for page, place in self._places(key):
                self._pages.setdefault(page, set()).add(place)
        return found

    def _places(self, key: Key) -> Iterator[tuple[int, tuple[int, int, Key]]]:
        for stream in key[0]:
            low, high = stream.span(self.memory.config.beat_bytes)
            for page in range(low // self.PAGE, -(-high // self.PAGE)):
                yield page, (low, high, key)

    def _drop(self, key: Key) -> None:
        self._kept.pop(key).current = False
        for page, place in self._places(key):
            self._pages[page].discard(place)

    def _forget(self, start: int, end: int) -> None:
        for page in range(start // self.PAGE, -(-end // self.PAGE)) if self._kept else ():
            if places := self._pages.get(page):
                for key in {key for low, high, key in places if low < end and start < high}:
                    self._drop(key)
