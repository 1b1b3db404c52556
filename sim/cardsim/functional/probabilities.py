# SPDX-License-Identifier: Apache-2.0
"""Scores to quantised probabilities: softmax, the scales of V, one slice a block."""

import numpy as np
import numpy.typing as npt

from cardsim import numerics as nx

from .arithmetic import F32, HIGH, RAW, Checked
from .state import PlaneWriter, State
from .vector import QUICK_BASE, Fields

Floats = npt.NDArray[np.float32]


class Probabilities:
    """The way from one MATMUL's scores to the planes."""

    def __init__(self, state: State, f: Fields) -> None:
        self.state, self.f = state, f
        self.width, self.lanes = state.config.beat_bytes, state.config.channels
        self._writers: dict[tuple[int, int], PlaneWriter] = {}

    def _writer(self, token: int, blocks: int) -> PlaneWriter:
        writer = self._writers.get((token, blocks))
        if writer is None:
            f = self.f
            writer = self._writers[token, blocks] = PlaneWriter(
                self.state, f["dst"] + token * f["dst_stride"], 1, blocks, digits=f["digits"],
                two_beat=f["two_beat"], token=token, base=f["exponent"])
        return writer

    def write(self, token: int, scores: Floats, vscale: Floats, quick: bool) -> None:
        """Turn one token's valid scores into slices of probabilities, and keep 1/sum.

        Parameters
        ----------
        token : int
        scores : FP32 array [length]
        vscale : FP32 array [rows · C]
            The scales of V by position.
        quick : bool
            The scores are tame.
        """
        writer = self._writer(token, -(-len(vscale) // self.width))
        if not (quick and writer.base >= QUICK_BASE and self._quick(writer, token, scores, vscale)):
            self._checked(writer, token, scores, vscale)

    def _quick(self, writer: PlaneWriter, token: int, scores: Floats, vscale: Floats) -> bool:
        length = len(scores)
        p = np.zeros((writer.slices, self.width), F32)
        p.ravel()[:length] = RAW.exp(scores - np.maximum.reduce(scores))
        # All positive: no sum is subnormal.  Words of zeros change nothing.
        total = RAW.word_sum(p.reshape(-1, self.lanes))
        p.ravel()[:length] *= vscale[:length]
        amax = np.maximum.reduce(np.abs(p), axis=1)
        if not np.maximum.reduce(amax) <= HIGH:
            return False
        exponents, over = writer.exponents_of(amax)
        # In FP64: 2^-e may be beyond FP32.  Subnormal products come out as zeros here, too.
        q = np.rint(p * np.ldexp(1.0, np.negative(exponents))[:, None])
        if over:
            q = np.clip(q, -writer.limit, writer.limit)
            self.state.stick(out_of_range=True)
        writer.put(q, exponents)
        self.state.softmax[self.f["dest"] - 1, token] = F32(1) / total
        return True

    def _checked(self, writer: PlaneWriter, token: int, scores: Floats, vscale: Floats) -> None:
        length, checked = len(scores), Checked()
        words = np.zeros((-(-length // self.lanes), self.lanes), F32)
        top = nx.greatest(scores)
        checked.see(scores)
        words.ravel()[:length] = p = checked.exp(checked.sub(scores, top))
        total = checked.word_sum(words)
        y = np.zeros((writer.slices, self.width), F32)
        y.ravel()[:length] = checked.mul(p, vscale[:length])
        found = [nx.quantise(block, 1 + writer.digits, writer.base) for block in y]
        writer.put(np.array([block.q for block in found]), [block.exponent for block in found])
        self.state.softmax[self.f["dest"] - 1, token] = checked.rcp(total)
        self.state.stick(checked.nonfinite, any(block.out_of_range for block in found))
