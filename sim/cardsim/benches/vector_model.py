# SPDX-License-Identifier: Apache-2.0
"""The vector unit's instructions, executed one after another, and what they put on its streams."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cardsim import numerics as nx
from rtl_gen.spec.config import HEAD, CardConfig
from rtl_gen.spec.isa import ScalarFn, VectorFn

Fields = Mapping[str, int]


class VectorModel:
    """Scratchpad, scalar registers and statistics.

    Parameters
    ----------
    config : CardConfig
    put : callable
        ``put(stream, **fields)`` is told every payload of ``write``, ``plane``, ``fresh`` and
        ``scale``, in order of the stream.

    Attributes
    ----------
    memory : uint32 array [scratch_words, V]
    scalars : float32 array [16]
    norms : uint32 array [2, T, 2]
        Bits of mean and reciprocal deviation by set and token.
    nonfinite, range : bool
        The unit has raised the sticky bit.
    """

    def __init__(self, config: CardConfig, put: Callable[..., None]) -> None:
        self.config, self._put = config, put
        self.memory = np.zeros((config.scratch_words, config.vector_lanes), np.uint32)
        self.scalars = np.zeros(16, np.float32)
        self.norms = np.zeros((2, config.tokens, 2), np.uint32)
        self.nonfinite = self.range = False
        #: Sums of words and of their squares, by token.
        self._sums = np.zeros((config.tokens, 2, config.norm_words), np.float32)

    def execute(self, name: str, f: Fields, pos: int) -> None:
        """Carry out ``name`` with the fields ``f``, at position ``pos``; SAMPLE is for others."""
        match name:
            case "VECTOR":
                self._vector(f)
            case "SCALAR":
                self._scalar(f)
            case "QUANT":
                self._quant(f)
            case "NORM":
                self._norm(f)
            case "CACHE":
                self._cache(f, pos)

    def _words(self, start: int, count: int) -> npt.NDArray[np.float32]:
        return nx.from_bits(self.memory[start:start + count])

    def _see(self, *arrays: npt.ArrayLike) -> None:
        self.nonfinite |= nx.nonfinite(*arrays)

    def _write(self, start: int, words: npt.NDArray[np.uint32]) -> None:
        self.memory[start:start + len(words)] = words
        for k, word in enumerate(words):
            self._put("write", addr=start + k, data=word.tolist())

    def _vector(self, f: Fields) -> None:
        fn, n = VectorFn(f["fn"]), f["words"]
        a, b, s = self._words(f["a"], n), self._words(f["b"], n), self.scalars[f["s"]]
        result: Any
        seen: tuple[Any, ...] = (a,)
        match fn:
            case VectorFn.COPY:
                self._write(f["dst"], self.memory[f["a"]:f["a"] + n].copy())
                return
            case VectorFn.ADD:
                result, seen = nx.add(a, b), (a, b)
            case VectorFn.SUB:
                result, seen = nx.sub(a, b), (a, b)
            case VectorFn.MUL:
                result, seen = nx.mul(a, b), (a, b)
            case VectorFn.MAX:
                result, seen = nx.maximum(a, b), (a, b)
            case VectorFn.MADD:
                product = nx.mul(a, s)
                result, seen = nx.add(product, b), (a, s, b, product)
            case VectorFn.ADDS:
                result, seen = nx.add(a, s), (a, s)
            case VectorFn.MULS:
                result, seen = nx.mul(a, s), (a, s)
            case VectorFn.EXP:
                result = nx.exp(a)
            case VectorFn.GELU_TANH | VectorFn.GELU_ERF:
                result = nx.gelu(a, fn - VectorFn.GELU_TANH)
            case VectorFn.SUM:
                result = nx.scalar(nx.word_sum(a))
            case VectorFn.MAXIMUM:
                result = nx.greatest(a)
        self._see(result, *seen)
        if fn >= VectorFn.SUM:
            self.scalars[f["s"]] = result
        else:
            self._write(f["dst"], nx.bits(result))

    def _scalar(self, f: Fields) -> None:
        fn, a, b = ScalarFn(f["fn"]), self.scalars[f["a"]], self.scalars[f["b"]]
        if fn == ScalarFn.SET:
            self.scalars.view(np.uint32)[f["d"]] = f["imm"]
            return
        result = {
            ScalarFn.ADD: lambda: nx.add(a, b), ScalarFn.SUB: lambda: nx.sub(a, b),
            ScalarFn.MUL: lambda: nx.mul(a, b), ScalarFn.MAX: lambda: nx.maximum(a, b),
            ScalarFn.RCP: lambda: nx.rcp(a), ScalarFn.RSQRT: lambda: nx.rsqrt(a)}[fn]()
        unary = fn in (ScalarFn.RCP, ScalarFn.RSQRT)
        self._see(result, a, *(() if unary else (b,)))
        self.scalars[f["d"]] = result

    def _quant(self, f: Fields) -> None:
        config, n = self.config, f["words"]
        a = self._words(f["a"], n)
        y = nx.mul(a, self._words(f["b"], n)) if f["gamma"] else a
        self._see(y)
        q, exponent, outside = nx.quantise(y, 1 + f["digits"], f["exponent"])
        self.range |= outside
        low, high = nx.split_digits(q)
        per_block = config.beat_bytes // config.vector_lanes
        for w in range(n):
            self._put("plane", block=f["act"] + w // per_block, part=w % per_block,
                      low=low[w].tolist(), high=high[w].tolist(), exponent=exponent,
                      digits=f["digits"], two_beat=f["two_beat"], token=f["token"])
        if f["stats"]:
            found = nx.norm_words(a)
            self._see(*found)
            self._sums[f["token"], :, f["word"]:f["word"] + n] = found

    def _norm(self, f: Fields) -> None:
        words = nx.NormWords(*self._sums[f["token"], :, :f["words"]])
        mean, rstd = nx.norm_finish(words, self.config.vector_lanes, nx.from_bits(f["inv"]),
                                    nx.from_bits(f["eps"]))
        self._see(mean, rstd)
        self.norms[f["set"], f["token"]] = nx.bits(mean), nx.bits(rstd)

    def _cache(self, f: Fields, pos: int) -> None:
        config = self.config
        y = self._words(f["a"], config.head_words)
        self._see(y)
        q, scale = nx.kv_quantise(y, bool(f["wide"]))
        low, high = nx.split_digits(q)
        for w in range(HEAD // config.vector_lanes):
            self._put("fresh", kind=f["kind"], token=f["sequence"] + f["token"], head=f["head"],
                      part=w, low=low[w].tolist(), high=high[w].tolist())
        row, lane = divmod(pos + f["token"], config.channels)
        self._put("scale", addr=f["kv_base"] + row * f["kv_heads"] + f["head"], lane=lane,
                  kind=f["kind"], scale=int(nx.bits(scale)) >> 16)
