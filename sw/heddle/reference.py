# SPDX-License-Identifier: Apache-2.0
"""GPT-2 in FP32 NumPy, as Hugging Face computes it: what cards are compared with.

It shares no arithmetic with the card, no compiler and no quantisation.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rtl_gen.spec.config import HEAD

from .checkpoint import MATRICES, Layer
from .quantise import quantise_rows
from .shape import GELU_TANH, Shape

Floats = npt.NDArray[np.float32]

#: Called with a name as ``layer 0 attention`` and the residual stream [tokens, width] there.
Probe = Callable[[str, Floats], None]


class Source(Protocol):
    """Where parameters come from; a :class:`~heddle.checkpoint.Checkpoint` is one."""

    @property
    def shape(self) -> Shape: ...
    def layer(self, number: int) -> Layer: ...
    def final_norm(self) -> tuple[Floats, Floats]: ...
    def embedding(self) -> Floats: ...
    def positions(self) -> Floats: ...
    def head(self) -> Floats: ...


class Dequantised:
    """A source whose matrices went through signed bytes; everything else is the original's."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.shape = source.shape
        self.final_norm = source.final_norm
        self.embedding = source.embedding
        self.positions = source.positions

    def layer(self, number: int) -> Layer:
        layer = self._source.layer(number)
        matrices = {name: quantise_rows(getattr(layer, name)).dequantised() for name in MATRICES}
        return dataclasses.replace(layer, **matrices)

    def head(self) -> Floats:
        return quantise_rows(self._source.head()).dequantised()


def norm(x: Floats, gamma: Floats, beta: Floats, epsilon: float) -> Floats:
    """LayerNorm over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    y: Floats = centred / np.sqrt(variance + np.float32(epsilon)) * gamma + beta
    return y


def _erf(x: Floats) -> Floats:
    # NumPy has none; the standard library's is exact to FP64.
    return np.array([math.erf(value) for value in x.ravel().tolist()], np.float32).reshape(x.shape)


def gelu(x: Floats, form: int) -> Floats:
    """GELU in the form that :class:`Shape` names."""
    if form == GELU_TANH:
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)
        y: Floats = np.float32(0.5) * x * (1 + np.tanh(inner))
        return y
    gate: Floats = np.float32(0.5) * (1 + _erf(x / np.float32(math.sqrt(2))))
    return x * gate


class Reference:
    """An FP32 GPT-2 with its parameters in memory."""

    def __init__(self, source: Source) -> None:
        self.shape = source.shape
        self._embedding, self._positions = source.embedding(), source.positions()
        self._layers = [source.layer(number) for number in range(self.shape.layers)]
        self._final, self._head = source.final_norm(), source.head()

    def logits(self, tokens: npt.ArrayLike, probe: Probe | None = None) -> Floats:
        """Logits [tokens, vocabulary] of a sequence from position 0."""
        ids, shape = np.asarray(tokens, np.int64), self.shape
        x = self._embedding[ids] + self._positions[:len(ids)]
        for number, layer in enumerate(self._layers):
            x = x + self._attention(norm(x, layer.gamma1, layer.beta1, shape.epsilon), layer)
            if probe:
                probe(f"layer {number} attention", x)
            hidden = norm(x, layer.gamma2, layer.beta2, shape.epsilon) @ layer.up.T + layer.up_bias
            x = x + gelu(hidden, shape.gelu) @ layer.down.T + layer.down_bias
            if probe:
                probe(f"layer {number} mlp", x)
        gamma, beta = self._final
        y: Floats = norm(x, gamma, beta, shape.epsilon) @ self._head.T
        return y

    def _attention(self, x: Floats, layer: Layer) -> Floats:
        count, heads = len(x), self.shape.heads
        qkv = (x @ layer.qkv.T + layer.qkv_bias).reshape(count, 3, heads, HEAD)
        q, k, v = qkv.transpose(1, 2, 0, 3)
        scores = q @ k.transpose(0, 2, 1)
        if self.shape.scaled:
            scores = scores / np.float32(math.sqrt(HEAD))
        scores = np.where(np.tril(np.ones((count, count), bool)), scores, np.float32(-np.inf))
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        mixed = (p @ v).transpose(1, 0, 2).reshape(count, -1)
        y: Floats = mixed @ layer.out.T + layer.out_bias
        return y

    def greedy(self, tokens: list[int], count: int) -> Iterator[int]:
        """``count`` tokens, each the best one after those before."""
        tokens = list(tokens)
        for _ in range(count):
            tokens.append(int(np.argmax(self.logits(tokens)[-1])))
            yield tokens[-1]


def log_probabilities(logits: Floats) -> npt.NDArray[np.float64]:
    """Log softmax over the last axis, in FP64."""
    wide: npt.NDArray[np.float64] = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide
