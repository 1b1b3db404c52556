# SPDX-License-Identifier: Apache-2.0
"""Products with K or V: read anew each time, after the fresh ones have been put in their place."""

from typing import Any

import numpy as np
import numpy.typing as npt

from rtl_gen.spec.config import HEAD

from .memory import Memory
from .state import State
from .sums import Sums, multiply
from .vector import Fields
from .weights import Plan, Stream


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
        self.digits = 1 + f["digits"]
        self.seen: set[Any] = set()

    def __call__(self, position: int, rows: int, beats: int, address: int) -> Sums:
        """Sums of ``rows`` rows of ``beats`` value beats; merges, and writes back."""
        f, width = self.f, self.width
        start = address * width
        raw = self.memory.signed[:, start:start + rows * beats * self.wide * width]
        if f["merge"] and self._merge(raw, position, rows, beats):
            self.memory.touch(start, start + raw.shape[1])
        stream = Stream(address, rows, beats, f["pattern"], bool(f["wide"]), bool(f["k_outer"]))
        return multiply(Plan(self.memory, (stream,)), self.state, np.ones(beats, np.bool_),
                        f["act"], self.digits, f["columns"])

    def _merge(self, raw: npt.NDArray[np.int8], position: int, rows: int, beats: int) -> bool:
        """Put the fresh digits of every token where its K or V is stored."""
        f, lanes, wide, width = self.f, self.lanes, self.wide, self.width
        changed = False
        for token in range(f["columns"]):
            buffer = f["sequence"] + token
            fresh = self.state.fresh[f["merge"] - 1, buffer, f["head"]][-wide:]     # [digit, 64]
            place = position + token
            if f["merge"] == 1:
                row, lane = place // lanes, self.state.config.k_lane(place, f["head"])
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
