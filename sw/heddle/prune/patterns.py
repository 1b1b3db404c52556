# SPDX-License-Identifier: Apache-2.0
"""N:M patterns along the inputs: of every M weights in a row, N stay."""

from typing import Any

import numpy as np
import numpy.typing as npt

from rtl_gen.spec.formats import parse as parse_pattern

from ..errors import UserError


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


def best(scores: npt.NDArray[Any], n: int, m: int) -> npt.NDArray[np.bool_]:
    """Which weights stay: those of the n highest scores of every m in a row.

    Parameters
    ----------
    scores : array [rows, inputs]
        At least 0.  Of equal ones the first stays.
    n, m : int

    Returns
    -------
    array of bool [rows, inputs]
    """
    grouped = groups(scores, m)
    rank = np.argsort(-grouped, axis=-1, kind="stable")
    stay = np.zeros(grouped.shape, bool)
    np.put_along_axis(stay, rank[..., :n], True, axis=-1)
    return stay.reshape(len(scores), -1)[:, :scores.shape[1]]


def prune_rows(weights: npt.NDArray[Any], n: int, m: int) -> npt.NDArray[Any]:
    """A copy of ``weights`` [rows, inputs] with at most n of every m inputs left, the largest.

    Of equal magnitudes the first stays.
    """
    if m == 1:
        return weights.copy()
    stay = best(np.abs(weights.astype(np.float32)), n, m)
    return np.where(stay, weights, np.zeros((), weights.dtype))


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
