# SPDX-License-Identifier: Apache-2.0
"""Pruned copies of model folders.  Embeddings and the LM head stay dense."""

import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from ..checkpoint import CONFIG, MATRICES, NOTES, WEIGHTS, Checkpoint
from ..errors import UserError
from .calibrate import calibrated
from .oneshot import METHODS
from .patterns import pattern_of, prune_rows

#: Files that are neither configuration nor weights and belong to a model all the same.
_COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
               "generation_config.json", "vocab.json", "merges.txt")

Floats = npt.NDArray[np.float32]


def prune_folder(source: str | pathlib.Path, pattern: str, target: str | pathlib.Path, *,
                 method: str = "magnitude", windows: Sequence[Sequence[int]] = (),
                 progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Write a pruned copy of a model: same tensors, same types, more zeros.

    Parameters
    ----------
    source, target : path
        Folders; the target must not hold a model.
    pattern : str
        As in ``2:4``.
    method : str
        A name of :data:`heddle.prune.METHODS`.
    windows : sequence of sequences of int
        Tokens of calibration texts, for methods that look at inputs.
    progress : callable
        Called with (matrices done, matrices).

    Raises
    ------
    UserError
    """
    n, m = pattern_of(pattern)
    if m == 1:
        raise UserError("pattern must be N:M as in 2:4, not dense")
    if method not in METHODS:
        raise UserError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if METHODS[method][1] and not windows:
        raise UserError(f"{method} needs a calibration text, or choose magnitude, which needs none")
    checkpoint, target = Checkpoint(source), pathlib.Path(target)
    if (target / CONFIG).exists():
        raise UserError(f"{target} must not hold a model already")
    tensors = {name: checkpoint.stored(name) for name in checkpoint.names()}
    total = checkpoint.shape.layers * len(MATRICES)
    for done, (name, weights) in enumerate(_pruned(checkpoint, method, windows, n, m), 1):
        stored = checkpoint.stored_name(name)
        # Stored [inputs, outputs]: rows of the product are columns here.
        tensors[stored] = np.ascontiguousarray(weights.T.astype(tensors[stored].dtype))
        progress(done, total)
    _write(checkpoint, tensors, target, {"pattern": f"{n}:{m}", "method": method})


def _pruned(checkpoint: Checkpoint, method: str, windows: Sequence[Sequence[int]], n: int, m: int
            ) -> Iterator[tuple[str, Floats]]:
    """Names and matrices [outputs, inputs]."""
    change, looks = METHODS[method]
    if not looks:
        for number in range(checkpoint.shape.layers):
            for part in MATRICES.values():
                name = f"h.{number}.{part}.weight"
                yield name, prune_rows(checkpoint.tensor(name).T, n, m)
        return
    layers = calibrated(checkpoint, windows, lambda number, name, weights, gram:
                        change(weights, gram, n, m))
    for number, layer in enumerate(layers):
        for field, part in MATRICES.items():
            yield f"h.{number}.{part}.weight", getattr(layer, field)


def _write(checkpoint: Checkpoint, tensors: dict[str, npt.NDArray[Any]], target: pathlib.Path,
           notes: dict[str, Any]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    for name in _COMPANIONS:
        if (checkpoint.folder / name).exists():
            shutil.copyfile(checkpoint.folder / name, target / name)
    config = {**checkpoint.config, NOTES: notes}
    (target / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
