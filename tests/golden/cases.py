# SPDX-License-Identifier: Apache-2.0
"""The models and token sequences whose logits are stored, and the files that hold them.

A golden file is a ``safetensors`` file with, for one sequence of tokens read by FP32 transformers:

==========  ==============================================================
tokens      the sequence: a piece of the held-out plays, or what the model made of a seed
best        best token after each of them
logs        log probability of each token but the first, in nats
margins     how far the best logit is above the second
places      positions of which all logits are kept
logits      logits [places, vocabulary]
==========  ==============================================================

Its metadata has a digest of the model's weights, and the versions that wrote it.
"""

import dataclasses
import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors

from tests.sw import models

HERE = pathlib.Path(__file__).resolve().parent
DEMO = HERE.parents[1] / "sw" / "models" / "shakespeare-gpt2"


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and how many tokens it reads; every ``every``-th position keeps its logits."""

    name: str
    count: int
    every: int
    #: The model's folder, made below the one given.
    folder: Callable[[pathlib.Path], pathlib.Path]

    @property
    def file(self) -> pathlib.Path:
        return HERE / f"{self.name}.safetensors"

    @property
    def places(self) -> list[int]:
        return list(range(self.every - 1, self.count, self.every))


def on_grid(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every matrix as signed bytes times one power of two a row: rounding to bytes changes nothing.

    Then nothing but the card's arithmetic lies between it and FP32.
    """
    rounded = dict(found)
    for name, weights in found.items():
        if weights.ndim != 2 or name == "wpe.weight":
            continue
        # Layers store [inputs, outputs].
        rows = weights if name in ("wte.weight", "lm_head.weight") else weights.T
        largest = np.abs(rows).argmax(axis=1)[:, None]
        scale = np.exp2(np.ceil(np.log2(np.abs(rows).max(axis=1, keepdims=True) / 127)))
        q = np.rint(rows / scale)
        # The row's scale is that of its largest weight.
        np.put_along_axis(q, largest, 127 * np.sign(np.take_along_axis(rows, largest, 1)), 1)
        q = (q * scale).astype(np.float32)
        rounded[name] = np.ascontiguousarray(q if rows is weights else q.T)
    return rounded


def _random(grid: bool, shape: dict[str, Any],
            config: dict[str, Any]) -> Callable[[pathlib.Path], pathlib.Path]:
    def write(folder: pathlib.Path) -> pathlib.Path:
        found = models.tensors(layers=2, width=320, vocabulary=997, context=41, **shape)
        return models.write(folder, on_grid(found) if grid else found, **config)
    return write


CASES = {case.name: case for case in (
    # Five heads, and a vocabulary that nothing divides.
    Case("awkward", 37, 3, _random(False, {"seed": "awkward"}, {})),
    Case("erf", 37, 3, _random(
        True, {"seed": "erf", "inner": 1001, "head": True},
        {"activation_function": "gelu", "layer_norm_epsilon": 1e-3})),
    Case("demo", 192, 24, lambda folder: DEMO))}


def digest(folder: pathlib.Path) -> str:
    """Names the weights of a model's folder."""
    known = 0
    with safetensors.safe_open(folder / "model.safetensors", "np") as file:
        for name in sorted(file.keys()):
            known = zlib.crc32(name.encode() + file.get_tensor(name).tobytes(), known)
    return f"{known:08x}"
