# SPDX-License-Identifier: Apache-2.0
"""Lane streams: N:M encoding of weights, and the beats of every channel (docs/architecture.md)."""

import functools
import itertools
import math
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.formats import SUPERGROUP, Pattern, meta_beats, stream_beats

Bytes = npt.NDArray[np.uint8]
Int8 = npt.NDArray[np.int8]
Words = npt.NDArray[np.uint32]
Codes = npt.NDArray[np.uint16]
_Item = TypeVar("_Item", bound=np.generic)

#: Groups that are encoded at a time: bounds the memory that packing takes beside its result.
_CHUNK = 1 << 21


class _Encoding(NamedTuple):
    """What the nonzero mask of a group, as a number, becomes."""

    positions: npt.NDArray[np.uint8]    # [2^M, N] kept positions, ascending
    code: Codes                         # [2^M]
    legal: npt.NDArray[np.bool_]        # [2^M] no more than N


@functools.cache
def _encoding(pattern: Pattern) -> _Encoding:
    """Tables over all masks of a group.

    Groups with fewer nonzeros keep their lowest zeros as well, so that every code is legal.
    """
    n, m = pattern.n, pattern.m
    masks = np.arange(1 << m)
    bits = masks[:, None] >> np.arange(m) & 1
    # Nonzeros first, then zeros, both ascending: the first n of them, in order, are kept.
    kept = np.sort(np.argsort(1 - bits, axis=1, kind="stable")[:, :n], axis=1)
    bitmap = (1 << kept).sum(axis=1)
    match pattern.coding:
        case "choice":
            order = {sum(1 << p for p in choice): number for number, choice
                     in enumerate(itertools.combinations(range(m), n))}
            code = np.array([order[int(key)] for key in bitmap])
        case "bitmap":
            code = bitmap
        case "positions":
            code = (kept << 4 * np.arange(n)).sum(axis=1)
        case _:
            raise ValueError(f"pattern must be sparse to be encoded, not {pattern.name}")
    return _Encoding(kept.astype(np.uint8), code.astype(np.uint16), bits.sum(axis=1) <= n)


def _masks(groups: Int8, m: int) -> npt.NDArray[np.integer]:
    """The nonzero mask of each group of ``m``, as a number; ``groups`` is [..., m]."""
    packed = np.packbits(groups.reshape(-1) != 0, bitorder="little")
    if m == 4:
        packed = np.stack([packed & 15, packed >> 4], axis=-1).reshape(-1)
    elif m == 16:
        return packed.view("<u2")[:groups.size // m]
    return packed[:groups.size // m]


def _encode(groups: Int8, pattern: Pattern) -> tuple[Int8, Codes]:
    """Kept values [groups, N] and codes [groups] of ``groups`` [groups, M].

    Raises
    ------
    IndexError
        With the number of the first group that has more than N nonzeros.
    """
    table = _encoding(pattern)
    values = np.empty((len(groups), pattern.n), np.int8)
    codes = np.empty(len(groups), np.uint16)
    for start in range(0, len(groups), _CHUNK):
        part = slice(start, min(start + _CHUNK, len(groups)))
        masks = _masks(groups[part], pattern.m)
        if not table.legal[masks].all():
            raise IndexError(start + int(np.argmin(table.legal[masks])))
        values[part] = np.take_along_axis(groups[part], table.positions[masks], axis=1)
        codes[part] = table.code[masks]
    return values, codes


def _pack_bits(codes: Codes, bits: int) -> Bytes:
    """Codes of ``bits`` bits each, [..., groups], one after another from the lowest bit: bytes."""
    if bits == 16:
        return np.ascontiguousarray(codes, "<u2").view(np.uint8)
    if bits == 8:
        return codes.astype(np.uint8)
    # Eight codes fill a whole number of bytes.
    if short := -codes.shape[-1] % 8:
        codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, short)])
    eight = codes.reshape(*codes.shape[:-1], -1, 8).astype(np.uint64)
    shifts = np.arange(0, 8 * bits, bits, dtype=np.uint64)
    lines = np.bitwise_or.reduce(eight << shifts, axis=-1)
    packed: Bytes = lines.astype("<u8")[..., None].view(np.uint8)[..., :bits]
    return packed.reshape(*codes.shape[:-1], -1)


