# SPDX-License-Identifier: Apache-2.0
"""Published shapes by name, and models of any shape with random weights.

What a card costs depends on the shape of a model and on the pattern of its weights, not on their
values: a random model is as good as a trained one where only time and equality matter.
"""

import functools
import itertools
import re
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from .checkpoint import Layer
from .errors import UserError
from .shape import Shape

Floats = npt.NDArray[np.float32]


def _gpt2(layers: int, width: int) -> Shape:
    return Shape(layers=layers, width=width, inner=4 * width, vocabulary=50257, context=1024)


#: 1.5B is the model as DFX ran it: 24 heads instead of the 25 of `gpt2-1.5b-1600`.
SHAPES = {
    "gpt2-124m": _gpt2(12, 768), "gpt2-345m": _gpt2(24, 1024), "gpt2-774m": _gpt2(36, 1280),
    "gpt2-1.5b": _gpt2(48, 1536), "gpt2-1.5b-1600": _gpt2(48, 1600)}

#: Standard deviation of weights, as GPT-2 is initialised; biases and betas have the same.
STD = 0.02
#: Spread of gammas around 1.
_GAMMA_STD = 0.1
#: Parts of a model that are drawn for themselves.
_LAYER, _FINAL, _EMBEDDING, _POSITIONS = range(4)


def find_shape(text: str) -> Shape:
    """The shape of that name, or of ``layers:width:vocabulary`` (inner size 4 · width, context
    1,024).

    >>> find_shape("gpt2-345m").layers, find_shape("2:128:997").vocabulary
    (24, 997)
    """
    if text in SHAPES:
        return SHAPES[text]
    if not re.fullmatch(r"[0-9]{1,4}:[0-9]{1,5}:[0-9]{1,7}", text):
        raise UserError(f"shape must be one of {', '.join(SHAPES)}, or layers:width:vocabulary "
                        f"as in 2:128:997, not {text!r}")
    layers, width, vocabulary = map(int, text.split(":"))
    return Shape(layers=layers, width=width, inner=4 * width, vocabulary=vocabulary, context=1024)


@functools.cache
def _levels() -> Floats:
    """256 values of a normal distribution, one for each byte.

    None is so small, compared with the largest, that it would become zero as a signed byte.
    """
    normal = NormalDist(0, STD)
    values = np.array([normal.inv_cdf((k + 0.5) / 256) for k in range(256)])
    return np.where(np.abs(values) < STD / 40, np.copysign(STD / 40, values),
                    values).astype(np.float32)


@functools.cache
def _masks(n: int, m: int) -> npt.NDArray[np.bool_]:
    """[choices, m]: every choice of n of m."""
    choices = list(itertools.combinations(range(m), n))
    kept = np.zeros((len(choices), m), bool)
    for mask, choice in zip(kept, choices, strict=True):
        mask[list(choice)] = True
    return kept


class RandomSource:
    """A GPT-2 with random weights: a :class:`~heddle.reference.Source`.

    Equal arguments give equal weights, whatever is asked for first; no two layers are alike.  The
    LM head is the embedding.  No weight is zero, unless the pattern says so, nor becomes zero when
    it is quantised.

    Parameters
    ----------
    shape : Shape
    seed : int
        At least 0.
    pruning : (int, int)
        N and M: of every M weights of a layer's matrices, along the inputs, N at random places are
        not zero; (1, 1) for dense.  A short last group has at most N.
    """

    def __init__(self, shape: Shape, seed: int = 0, pruning: tuple[int, int] = (1, 1)) -> None:
        if seed < 0:
            raise UserError(f"seed must be at least 0, not {seed}")
        self.shape, self.seed, self.pruning = shape, seed, pruning

    def _rng(self, part: int, number: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, part, number])

    def _values(self, rng: np.random.Generator, rows: int, columns: int) -> Floats:
        """Dense weights; rows differ in scale, as those of trained models do."""
        drawn = _levels()[np.frombuffer(rng.bytes(rows * columns), np.uint8)]
        drawn.shape = rows, columns
        drawn *= rng.uniform(0.5, 1.5, (rows, 1)).astype(np.float32)
        return drawn

    def _matrix(self, rng: np.random.Generator, outputs: int, inputs: int) -> Floats:
        weights, (n, m) = self._values(rng, outputs, inputs), self.pruning
        if m > 1:
            masks, groups = _masks(n, m), -(-inputs // m)
            kept = masks[rng.integers(len(masks), size=outputs * groups, dtype=np.uint16)]
            weights *= kept.reshape(outputs, groups * m)[:, :inputs]
        return weights

    @staticmethod
    def _vector(rng: np.random.Generator, size: int, mean: float = 0, std: float = STD) -> Floats:
        return rng.normal(mean, std, size).astype(np.float32)

    def layer(self, number: int) -> Layer:
        """Parameters of layer ``number``."""
        rng, width, inner = self._rng(_LAYER, number), self.shape.width, self.shape.inner
        return Layer(
            gamma1=self._vector(rng, width, 1, _GAMMA_STD), beta1=self._vector(rng, width),
            qkv=self._matrix(rng, 3 * width, width), qkv_bias=self._vector(rng, 3 * width),
            out=self._matrix(rng, width, width), out_bias=self._vector(rng, width),
            gamma2=self._vector(rng, width, 1, _GAMMA_STD), beta2=self._vector(rng, width),
            up=self._matrix(rng, inner, width), up_bias=self._vector(rng, inner),
            down=self._matrix(rng, width, inner), down_bias=self._vector(rng, width))

    def final_norm(self) -> tuple[Floats, Floats]:
        """Gamma and beta of the last norm."""
        rng = self._rng(_FINAL)
        return self._vector(rng, self.shape.width, 1, _GAMMA_STD), \
            self._vector(rng, self.shape.width)

    def embedding(self) -> Floats:
        """[vocabulary, width]."""
        return self._values(self._rng(_EMBEDDING), self.shape.vocabulary, self.shape.width)

    def positions(self) -> Floats:
        """[context, width]."""
        return self._values(self._rng(_POSITIONS), self.shape.context, self.shape.width)

    def head(self) -> Floats:
        """[vocabulary, width]."""
        return self.embedding()
