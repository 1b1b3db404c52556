# SPDX-License-Identifier: Apache-2.0
"""SAMPLE: the best tokens of a row of logits that comes in blocks."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cardsim import numerics as nx
from rtl_gen.spec.isa import Register
from rtl_gen.spec.registers import NO_TARGET, RESULT

from .arithmetic import F32, HIGH, RAW, tame
from .state import State
from .vector import Fields, Registers

#: A pair for which there are no logits.
NO_PAIR = (0xFFFFFFFF, 0)


class Sampler:
    """Collects the blocks; everything is worked out when the row ends.

    Attributes
    ----------
    token : int
        The sampled token.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.token = 0
        self.clear()

    def clear(self) -> None:
        """Start a row of logits."""
        self.logits: list[npt.NDArray[np.float32]] = []
        self.tokens: list[npt.NDArray[np.int64]] = []
        #: Maximum and sum over the blocks so far.
        self.run = nx.LogSumExp()
        self.target, self.target_logit = NO_TARGET, F32(0)

    def take(self, words: npt.NDArray[np.float32], count: int, token: int,
             target: int | None) -> None:
        """Take ``count`` logits of ``words``; the first is that of ``token``."""
        flat = words.ravel()[:count].copy()
        self.logits.append(flat)
        self.tokens.append(np.arange(token, token + count))
        if target is not None:
            self.target = target
            if token <= target < token + count:
                self.target_logit = flat[target - token]
        if self.state.wild or not tame(flat) or not self._quick(flat, words.shape[1]):
            self.run.update(words, count)
            self.state.stick(nonfinite=self.run.nonfinite)

    def _quick(self, flat: npt.NDArray[np.float32], lanes: int) -> bool:
        """As ``LogSumExp.update``, all words together; False, without any effect, if unsure."""
        run = self.run
        words = np.full((-(-len(flat) // lanes), lanes), -np.inf, F32)
        words.ravel()[:len(flat)] = flat
        tops = np.maximum.accumulate(words.max(1) if run.m is None else
                                     np.maximum(words.max(1), run.m))
        differences = words - tops[:, None]
        t = RAW.exp(differences)
        while t.shape[1] > 1:
            t = t[:, ::2] + t[:, 1::2]
        t = t[:, 0]
        # Where the maximum does not change the sum loses nothing: exp(0) is exactly 1.
        before = np.concatenate([tops[:1] if run.m is None else F32(run.m).reshape(1), tops[:-1]])
        changes = np.flatnonzero(before != tops)
        # A zero of the other sign is no change here, but might be one in the record.
        if not tops.all() or run.m == 0 or not abs(run.s) <= HIGH:
            return False
        s: Any = run.s      # before the first word: 0
        start = 0
        for stop in [*changes.tolist(), len(t)]:
            if stop > start:
                s = np.add.accumulate(np.concatenate([[s], t[start:stop]], dtype=F32))[-1]
            if stop < len(t):
                factor = RAW.exp(before[stop:stop + 1] - tops[stop:stop + 1])[0]
                s = s * factor + t[stop]
            start = stop + 1
        run.m, run.s = F32(tops[-1]), F32(s)
        return True

    def finish(self, k: int, step: int, position: int) -> npt.NDArray[np.uint32]:
        """The result record of the row; sets the sampled token."""
        logits, tokens = np.concatenate(self.logits), np.concatenate(self.tokens)
        keys = nx.key(logits)
        if 0 < k < len(keys):
            # The k largest keys and all that equal the least of them.
            least = np.partition(keys, len(keys) - k)[len(keys) - k]
            candidates = np.flatnonzero(keys >= least)
        else:
            candidates = np.flatnonzero(keys == keys.max()) if not k else np.arange(len(keys))
        ranked = candidates[nx.order(logits[candidates], tokens[candidates])]
        best = ranked[0]
        self.token = int(tokens[best])
        values: dict[str, Any] = {
            "token": self.token, "logit": nx.bits(logits[best]), "max": nx.bits(F32(self.run.m)),
            "sum": nx.bits(self.run.s), "target": self.target,
            "target_logit": nx.bits(self.target_logit), "step": step, "position": position}
        pairs = [(int(tokens[n]), int(nx.bits(logits[n]))) for n in ranked[:k]]
        pairs += [NO_PAIR] * (k - len(pairs))
        return np.array([*(int(values[name]) for name in RESULT),
                         *(word for pair in pairs for word in pair)], np.uint32)


class Sample:
    """One SAMPLE word."""

    def __init__(self, state: State, sampler: Sampler, f: Fields) -> None:
        self.sampler, self.f = sampler, f
        self.words = state.scratch[f["a"]:f["a"] + f["words"]]

    def __call__(self, registers: Registers,
                 target: int | None) -> npt.NDArray[np.uint32] | None:
        """Take the block; returns the result record if it was the last."""
        f, sampler = self.f, self.sampler
        if f["first"]:
            sampler.clear()
        sampler.take(self.words, f["count"], f["token"], target)
        if not f["last"]:
            return None
        return sampler.finish(f["k"], registers[Register.STEP], registers[Register.POS])