def _unpack_bits(packed: Bytes, bits: int) -> Codes:
    """The inverse of :func:`_pack_bits`; of what is left over in the end, nothing."""
    single = np.unpackbits(packed, axis=-1, bitorder="little")
    single = single[..., :single.shape[-1] // bits * bits]
    weighted = single.reshape(*packed.shape[:-1], -1, bits) << np.arange(bits, dtype=np.uint16)
    codes: Codes = weighted.sum(axis=-1, dtype=np.uint16)
    return codes


def _to_slots(parts: npt.NDArray[_Item], pattern: Pattern, beat_bytes: int,
              *, back: bool = False) -> npt.NDArray[_Item]:
    """Values or codes of a beat, [beats, ...] in order of position, in order of slot (or back).

    The orders differ beyond ratio 4 alone: there four neighbouring slots serve the windows in turn.
    """
    if pattern.ratio <= 4:
        return parts
    windows, groups = pattern.entries, (beat_bytes // 4, 16 // pattern.m)
    if back:
        grid = parts.reshape(len(parts), *groups, windows, -1).transpose(0, 3, 1, 2, 4)
    else:
        grid = parts.reshape(len(parts), windows, *groups, -1).transpose(0, 2, 3, 1, 4)
    return np.ascontiguousarray(grid).reshape(parts.shape)


def row_beats(inputs: int, pattern: Pattern, config: CardConfig) -> int:
    """Value beats of a row of ``inputs`` weights.

    >>> from rtl_gen.spec.config import TINY
    >>> from rtl_gen.spec.formats import stored_as
    >>> row_beats(768, stored_as(2, 4), TINY), row_beats(10, stored_as(2, 4), TINY)
    (24, 1)
    """
    return math.ceil(inputs / (config.beat_bytes * pattern.ratio))


def _beats(weights: Int8, pattern: Pattern, config: CardConfig) -> tuple[Int8, Codes]:
    """Value beats [rows, beats, B] and codes [rows, beats, groups] of whole rows.

    Rows are made up with zeros to a multiple of the lanes, inputs to whole beats.
    """
    given, inputs = weights.shape
    rows = math.ceil(given / config.channels) * config.channels
    beats, width = row_beats(inputs, pattern, config), config.beat_bytes
    padded = np.zeros((rows, beats * width * pattern.ratio), np.int8)
    padded[:given, :inputs] = weights
    if pattern.m == 1:
        return padded.reshape(rows, beats, width), np.zeros((rows, beats, 0), np.uint16)
    try:
        values, codes = _encode(padded.reshape(-1, pattern.m), pattern)
    except IndexError as error:
        row, group = divmod(int(error.args[0]), padded.shape[1] // pattern.m)
        count = np.count_nonzero(padded[row].reshape(-1, pattern.m)[group])
        raise ValueError(
            f"weights must be {pattern.name}: row {row}, group {group} must have at most "
            f"{pattern.n} nonzeros, not {count}") from None
    values = _to_slots(values.reshape(rows * beats, width), pattern, width)
    codes = _to_slots(codes.reshape(rows * beats, -1), pattern, width)
    return values.reshape(rows, beats, width), codes.reshape(rows, beats, -1)


def _to_lanes(rows: npt.NDArray[_Item], lanes: int) -> npt.NDArray[_Item]:
    """Rows [rows, ...], a multiple of the lanes, as [lanes, lane rows, ...]."""
    return rows.reshape(len(rows) // lanes, lanes, *rows.shape[1:]).swapaxes(0, 1)


def pack_stream(weights: Int8, pattern: Pattern, config: CardConfig,
                aux: Words | None = None, *, k_outer: bool = False) -> Bytes:
    """The stream of one MATMUL in every channel.

    Parameters
    ----------
    weights : int8 [rows, inputs]
        At most ``pattern.n`` nonzeros in every aligned group of ``pattern.m`` inputs.
    pattern : Pattern
    config : CardConfig
    aux : uint32 [rows, n], optional
        Constants of each row, in the order in which the instruction takes them.
    k_outer : bool
        All rows of a beat together instead of all beats of a row.

    Returns
    -------
    uint8 [channels, beats, beat_bytes]

    Raises
    ------
    ValueError
        If the weights do not keep to the pattern; names the first row and group that does not.
    """
    weights = np.asarray(weights)
    if weights.dtype != np.int8 or weights.ndim != 2 or 0 in weights.shape:
        raise ValueError("weights must be an int8 array of rows and inputs, "
                         f"not {weights.dtype} {weights.shape}")
    if aux is not None and (aux.dtype != np.uint32 or aux.ndim != 2 or len(aux) != len(weights)):
        raise ValueError(f"aux must be a uint32 array of {len(weights)} rows, "
                         f"not {aux.dtype} {aux.shape}")
    lanes, width = config.channels, config.beat_bytes
    kept, codes = _beats(weights, pattern, config)
    values, codes = _to_lanes(kept, lanes), _to_lanes(codes, lanes)
    _, lane_rows, beats, _ = values.shape
    constants = 0 if aux is None else aux.shape[1]
    head, meta_count, count = stream_beats(lane_rows, constants, beats, pattern, width)
    if k_outer:
        values, codes = values.swapaxes(1, 2), codes.swapaxes(1, 2)

    stream = np.zeros((lanes, head + meta_count + count, width), np.uint8)
    if aux is not None:
        padded = np.zeros((lane_rows * lanes, constants), "<u4")
        padded[:len(aux)] = aux
        records = np.ascontiguousarray(_to_lanes(padded, lanes)).reshape(lanes, -1).view(np.uint8)
        stream[:, :head].reshape(lanes, -1)[:, :records.shape[1]] = records
    body = stream[:, head:]
    flat = values.reshape(lanes, count, width).view(np.uint8)
    # Metadata of a beat need not be whole bytes, those of a supergroup are.
    notes = np.zeros((lanes, 0), np.uint8) if pattern.m == 1 else \
        _pack_bits(codes.reshape(lanes, -1), pattern.bits)

    # Whole supergroups at once, then the rest.
    full, period = count // SUPERGROUP, SUPERGROUP + pattern.units
    of_whole = full * pattern.units * width
    whole = body[:, :full * period].reshape(lanes, full, period, width)
    whole[:, :, pattern.units:] = flat[:, :full * SUPERGROUP].reshape(
        lanes, full, SUPERGROUP, width)
    whole[:, :, :pattern.units] = notes[:, :of_whole].reshape(
        lanes, full, pattern.units, width)
    rest, left = body[:, full * period:], count - full * SUPERGROUP
    if left:
        rest_notes = rest[:, :rest.shape[1] - left].reshape(lanes, -1)
        # The last codes were made up to eight: what goes beyond the beats is zero.
        last = notes[:, of_whole:][:, :rest_notes.shape[1]]
        rest_notes[:, :last.shape[1]] = last
        rest[:, rest.shape[1] - left:] = flat[:, full * SUPERGROUP:]
    return stream


def unpack_stream(stream: Bytes, rows: int, inputs: int, pattern: Pattern, config: CardConfig,
                  constants: int = 0, *, k_outer: bool = False) -> tuple[Int8, Words]:
    """Weights [rows, inputs] and aux [rows, constants]: the inverse of :func:`pack_stream`."""
    lanes, width = config.channels, config.beat_bytes
    lane_rows, beats = math.ceil(rows / lanes), row_beats(inputs, pattern, config)
    head, metas, count = stream_beats(lane_rows, constants, beats, pattern, width)
    if stream.shape != (lanes, head + metas + count, width):
        raise ValueError(f"stream must have the shape {(lanes, head + metas + count, width)}, "
                         f"not {stream.shape}")
    words = stream[:, :head].reshape(lanes, -1)[:, :4 * lane_rows * constants]
    aux = np.ascontiguousarray(words).view("<u4").reshape(lanes, lane_rows, constants)
    aux = aux.swapaxes(0, 1).reshape(lane_rows * lanes, constants)[:rows]

    notes, values, at = [], [], head
    for start in range(0, count, SUPERGROUP):
        size = min(SUPERGROUP, count - start)
        end = at + meta_beats(size, pattern)
        notes.append(stream[:, at:end].reshape(lanes, -1))
        values.append(stream[:, end:end + size])
        at = end + size
    order = (lanes, beats, lane_rows) if k_outer else (lanes, lane_rows, beats)

    def by_row(grid: npt.NDArray[_Item]) -> npt.NDArray[_Item]:
        grid = grid.reshape(*order, -1)
        grid = grid.swapaxes(1, 2) if k_outer else grid
        return grid.swapaxes(0, 1).reshape(lane_rows * lanes * beats, -1)

    kept = by_row(np.concatenate(values, axis=1)).view(np.int8)
    if pattern.m == 1:
        return kept.reshape(lane_rows * lanes, -1)[:rows, :inputs], aux
    codes = _unpack_bits(np.concatenate(notes, axis=1), pattern.bits)
    codes = by_row(codes[:, :count * width // pattern.n])
    codes = _to_slots(codes, pattern, width, back=True)
    kept = _to_slots(kept, pattern, width, back=True).reshape(-1, pattern.n)
    dense = np.zeros((len(kept), pattern.m), np.int8)
    np.put_along_axis(dense, _positions(codes.reshape(-1), pattern), kept, axis=1)
    return dense.reshape(lane_rows * lanes, -1)[:rows, :inputs], aux


def _positions(codes: Codes, pattern: Pattern) -> npt.NDArray[np.int64]:
    """Kept positions [groups, N] of codes [groups]."""
    n, m = pattern.n, pattern.m
    if pattern.coding == "positions":
        return (codes[:, None] >> (4 * np.arange(n)) & 15).astype(np.int64)
    if pattern.coding == "choice":
        return np.array(list(itertools.combinations(range(m), n)))[codes]
    bits = codes[:, None] >> np.arange(m) & 1
    return np.nonzero(bits)[1].reshape(-1, n)
