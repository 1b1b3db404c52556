# SPDX-License-Identifier: Apache-2.0
"""Exact sums of products, in the cheapest form that holds them, and the bank that keeps them."""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cardsim import numerics as nx

from .arithmetic import F32

#: Sums whose partial sums stay below these multiples of their unit are exact in FP32 and FP64.
EXACT_F32, EXACT_F64 = 2.0**24, 2.0**53


#: Multiplications up to which a matrix is taken whole, and elements that a core's cache holds.
SMALL, PIECE = 1 << 17, 1 << 16


def product(x: npt.NDArray[Any], matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """x [columns, inputs] times the transpose of matrix [rows, inputs].

    A general product of a few columns with a large matrix first copies the matrix.  Piece by piece,
    all columns find in cache what the first one brought there.
    """
    rows, inputs = matrix.shape
    if rows * inputs * len(x) <= SMALL:
        return np.asarray(x @ matrix.T)
    step = max(1, PIECE // inputs)
    out = np.empty((len(x), rows), x.dtype)
    for first in range(0, rows, step):
        piece = matrix[first:first + step]
        for column, into in zip(x, out, strict=True):
            np.dot(piece, column, out=into[first:first + step])
    return out


@dataclasses.dataclass(slots=True)
class Sums:
    """Exact sums.

    Attributes
    ----------
    values : array [tokens, rows · C]
        FP32 or FP64 numbers; or Python integers, in units of 2^unit.
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


def multiply_integers(matrix: npt.NDArray[Any], x: npt.NDArray[np.float64],
                      exponents: npt.NDArray[np.int16], digits: int, width: int) -> Sums:
    """Products for any exponents and any length, in Python integers.

    Parameters
    ----------
    matrix : array [rows · C, inputs]
        Integers.
    x : float64 array [columns, inputs]
    exponents : int array [columns, blocks]
    digits : int
        Columns of a token.
    width : int
        Inputs of a block.
    """
    columns, blocks = exponents.shape
    unit = int(exponents.min())
    wide = exponents.astype(int)
    q = np.ldexp(x.reshape(columns, blocks, width), -wide[:, :, None]).astype(np.int64)
    dots = np.einsum("rbk,cbk->cbr", matrix.reshape(-1, blocks, width).astype(np.int64),
                     q).astype(object)
    shifts = np.array([[1 << e - unit for e in row] for row in wide.tolist()], object)
    sums = (dots * shifts[:, :, None]).sum(1)
    if digits == 2:
        sums = sums[::2] * 256 + sums[1::2]
    return Sums(sums, unit, math.ldexp(float(abs(sums).max()), unit))


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
