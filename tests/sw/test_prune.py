# SPDX-License-Identifier: Apache-2.0
"""Pruning and quantising weights."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from heddle.checkpoint import Checkpoint
from heddle.errors import UserError
from heddle.prune import broken_group, detect, pattern_of, prune_folder, prune_rows
from heddle.quantise import quantise_rows, wide_sum
from tests.sw import models

MATRICES = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40),
                         elements=st.floats(-100, 100, width=32))


@given(MATRICES, st.sampled_from([4, 8, 16]), st.data())
def test_the_largest_weights_of_a_group_stay(w, m, data):
    n = data.draw(st.integers(0, m))
    pruned = prune_rows(w, n, m)
    assert pruned.shape == w.shape
    for row, kept in zip(w, pruned, strict=True):
        for start in range(0, len(row), m):
            group, left = row[start:start + m], kept[start:start + m]
            order = sorted(range(len(group)), key=lambda k: (-abs(group[k]), k))[:n]
            want = [group[k] if k in order else 0 for k in range(len(group))]
            assert left.tolist() == want


def test_pruning_by_hand():
    w = np.array([[1, -3, 2, 0.5, 4, 4, 4]], np.float32)
    assert prune_rows(w, 2, 4).tolist() == [[0, -3, 2, 0, 4, 4, 0]]
    assert prune_rows(w, 1, 1).tolist() == w.tolist()
    assert broken_group(w, 2, 4) == (0, 0)
    assert broken_group(prune_rows(w, 2, 4), 2, 4) is None
    assert broken_group(w, 1, 1) is None


@given(MATRICES)
def test_quantised_rows_are_close(w):
    rows = quantise_rows(w)
    assert rows.q.dtype == np.int8
    assert np.abs(rows.q.astype(int)).max() <= 127
    largest = np.abs(w).max(axis=1)
    assert (np.abs(rows.q.astype(int)).max(axis=1)[largest > 1e-30] == 127).all()
    # Half a step, and the rounding of FP32 on the way.
    assert (np.abs(rows.dequantised() - w) <= rows.scale[:, None] * 0.5001 + 1e-30).all()


def test_rows_that_have_no_scale():
    rows = quantise_rows(np.array([[0, 0], [1e-42, -1e-42], [-2, 1]], np.float32))
    assert rows.scale.tolist() == [0, 0, np.float32(2) / np.float32(127)]
    assert rows.q.tolist() == [[0, 0], [0, 0], [-127, 64]]


def test_wide_sums_are_those_of_fp64():
    rng = np.random.default_rng(1)
    q, v = rng.integers(-127, 128, (5000, 30)).astype(np.int8), rng.standard_normal(30)
    np.testing.assert_allclose(wide_sum(q, v), q.astype(float) @ v, rtol=1e-12)
    assert wide_sum(q[:0], v).shape == (0,)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_a_pruned_folder_holds_the_pruned_model(tmp_path, dtype):
    found = models.tensors(layers=2, width=64, inner=90, vocabulary=290, context=8)
    source = models.write(tmp_path / "dense", found, dtype=dtype, shards=2, spare="kept")
    seen = []
    prune_folder(source, "2:4", tmp_path / "sparse", progress=lambda *counts: seen.append(counts))
    assert seen[-1] == (8, 8)
    before, after = Checkpoint(source), Checkpoint(tmp_path / "sparse")
    assert (after.pattern, after.config["spare"]) == ("2:4", "kept")
    stored = safetensors.numpy.load_file(tmp_path / "sparse" / "model.safetensors")
    for name in before.names():
        old, new = before.stored(name), stored[name]
        assert new.dtype == old.dtype
        if ".c_" in name and name.endswith("weight"):
            np.testing.assert_array_equal(new, prune_rows(old.T, 2, 4).T)
            assert np.count_nonzero(new) < np.count_nonzero(old)
        else:
            np.testing.assert_array_equal(new, old)
    assert (tmp_path / "sparse" / "tokenizer.json").exists()
    assert detect(after) == (2, 4)
    assert detect(before) == (1, 1)


def test_what_cannot_be_pruned(tmp_path):
    folder = models.write(tmp_path, models.tensors(layers=1, width=64, vocabulary=290, context=8))
    for pattern, sentence in (
            ("dense", "pattern must be N:M as in 2:4, not dense"),
            ("2-4", "pattern must be dense or N:M as in 2:4, not '2-4'"),
            ("2:5", "M of an N:M pattern must be 4, 8 or 16, not 5")):
        with pytest.raises(UserError) as caught:
            prune_folder(folder, pattern, tmp_path / "out")
        assert str(caught.value) == sentence
    with pytest.raises(UserError, match="must not hold a model already"):
        prune_folder(folder, "2:4", folder)
    assert json.loads((folder / "config.json").read_text()).get("heddle") is None


def test_patterns():
    assert [pattern_of(text) for text in ("dense", "2:4", "0:8")] == [(1, 1), (2, 4), (0, 8)]
