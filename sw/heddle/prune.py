# SPDX-License-Identifier: Apache-2.0
"""N:M pruning along the inputs: of every M weights in a row, the N largest stay.

Pruning is one-shot, by magnitude.  Embeddings and the LM head stay dense.
"""

import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from rtl_gen.spec.formats import parse as parse_pattern

from .checkpoint import CONFIG, MATRICES, NOTES, WEIGHTS, Checkpoint
from .errors import UserError

#: Files that are neither configuration nor weights and belong to a model all the same.
_COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
               "generation_config.json", "vocab.json", "merges.txt")


def pattern_of(text: str) -> tuple[int, int]:
    """(N, M) of ``"2:4"``, (1, 1) of ``"dense"``; :class:`UserError` for anything else."""
    try:
        return parse_pattern(text)
    except ValueError as error:
        raise UserError(str(error)) from None


def groups(weights: npt.NDArray[Any], m: int) -> npt.NDArray[Any]:
    """[rows, groups, m] of a matrix [rows, inputs]; a short last group is filled with zeros."""
    rows, inputs = weights.shape
    padded = np.zeros((rows, -(-inputs // m) * m), weights.dtype)
    padded[:, :inputs] = weights
    return padded.reshape(rows, -1, m)


def prune_rows(weights: npt.NDArray[Any], n: int, m: int) -> npt.NDArray[Any]:
    """A copy of ``weights`` [rows, inputs] with at most n of every m inputs left.

    Of equal magnitudes the first stays.
    """
    if m == 1:
        return weights.copy()
    grouped = groups(weights, m)
    rank = np.argsort(-np.abs(grouped.astype(np.float32)), axis=-1, kind="stable")
    kept = np.zeros(grouped.shape, bool)
    np.put_along_axis(kept, rank[..., :n], True, axis=-1)
    pruned = np.where(kept, grouped, np.zeros((), weights.dtype))
    return pruned.reshape(len(weights), -1)[:, :weights.shape[1]]


def broken_group(weights: npt.NDArray[Any], n: int, m: int) -> tuple[int, int] | None:
    """(row, group) of the first group with more than n of m weights, or None."""
    if m == 1:
        return None
    found = np.argwhere(np.count_nonzero(groups(weights, m), axis=-1) > n)
    return (int(found[0][0]), int(found[0][1])) if len(found) else None


def check_pattern(weights: npt.NDArray[Any], n: int, m: int, name: str) -> None:
    """:class:`UserError` unless the matrix obeys the pattern."""
    if (broken := broken_group(weights, n, m)) is not None:
        raise UserError(f"{name} must obey {n}:{m}, but row {broken[0]} has more than {n} weights "
                        f"in group {broken[1]}")


def detect(checkpoint: Checkpoint) -> tuple[int, int]:
    """The sparsest stored pattern that all pruned matrices obey; (1, 1) if there is none.

    Most models are told dense from the first rows of their first matrix.
    """
    ratio, found = 1.0, (1, 1)
    first = checkpoint.tensor(f"h.0.{MATRICES['qkv']}.weight").T[:64]
    for m in (4, 8, 16):
        n = int(np.count_nonzero(groups(first, m), axis=-1).max())
        if n == m:
            continue
        for layer in range(checkpoint.shape.layers):
            for part in MATRICES.values():
                w = checkpoint.tensor(f"h.{layer}.{part}.weight").T
                n = max(n, int(np.count_nonzero(groups(w, m), axis=-1).max()))
        kept = 1 << max(0, n - 1).bit_length()
        if kept < m and m / kept > ratio:
            ratio, found = m / kept, (n, m)
    return found


def prune_folder(source: str | pathlib.Path, pattern: str, target: str | pathlib.Path, *,
                 progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Write a pruned copy of a model: same tensors, same types, more zeros.

    Parameters
    ----------
    source, target : path
        Folders; the target must not hold a model.
    pattern : str
        As in ``2:4``.
    progress : callable
        Called with (tensors done, tensors).
    """
    n, m = pattern_of(pattern)
    if m == 1:
        raise UserError("pattern must be N:M as in 2:4, not dense")
    checkpoint, target = Checkpoint(source), pathlib.Path(target)
    if (target / CONFIG).exists():
        raise UserError(f"{target} must not hold a model already")
    pruned = {checkpoint.stored_name(f"h.{layer}.{part}.weight")
              for layer in range(checkpoint.shape.layers) for part in MATRICES.values()}
    tensors, names = {}, checkpoint.names()
    for done, name in enumerate(names):
        value = checkpoint.stored(name)
        # Stored [inputs, outputs]: rows of the product are columns here.
        if name in pruned:
            value = np.ascontiguousarray(prune_rows(value.T, n, m).T)
        tensors[name] = value
        progress(done + 1, len(names))
    target.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    for name in _COMPANIONS:
        if (checkpoint.folder / name).exists():
            shutil.copyfile(checkpoint.folder / name, target / name)
    config = {**checkpoint.config, NOTES: {"pattern": f"{n}:{m}"}}
    (target / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
