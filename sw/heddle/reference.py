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
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
        y: Floats = np.float32(0.5) * x * (1 + np.tanh(inner))
        return y
    gate: Floats = np.float32(0.5) * (1 + _erf(x / np.float32(math.sqrt(2))))
    return x * gate


def block(x: Floats, layer: Layer, shape: Shape, see: Probe | None = None,
          probe: Probe | None = None) -> Floats:
    """One layer.

    Parameters
    ----------
    x : array [tokens, width]
        The residual stream, of a sequence from position 0.
    layer : Layer
    shape : Shape
    see : callable, optional
        Called with the name of each matrix, of ``MATRICES``, and its inputs [tokens, inputs].
    probe : callable, optional
        Called with ``attention`` and ``mlp`` and the residual stream after each.

    Returns
    -------
    array [tokens, width]
    """
    def product(name: str, inputs: Floats) -> Floats:
        if see:
            see(name, inputs)
        y: Floats = inputs @ getattr(layer, name).T + getattr(layer, f"{name}_bias")
        return y

    def told(name: str, value: Floats) -> Floats:
        if probe:
            probe(name, value)
        return value

    qkv = product("qkv", norm(x, layer.gamma1, layer.beta1, shape.epsilon))
    x = told("attention", x + product("out", attention(qkv, shape)))
    hidden = product("up", norm(x, layer.gamma2, layer.beta2, shape.epsilon))
    return told("mlp", x + product("down", gelu(hidden, shape.gelu)))


def attention(qkv: Floats, shape: Shape) -> Floats:
    """Mixed values [tokens, width] of queries, keys and values [tokens, 3 · width]."""
    count = len(qkv)
    q, k, v = qkv.reshape(count, 3, shape.heads, HEAD).transpose(1, 2, 0, 3)
    scores = q @ k.transpose(0, 2, 1)
    if shape.scaled:
        scores = scores / np.float32(math.sqrt(HEAD))
    scores = np.where(np.tril(np.ones((count, count), bool)), scores, np.float32(-np.inf))
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    mixed: Floats = (p @ v).transpose(1, 0, 2).reshape(count, -1)
    return mixed


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
            def told(name: str, value: Floats, number: int = number) -> None:
                if probe:
                    probe(f"layer {number} {name}", value)

            x = block(x, layer, shape, probe=told)
        gamma, beta = self._final
        y: Floats = norm(x, gamma, beta, shape.epsilon) @ self._head.T
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
