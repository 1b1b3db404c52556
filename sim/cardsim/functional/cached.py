# SPDX-License-Identifier: Apache-2.0
"""Products with K or V: read anew each time, after the fresh ones have been put in their place."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from rtl_gen.spec.config import HEAD

from .arithmetic import F32
from .memory import Memory
from .state import State
from .sums import EXACT_F32, EXACT_F64, Sums, multiply_integers, product
from .vector import Fields


class CachedRows:
    """The exact sums of one MATMUL over K or V.

    Attributes
    ----------
    seen : set
        Layouts of the planes that were found to fit.
    """

    def __init__(self, state: State, memory: Memory, f: Fields) -> None:
        config = state.config
        self.state, self.memory, self.f = state, memory, f
        self.lanes, self.width, self.wide = config.channels, config.beat_bytes, 1 + f["wide"]
        self.digits, self.columns = 1 + f["digits"], f["columns"] << f["digits"]
        self.seen: set[Any] = set()
        #: What each product of a token counts.
        self.places = np.outer(np.array([256.0, 1.0])[2 - self.digits:],
                               np.array([256.0, 1.0])[2 - self.wide:]).ravel()

    def __call__(self, position: int, rows: int, beats: int, address: int) -> Sums:
        """Sums of ``rows`` rows of ``beats`` value beats; merges, and writes back."""
        lanes, width, wide = self.lanes, self.width, self.wide
        start = address * width
        raw = self.memory.bytes[:, start:start + rows * beats * wide * width].view(np.int8)
        if self.f["merge"] and self._merge(raw, position, rows, beats):
            self.memory.touch(start, start + raw.shape[1])
        # Each row's bytes as they come: by beat, digit, element.
        if self.f["k_outer"]:
            held = raw.reshape(lanes, beats, rows, wide * width).swapaxes(1, 2)
        else:
            held = raw.reshape(lanes, rows, beats, wide * width)
        stored = held.swapaxes(0, 1).reshape(rows * lanes, -1)

        act = self.f["act"]
        exponents = self.state.exponents[:self.columns, act:act + beats]
        unit, most = int(exponents.min()), int(exponents.max())
        x = self.state.planes[:self.columns, act * width:(act + beats) * width]
        # No byte is above 128, nor any digit of x times 2^-most.
        bound = math.ldexp(beats * width * 2.0**14, most)
        products: npt.NDArray[Any]
        if unit > -100 and most < 60 and bound < math.ldexp(EXACT_F32, unit):
            products = product(self._spread(x.astype(F32)), stored.astype(F32))
        elif bound < math.ldexp(EXACT_F64, unit - 20):
            products = product(self._spread(x), stored.astype(np.float64))
        else:
            return self._integers(stored, x, exponents)
        # By column, then by digit of K or V, high first; a token's digits are two columns.
        values = np.matmul(self.places, products.reshape(-1, len(self.places), rows * lanes))
        return Sums(values, unit, 65793 * bound)

    def _spread(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Activations [columns · wide, bytes]: each against one digit of K or V, zero elsewhere."""
        if self.wide == 1:
            return x
        columns, inputs = x.shape
        spread = np.zeros((columns, 2, inputs // self.width, 2, self.width), x.dtype)
        parts = x.reshape(columns, -1, self.width)
        spread[:, 0, :, 0] = parts
        spread[:, 1, :, 1] = parts
        return spread.reshape(2 * columns, -1)

    def _integers(self, stored: npt.NDArray[np.int8], x: npt.NDArray[np.float64],
                  exponents: npt.NDArray[np.int16]) -> Sums:
        beats = exponents.shape[1]
        values = stored.reshape(len(stored), beats, self.wide, self.width).astype(np.int64)
        matrix = values[:, :, 0] * 256 + values[:, :, 1] if self.wide == 2 else values[:, :, 0]
        return multiply_integers(matrix.reshape(len(stored), -1), x, exponents, self.digits,
                                 self.width)

    def _merge(self, raw: npt.NDArray[np.int8], position: int, rows: int, beats: int) -> bool:
        """Put the fresh digits of every token where its K or V is stored."""
        f, lanes, wide, width = self.f, self.lanes, self.wide, self.width
        changed = False
        for token in range(f["columns"]):
            fresh = self.state.fresh[f["merge"] - 1, token, f["head"]][-wide:]     # [digit, 64]
            place = position + token
            if f["merge"] == 1:
                row, lane = divmod(place, lanes)
                if row < rows:
                    count = min(beats, HEAD // width)
                    stored = self._rows(raw, rows, beats)
                    stored[lane, row, :count] = fresh[:, :count * width].reshape(
                        wide, count, width).swapaxes(0, 1)
                    changed = True
            else:
                block, byte = divmod(place, width)
                if block < beats:
                    count = min(rows, HEAD // lanes)
                    stored = self._rows(raw, rows, beats)
                    stored[:, :count, block, :, byte] = fresh[:, :count * lanes].reshape(
                        wide, count, lanes).transpose(2, 1, 0)
                    changed = True
        return changed

    def _rows(self, raw: npt.NDArray[np.int8], rows: int, beats: int) -> npt.NDArray[np.int8]:
        """The bytes as [lane, row, beat, digit, element], without a copy."""
        if self.f["k_outer"]:
            return raw.reshape(self.lanes, beats, rows, self.wide, self.width).swapaxes(1, 2)
        return raw.reshape(self.lanes, rows, beats, self.wide, self.width)
