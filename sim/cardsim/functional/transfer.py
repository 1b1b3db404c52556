# SPDX-License-Identifier: Apache-2.0
"""LOAD and STORE."""

import numpy as np

from rtl_gen.spec.isa import POSITIONS

from .arithmetic import tame
from .memory import Memory
from .state import State
from .vector import Fields, Registers


class Load:
    """HBM to scratchpad or scale memory."""

    def __init__(self, state: State, memory: Memory, f: Fields) -> None:
        self.state, self.memory, self.f = state, memory, f
        width = memory.config.beat_bytes
        self.row_bytes = -(-4 * f["words"] // width) * width

    def __call__(self, registers: Registers, rows: int, address: int) -> None:
        if not rows:
            return
        f, state = self.f, self.state
        start = address * self.memory.config.beat_bytes
        raw = self.memory.bytes[:, start:start + rows * self.row_bytes].view(np.uint32)
        source = raw.reshape(len(raw), rows, -1)[:, :, :f["words"]]
        target = state.scales if f["target"] else state.words
        part = target[f["dst"]:f["dst"] + rows * f["words"]]
        part.reshape(rows, f["words"], -1)[:] = source.transpose(1, 2, 0)
        if not f["target"] and not state.wild:
            state.wild = not tame(part.view(np.float32))


class Store:
    """Scratchpad or scale memory to HBM."""

    def __init__(self, state: State, memory: Memory, f: Fields) -> None:
        self.state, self.memory, self.f = state, memory, f
        width = memory.config.beat_bytes
        self.row_bytes = -(-4 * f["words"] // width) * width

    def __call__(self, registers: Registers, address: int) -> None:
        f, state, memory = self.f, self.state, self.memory
        start = address * memory.config.beat_bytes
        if f["source"]:
            row, lane = divmod(registers[POSITIONS[f["sequence"]]], memory.config.channels)
            first = f["src"] + row * f["words"]
            lanes = slice(lane, lane + 1)
            source = state.scales[first:first + f["words"], lanes]
        else:
            lanes = slice(0, memory.config.channels)
            source = state.words[f["src"]:f["src"] + f["words"]]
        raw = memory.bytes[lanes, start:start + self.row_bytes].view(np.uint32)
        raw[:, :f["words"]] = source.T
        raw[:, f["words"]:] = 0
        memory.touch(start, start + self.row_bytes)
