# SPDX-License-Identifier: Apache-2.0
"""Random instructions for the vector unit, as programs could have them."""

import itertools
import random
from collections.abc import Callable, Iterator

import numpy as np

from cardsim import numerics as nx
from rtl_gen.spec.config import SLICE_BLOCKS, CardConfig
from rtl_gen.spec.isa import ScalarFn, VectorFn

from .stimulus import numbers

#: Scratchpad words that programs read and write.
ROOM = 512
Instruction = tuple[str, dict[str, int]]


def bits(value: float) -> int:
    """FP32 bits."""
    return int(nx.bits(np.float32(value)))


def anything(rng: random.Random) -> int:
    """The bits of any number."""
    return int(nx.bits(numbers(rng, 1, wild=True))[0])


def fill(config: CardConfig) -> Iterator[Instruction]:
    """Write every scalar register and every norm, which a reset does not."""
    words, elements = 2, 2 * config.vector_lanes
    for number in range(16):
        yield "SCALAR", {"fn": ScalarFn.SET, "d": number, "imm": bits(number)}
    for token in range(config.tokens):
        yield "QUANT", {
            "a": token, "words": words, "exponent": -10, "stats": 1, "token": token}
        for number in range(2):
            yield "NORM", {"words": words, "set": number, "token": token, "inv": bits(1 / elements),
                           "eps": bits(1e-5)}


class Mixture:
    """Instructions of all kinds, many of which may overlap; :func:`fill` goes before them.

    Parameters
    ----------
    rng : random.Random
    config : CardConfig
    wild : bool
        Functions that make numbers grow, too.
    """

    def __init__(self, rng: random.Random, config: CardConfig, *, wild: bool) -> None:
        self.rng, self.config, self.wild = rng, config, wild
        #: Words whose sums were written, by token.
        self._known = {token: {0, 1} for token in range(config.tokens)}
        self._makers: dict[str, Callable[[], dict[str, int]]] = {
            "QUANT": self._quant, "NORM": self.norm, "CACHE": self._cache,
            "VECTOR": self._vector, "SCALAR": self._scalar, "SAMPLE": self._sample}

    def take(self, count: int) -> Iterator[Instruction]:
        """The next ``count`` instructions."""
        rng = self.rng
        for _ in range(count):
            name = rng.choices(list(self._makers), [10, 3, 6, 1, 1, 0.3])[0]
            yield name, self._makers[name]() | {
                "signal": rng.getrandbits(16), "wait": rng.getrandbits(16)}

    def norm(self, token: int | None = None) -> dict[str, int]:
        """Fields of a NORM of words from the first on that were written."""
        rng = self.rng
        token = rng.randrange(self.config.tokens) if token is None else token
        most = next(k for k in itertools.count() if k not in self._known[token])
        words = rng.choice((most, rng.randrange(1, most + 1)))
        return {"words": words, "set": rng.randrange(2), "token": token,
                "inv": bits(1 / rng.randrange(100, 2000)), "eps": bits(1e-5)}

    def slices(self, count: int) -> Iterator[Instruction]:
        """QUANTs of the longest slices, as they are, with statistics."""
        longest = SLICE_BLOCKS * self.config.beat_bytes // self.config.vector_lanes
        for _ in range(count):
            yield "QUANT", self._quant(words=longest, stats=1) | {"gamma": 0}

    def _quant(self, *, words: int | None = None, stats: int | None = None) -> dict[str, int]:
        rng, config, lanes = self.rng, self.config, self.config.vector_lanes
        longest = SLICE_BLOCKS * config.beat_bytes // lanes
        digits, two_beat = rng.choice([
            (digits, two_beat) for digits in range(2) for two_beat in range(2)
            if config.tokens >> digits >> two_beat])
        token = rng.randrange(config.tokens >> digits >> two_beat)
        words = words or rng.choice([1, 2, 3, 6, 6, 12, 24, rng.randrange(1, longest + 1)])
        stats = rng.randrange(2) if stats is None else stats
        room = config.norm_words - words
        word = min(room, rng.choice((rng.randrange(3 * lanes), rng.randrange(room + 1))))
        if stats:
            self._known[token].update(range(word, word + words))
        return {
            "a": rng.randrange(ROOM - words), "words": words, "gamma": rng.randrange(2),
            "b": rng.randrange(ROOM - words), "act": rng.randrange(500),
            "exponent": rng.randrange(-30, 10), "digits": digits, "two_beat": two_beat,
            "token": token, "stats": stats, "word": word}

    def _cache(self) -> dict[str, int]:
        rng, config = self.rng, self.config
        token = rng.randrange(config.tokens)
        return {"a": rng.randrange(ROOM - config.head_words), "kind": rng.randrange(2),
                "head": rng.randrange(config.heads), "token": token,
                "sequence": rng.randrange(config.tokens - token),
                "wide": rng.randrange(2), "kv_base": rng.randrange(100),
                "kv_heads": rng.randrange(1, 13)}

    def _vector(self) -> dict[str, int]:
        rng, words = self.rng, self.rng.randrange(1, 20)
        dst = rng.randrange(ROOM - words)
        away = [k for k in range(ROOM - words) if k == dst or abs(k - dst) >= words]
        tame = [VectorFn.ADD, VectorFn.COPY, VectorFn.GELU_TANH, VectorFn.MAXIMUM]
        return {"fn": rng.choice(list(VectorFn) if self.wild else tame), "dst": dst,
                "words": words, "a": rng.choice(away), "b": rng.choice(away),
                "s": rng.randrange(16)}

    def _scalar(self) -> dict[str, int]:
        rng = self.rng
        return {"fn": rng.choice(list(ScalarFn)), "d": rng.randrange(16), "a": rng.randrange(16),
                "b": rng.randrange(16), "imm": anything(rng)}

    def _sample(self) -> dict[str, int]:
        return {"words": 1, "count": 1, "columns": 1}
