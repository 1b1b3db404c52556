# SPDX-License-Identifier: Apache-2.0
"""What a functional card holds on chip, and the writers that several units share."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cardsim import numerics as nx
from rtl_gen.spec.config import HEAD, CardConfig
from rtl_gen.spec.isa import SUMS
from rtl_gen.spec.registers import Sticky

from .arithmetic import F32, tame

#: Signature of a slice in the planes: digits, two_beat, exponent base, first block.
Signature = tuple[int, int, int, int]


class State:
    """The memories of the chip.

    Attributes
    ----------
    scratch, words : float32, uint32 arrays [scratch_words, V]
        The scratchpad, seen twice.
    planes : int8 array [T, elements]
        Activation digits by column.
    exponents : int16 array [T, blocks]
    origin : int32 array [T, blocks]
        Number of the signature that a block was last written with; 0: never.
    scales : uint32 array [kv_scales, C]
    layout : int
        Changes whenever ``origin`` does.
    wild : bool
        The scratchpad may hold numbers that are not tame.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        tokens, blocks = config.tokens, config.plane_blocks
        self.scratch = np.zeros((config.scratch_words, config.vector_lanes), F32)
        self.words = self.scratch.view(np.uint32)
        self.planes = np.zeros((tokens, blocks * config.beat_bytes), np.int8)
        self.exponents = np.zeros((tokens, blocks), np.int16)
        self.origin = np.zeros((tokens, blocks), np.int32)
        self.scales = np.zeros((config.kv_scales, config.channels), np.uint32)
        self.scalars = np.zeros(16, F32)
        #: Sums of words, and of their squares, of the vector to be normed: by token.
        self.word_sums = np.zeros((tokens, 2, config.norm_words), F32)
        #: Mean and reciprocal deviation by set, token.
        self.norms = np.zeros((2, tokens, 2), F32)
        #: 1/sum by softmax result, token.
        self.softmax = np.zeros((SUMS, tokens), F32)
        #: Digits (high, low) of fresh K and V by kind, buffer, head.
        self.fresh = np.zeros((2, tokens, config.heads, 2, HEAD), np.int8)
        self.layout = 0
        self.signatures: dict[Signature, int] = {}
        self.named: list[Signature] = [(0, 0, 0, 0)]
        self.sticky = 0
        self.wild = False

    def start(self) -> None:
        """Prepare for a command."""
        self.sticky = 0
        self.wild = not tame(self.scratch)

    def sign(self, signature: Signature) -> int:
        """The number of a signature."""
        number = self.signatures.setdefault(signature, len(self.named))
        if number == len(self.named):
            self.named.append(signature)
        return number

    def stick(self, nonfinite: bool = False, out_of_range: bool = False) -> None:
        """Set sticky bits."""
        if nonfinite:
            self.sticky |= Sticky.NONFINITE
        if out_of_range:
            self.sticky |= Sticky.RANGE


class PlaneWriter:
    """Where one token's slices go: the views of its columns, in both halves if it has two.

    Parameters
    ----------
    state : State
    block, blocks : int
        First plane block, and blocks of a slice.
    slices : int
        Number of slices, one behind the other.
    digits, two_beat, token : int
        As in the instruction; ``digits`` is 0 or 1.
    base : int
        Exponent base.
    """

    def __init__(self, state: State, block: int, blocks: int, slices: int, *, digits: int,
                 two_beat: int, token: int, base: int) -> None:
        width, tokens = state.config.beat_bytes, state.config.tokens
        halves, first = 1 + two_beat, token << digits
        columns = slice(first, first + (1 << digits))

        def columns_of(array: npt.NDArray[Any], scale: int) -> npt.NDArray[Any]:
            """[halves, digits, elements]"""
            part = array[:, block * scale:(block + blocks * slices) * scale]
            # Splitting an axis makes no copy; without two_beat there is one "half".
            return part.reshape(halves, tokens // halves, -1)[:, columns]

        values = columns_of(state.planes, width)
        self.high = values[:, 0] if digits else None
        self.low = values[:, -1]
        self.exponents = columns_of(state.exponents, 1).reshape(halves, 1 << digits, slices, blocks)
        self.origin = columns_of(state.origin, 1)
        self.state, self.digits, self.base = state, digits, base
        self.limit = nx.LIMIT[1 + digits]
        self.slices, self.blocks = slices, blocks
        self.signatures = np.repeat(np.array(
            [state.sign((digits, two_beat, base, block + k * blocks)) for k in range(slices)],
            np.int32), blocks)
        self._settled = -1

    def put(self, q: npt.NDArray[Any], exponents: Sequence[int]) -> None:
        """Store quantised slices [slices, elements]; their last block may be a part of one."""
        size = q.size
        self.exponents[:] = exponents[0] if len(exponents) == 1 \
            else np.array(exponents, np.int16)[:, None]
        if self.high is not None:
            high = np.floor(q * F32(1 / 256) + F32(0.5))
            self.low[:, :size] = (q - high * F32(256)).reshape(size)
            self.high[:, :size] = high.reshape(size)
        else:
            self.low[:, :size] = q.reshape(size)
        state = self.state
        if self._settled != state.layout:
            if (self.origin != self.signatures).any():
                self.origin[:] = self.signatures
                state.layout += 1
            self._settled = state.layout

    def exponents_of(self, largest: npt.NDArray[np.float32]) -> tuple[list[int], bool]:
        """Exponents of slices by their largest magnitudes, and whether one is out of range."""
        found, over, most = [], False, self.base + nx.REACH
        width = self.limit.bit_length()
        edge = math.ldexp(self.limit + 0.5, -width)
        for amax in largest.tolist():
            fraction, e = math.frexp(amax)
            e = max(e - width + (fraction >= edge), self.base) if amax else self.base
            over |= e > most
            found.append(min(e, most))
        return found, over
