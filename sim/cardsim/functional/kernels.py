# SPDX-License-Identifier: Apache-2.0
"""Products of streams with activations, compiled by Numba, straight from the beats in memory.

Nothing is decoded ahead and kept.  All sums are integers, and exact:

* a run of at most ``RUN`` products of a weight (within ±128) and an activation (within ±32,768)
  stays within 448 · 2^22 < 2^31, in whatever order it is added up: 32 bits;
* a row stays within the bound that follows from :func:`spread`, which the caller holds against
  2^62: 64 bits.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Bytes = npt.NDArray[np.int8]
_Flags = npt.NDArray[np.bool_]
_Ints = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]

#: Most products that are added up in 32 bits; a multiple of every block.
RUN = 448
#: Columns of a plan, which has a line for each stream: byte of the beats behind the row constants,
#: lane rows, value beats of a row, blocks that count, where these start in the activations, and
#: first lane row of the result.
PLAN = BASE, ROWS, BEATS, BLOCKS, FROM, INTO = range(6)
#: Elements of a layout, which all streams of a plan share: bytes of a block; 16-bit values; all
#: rows of a beat together; then those of a :class:`~rtl_gen.spec.formats.Pattern`.
LAYOUT = WIDTH, WIDE, K_OUTER, RATIO, KEPT, BITS, UNITS = range(7)
#: Those of rtl_gen.spec.formats, written out: machine code that is kept follows this file alone.
SUPERGROUP, UNITS_PER_BEAT = 16, 16


def _compiled(function: _Function) -> _Function:
    """Compile at the first call, and keep the machine code for the next process.

    Other cards of a ring go on meanwhile, in their threads.
    """
    try:
        kept: Any = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:    # neither the package's folder nor the user's cache can be written
        kept = numba.njit(nogil=True)(function)
    return cast(_Function, kept)


@_compiled
def _dot(w: _Bytes, first: int, x: npt.NDArray[np.int16], ahead: int, size: int) -> Any:
    """Sum of ``size`` products, at most ``RUN``, of weights from ``first`` on and activations from
    ``ahead`` on."""
    # Unsigned: a signed index might count from the end, which costs a test each time.
    a, b = np.uint64(first), np.uint64(ahead)
    total = np.int32(0)
    for k in range(np.uint64(size)):
        total = np.int32(total + np.int32(w[a + k]) * np.int32(x[b + k]))
    return total


@_compiled
def spread(planes: _Bytes, exponents: npt.NDArray[np.int16], used: _Flags, act: int, digits: int,
           x: npt.NDArray[np.int16], levels: _Ints) -> tuple[int, float]:
    """Put activations together from their digits.

    Parameters
    ----------
    planes : int8 array [T, elements]
    exponents : int16 array [T, blocks]
    used : bool array [blocks]
        Blocks that count; the others become zeros.
    act : int
        First plane block.
    digits : int
        Columns of a token.
    x : int16 array [tokens, inputs]
        Takes the activations.
    levels : int64 array [tokens, blocks]
        Takes how far each block is to be shifted.

    Returns
    -------
    unit : int
        The least exponent of a block that is not zero, which is shifted by 0; or 0.
    total : float
        The largest sum of magnitudes of a token, in units of 2^unit.
    """
    tokens, blocks = levels.shape
    width = x.shape[1] // blocks
    sizes = np.zeros((tokens, blocks), np.int64)
    none = 1 << 20
    unit = none
    for token in range(tokens):
        low = planes[(token + 1) * digits - 1]
        high = planes[token * digits]
        for block in range(blocks):
            start = block * width
            if not used[block]:
                x[token, start:start + width] = 0
                continue
            size = np.int64(0)
            for k in range(start, start + width):
                value = np.int16(low[act * width + k])
                if digits == 2:
                    value = np.int16(value + np.int16(high[act * width + k]) * np.int16(256))
                x[token, k] = value
                size += abs(np.int64(value))
            sizes[token, block] = size
            if size:
                unit = min(unit, int(exponents[token * digits, act + block]))
    largest = 0.0
    for token in range(tokens):
        total = 0.0
        for block in range(blocks):
            levels[token, block] = 0
            if sizes[token, block]:
                level = exponents[token * digits, act + block] - unit
                levels[token, block] = level
                total += sizes[token, block] * 2.0**level
        largest = max(largest, total)
    return (0 if unit == none else unit), largest


@_compiled
def _expand(lane: _Bytes, stream: _Ints, row: int, layout: _Ints, slots: _Words, choices: _Words,
            dense: _Bytes) -> None:
    """One row of a sparse stream, as dense weights."""
    width, kept, bits, units = layout[WIDTH], layout[KEPT], layout[BITS], layout[UNITS]
    rows, beats, covered = stream[ROWS], stream[BEATS], layout[WIDTH] * layout[RATIO]
    notes = 8 * units * width // UNITS_PER_BEAT     # bits of a value beat's metadata
    whole = rows * beats // SUPERGROUP * SUPERGROUP
    short = -(-(rows * beats - whole) * units // UNITS_PER_BEAT)
    mask = np.uint64((1 << bits) - 1)
    dense[:] = 0
    for beat in range(beats):
        number = beat * rows + row if layout[K_OUTER] else row * beats + beat
        supergroup, place = number // SUPERGROUP, number % SUPERGROUP
        before = units if number < whole else short
        start = stream[BASE] + supergroup * (units + SUPERGROUP) * width
        # Unsigned: a signed index might count from the end, which costs a test each time.
        value = np.uint64(start + (before + place) * width)
        meta, within = np.uint64(start + place * notes // 8), place * notes % 8
        first = np.uint64(beat * covered)
        buffer, held = np.uint64(0), 0
        if within:      # beats of eight bytes have half bytes
            buffer, held = (np.uint64(lane[meta]) & np.uint64(255)) >> np.uint64(within), 8 - within
            meta += np.uint64(1)
        for slot in range(0, width, kept):
            while held < bits:
                buffer |= (np.uint64(lane[meta]) & np.uint64(255)) << np.uint64(held)
                held += 8
                meta += np.uint64(1)
            places = choices[buffer & mask]
            buffer >>= np.uint64(bits)
            held -= bits
            for k in range(kept):
                # Two slots of a group may name one position: it gets their sum.
                dense[first + slots[slot + k] + (places & np.uint64(255))] += lane[value]
                places >>= np.uint64(8)
                value += np.uint64(1)


@_compiled
def _starts(stream: _Ints, width: int, levels: _Ints, joined: bool) -> _Ints:
    """First blocks of runs of one level, and the block behind the last; without ``joined`` each
    block is a run."""
    first, blocks = stream[FROM], stream[BLOCKS]
    starts, runs = np.zeros(blocks + 1, np.int64), 0
    for block in range(blocks):
        joins = joined and runs > 0 and (block - starts[runs - 1] + 1) * width <= RUN
        for token in range(len(levels) if joins else 0):
            joins &= levels[token, first + block] == levels[token, first + block - 1]
        if not joins:
            starts[runs] = block
            runs += 1
    starts[runs] = blocks
    return starts[:runs + 1]


@_compiled
def _strides(stream: _Ints, layout: _Ints) -> tuple[int, int]:
    """Bytes from a row of a dense stream to the next, and from a block to the next."""
    beat = layout[WIDTH] * (1 + layout[WIDE])
    if layout[K_OUTER]:
        return beat, beat * stream[ROWS]
    return beat * stream[BEATS], beat


@_compiled
def multiply(memory: _Bytes, plan: _Ints, layout: _Ints, slots: _Words, choices: _Words,
             x: npt.NDArray[np.int16], levels: _Ints, out: _Ints) -> None:
    """Add the products of streams with activations to ``out``; memory is read once.

    Parameters
    ----------
    memory : int8 array [lanes, channel_bytes]
    plan : int64 array [streams, len(PLAN)]
    layout : int64 array [len(LAYOUT)]
    slots, choices : uint64 arrays
        See :func:`~cardsim.functional.weights.tables`.
    x : int16 array [tokens, inputs]
    levels : int64 array [tokens, blocks]
        How far sums over each block are shifted to the left.
    out : int64 array [tokens, rows · lanes]
    """
    width, sparse, wide = layout[WIDTH], layout[RATIO] > 1, layout[WIDE] == 1
    lanes = len(memory)
    for stream in plan:
        of_row, of_block = _strides(stream, layout)
        starts = _starts(stream, width, levels, sparse or of_block == width)
        first, ahead = stream[FROM], stream[FROM] * width
        dense = np.zeros(stream[BEATS] * width * layout[RATIO] if sparse else 0, np.int8)
        for lane in range(lanes):
            beats = memory[lane]
            for row in range(stream[ROWS]):
                if sparse:
                    _expand(beats, stream, row, layout, slots, choices, dense)
                for token in range(len(x)):
                    part = x[token]
                    total = np.int64(0)
                    for run in range(len(starts) - 1):
                        block = starts[run]
                        size, start = (starts[run + 1] - block) * width, ahead + block * width
                        if sparse:
                            found = np.int64(_dot(dense, block * width, part, start, size))
                        else:
                            at = stream[BASE] + row * of_row + block * of_block
                            found = np.int64(_dot(beats, at, part, start, size))
                            if wide:
                                found = found * 256 + np.int64(
                                    _dot(beats, at + width, part, start, size))
                        total += found << levels[token, first + block]
                    out[token, (stream[INTO] + row) * lanes + lane] += total


@_compiled
def scan(memory: _Bytes, plan: _Ints, layout: _Ints, slots: _Words, choices: _Words,
         used: _Flags) -> None:
    """Set ``used`` [blocks] where a block meets a weight other than zero."""
    width, sparse = layout[WIDTH], layout[RATIO] > 1
    for stream in plan:
        of_row, of_block = _strides(stream, layout)
        dense = np.zeros(stream[BEATS] * width * layout[RATIO] if sparse else 0, np.int8)
        found = used[stream[FROM]:stream[FROM] + stream[BLOCKS]]
        for lane in range(len(memory)):
            beats = memory[lane]
            for row in range(stream[ROWS]):
                if found.all():
                    break
                if sparse:
                    _expand(beats, stream, row, layout, slots, choices, dense)
                for block in range(len(found)):
                    if found[block]:
                        continue
                    if sparse:
                        part = dense[block * width:(block + 1) * width]
                    else:
                        at = stream[BASE] + row * of_row + block * of_block
                        part = beats[at:at + width * (1 + layout[WIDE])]
                    found[block] = part.any()
