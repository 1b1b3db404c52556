# SPDX-License-Identifier: Apache-2.0
"""Exact sums of products, in the cheapest form that holds them, and the bank that keeps them."""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cardsim import numerics as nx

from . import kernels
from .arithmetic import F32
from .state import State
from .weights import Plan

#: Integers below are exact in FP64.
EXACT_F64 = 2.0**53
#: Bound on sums that the kernels may form in 64 bits.
EXACT_INT64 = 2.0**62
#: Magnitudes of weights of one digit and of two are at most these.
LARGEST_WEIGHT = 128, 128 * 257


@dataclasses.dataclass(slots=True)
class Sums:
    """Exact sums.

    Attributes
    ----------
    values : array [tokens, rows · C]
        FP64 numbers; or Python integers, in units of 2^unit.
    unit : int
        All values are multiples of 2^unit.
    bound : float
        At least the magnitude of every value.
    """

    values: npt.NDArray[Any]
    unit: int
    bound: float

    def integers(self, unit: int) -> npt.NDArray[Any]:
        """As Python integers in units of 2^unit."""
        if self.values.dtype == object:
            return self.values * (1 << self.unit - unit)
        scaled = np.frompyfunc(lambda x: _integer(float(x), unit), 1, 1)
        return np.asarray(scaled(self.values), object)

    def plus(self, other: "Sums") -> "Sums":
        """The sums of both, exact."""
        unit, bound = min(self.unit, other.unit), self.bound + other.bound
        if object in (self.values.dtype, other.values.dtype) or \
                bound >= math.ldexp(EXACT_F64, unit):
            return Sums(self.integers(unit) + other.integers(unit), unit, bound)
        return Sums(self.values + other.values, unit, bound)

    def turned(self, lanes: int, first: int) -> "Sums":
        """With lane ``first`` of every row as its first element."""
        if not first:
            return self
        rows = self.values.reshape(len(self.values), -1, lanes)
        return Sums(np.roll(rows, -first, axis=2).reshape(self.values.shape), self.unit, self.bound)

    def rounded(self) -> npt.NDArray[np.float32]:
        """``cvt`` of every value."""
        if self.values.dtype == object:
            return nx.cvt(self.values, self.unit)
        # The magnitude before rounding decides; zeros are +0.
        return np.asarray(
            self.values * (np.abs(self.values) >= nx.SMALLEST) + 0.0).astype(F32)


def _integer(value: float, unit: int) -> int:
    mantissa, exponent = math.frexp(value)
    scaled, places = int(math.ldexp(mantissa, 53)), exponent - 53 - unit
    return scaled << places if places >= 0 else scaled >> -places


def multiply(plan: Plan, state: State, used: npt.NDArray[np.bool_], act: int, digits: int,
             tokens: int) -> Sums:
    """Streams times planes, for all columns at once.

    Terms are integers times a power of two.  They are added up in 64 bits, in units of the least
    of these powers, where the sum of their magnitudes is below 2^62; where exponents are too far
    apart for that, those of each exponent for themselves.

    Parameters
    ----------
    plan : Plan
    state : State
    used : bool array [blocks]
        Plane blocks that count.
    act : int
        First plane block.
    digits, tokens : int
        Columns of a token; tokens.
    """
    width = state.config.beat_bytes
    x = np.empty((tokens, plan.blocks * width), np.int16)
    levels = np.empty((tokens, plan.blocks), np.int64)
    unit, total = kernels.spread(state.planes, state.exponents, used, act, digits, x, levels)
    shape = tokens, plan.rows * len(plan.arguments[0])
    if total * LARGEST_WEIGHT[plan.wide] < EXACT_INT64:
        sums: npt.NDArray[Any] = np.zeros(shape, np.int64)
        kernels.multiply(*plan.arguments, x, levels, sums)
        most = int(np.abs(sums).max())
        sums = sums * math.ldexp(1, unit) if most < EXACT_F64 else sums.astype(object)
    else:
        sums = np.zeros(shape, object)
        for level in np.unique(levels).tolist():
            part = np.zeros(shape, np.int64)
            of_level = np.where(np.repeat(levels == level, width, axis=1), x, np.int16(0))
            kernels.multiply(*plan.arguments, of_level, np.zeros_like(levels), part)
            sums += part.astype(object) << level
        most = abs(sums).max()
    return Sums(sums, unit, math.ldexp(float(most) * (1 + 1e-15), unit))


class Bank:
    """The accumulator bank: portions of rows as they were last written, with their sums."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[int, Sums]] = {}

    def get(self, row: int, rows: int, tokens: int, lanes: int) -> Sums:
        """Sums of ``rows`` rows from ``row`` on."""
        pieces = [(start, count, sums) for start, (count, sums) in self._rows.items()
                  if start < row + rows and row < start + count]
        if len(pieces) == 1:
            start, count, sums = pieces[0]
            if start <= row and row + rows <= start + count and len(sums.values) >= tokens:
                part = slice((row - start) * lanes, (row - start + rows) * lanes)
                return Sums(sums.values[:tokens, part], sums.unit, sums.bound)
        # Rows that were written in other portions: gathered as integers of the least unit.
        unit = min((sums.unit for _, _, sums in pieces), default=0)
        values = np.zeros((tokens, rows * lanes), object)
        for start, count, sums in pieces:
            low, high = max(start, row), min(start + count, row + rows)
            width = min(tokens, len(sums.values))
            part = slice((low - start) * lanes, (high - start) * lanes)
            values[:width, (low - row) * lanes:(high - row) * lanes] = Sums(
                sums.values[:width, part], sums.unit, sums.bound).integers(unit)
        return Sums(values, unit, max((sums.bound for _, _, sums in pieces), default=0.0))

    def put(self, row: int, rows: int, sums: Sums, lanes: int) -> None:
        """Replace rows."""
        if self._rows.get(row, (0,))[0] != rows:
            self._make_room(row, rows, lanes)
        self._rows[row] = rows, sums

    def _make_room(self, row: int, rows: int, lanes: int) -> None:
        end = row + rows
        for start, (count, held) in list(self._rows.items()):
            if start >= end or row >= start + count:
                continue
            del self._rows[start]
            for first, last in ((start, min(row, start + count)), (max(end, start), start + count)):
                if first < last:
                    part = held.values[:, (first - start) * lanes:(last - start) * lanes]
                    self._rows[first] = last - first, Sums(part, held.unit, held.bound)
