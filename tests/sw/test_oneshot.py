# SPDX-License-Identifier: Apache-2.0
"""Pruning with calibration: the methods alone, and the way from text to statistics."""

import numpy as np
import pytest

from heddle.checkpoint import MATRICES, Checkpoint
from heddle.errors import UserError
from heddle.prune import METHODS, broken_group, prune_folder, prune_rows, samples
from heddle.prune.calibrate import calibrated
from heddle.prune.oneshot import DAMPING, magnitude, sparsegpt, wanda
from heddle.reference import Reference
from tests.sw import models

PATTERNS = [(2, 4), (1, 4), (4, 8), (2, 8), (8, 16), (4, 16), (0, 4)]


def inputs_of(rng, inputs, count=400):
    """Vectors [count, inputs] whose elements go together and have unlike sizes."""
    mixing = rng.standard_normal((inputs, inputs)) * rng.uniform(0.05, 2, inputs)
    return rng.standard_normal((count, inputs)) @ mixing


def by_definition(weights, gram, n, m):
    """SparseGPT as its paper defines it: the inverse of what is left of H, anew for each input."""
    h = gram + DAMPING * np.diagonal(gram).mean() * np.eye(len(gram))
    made = []
    for row in weights.astype(float):
        w = row.copy()
        for start in range(0, len(w), m):
            width = min(m, len(w) - start)
            # Those of the group, each as if the inputs before it were gone.
            inverses = [np.linalg.inv(h[j:, j:]) for j in range(start, start + width)]
            losses = [w[start + k]**2 / inverses[k][0, 0] for k in range(width)]
            order = sorted(range(width), key=lambda k: (-losses[k], k))[:n]
            for k in range(width):
                j, inverse = start + k, inverses[k]
                if k not in order:
                    w[j:] -= w[j] / inverse[0, 0] * inverse[0]
                    w[j] = 0
        made.append(w)
    return np.array(made)


@pytest.mark.parametrize(("n", "m"), PATTERNS)
@pytest.mark.parametrize("inputs", [32, 45, 150])
def test_sparsegpt_is_what_its_paper_defines(n, m, inputs):
    rng = np.random.default_rng(n * 1000 + m * 10 + inputs)
    weights = rng.standard_normal((3, inputs)).astype(np.float32)
    x = inputs_of(rng, inputs)
    found = sparsegpt(weights, x.T @ x, n, m)
    np.testing.assert_allclose(found, by_definition(weights, x.T @ x, n, m), rtol=1e-4, atol=1e-5)
    assert broken_group(found, n, m) is None
    assert found.dtype == np.float32


@pytest.mark.parametrize(("n", "m"), PATTERNS[:-1])
def test_the_more_is_known_of_inputs_the_less_outputs_change(n, m):
    rng = np.random.default_rng(n * 100 + m)
    weights, x = rng.standard_normal((64, 96)).astype(np.float32), inputs_of(rng, 96)

    def loss(method):
        return np.square(x @ (method(weights, x.T @ x, n, m) - weights).T).sum()

    assert loss(sparsegpt) < 0.9 * loss(wanda)
    assert loss(wanda) < loss(magnitude)


def test_inputs_that_do_not_differ_leave_the_largest_weights():
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((8, 40)).astype(np.float32)
    want = prune_rows(weights, 2, 4)
    for method, _ in METHODS.values():
        np.testing.assert_allclose(method(weights, 7 * np.eye(40), 2, 4), want, rtol=1e-6)


def test_wanda_by_hand():
    weights = np.array([[1, -3, 2, 0.5]], np.float32)
    assert wanda(weights, np.diag([100.0, 1, 1, 100]), 2, 4).tolist() == [[1, 0, 0, 0.5]]


def test_inputs_that_are_always_zero():
    """Their weights do not count, and H is still invertible."""
    rng = np.random.default_rng(5)
    weights, x = rng.standard_normal((4, 16)).astype(np.float32), inputs_of(rng, 16)
    x[:, [0, 1, 9]] = 0
    found = sparsegpt(weights, x.T @ x, 2, 4)
    assert np.isfinite(found).all()
    assert not found[:, [0, 1, 9]].any()
    np.testing.assert_array_equal(np.count_nonzero(found[:, :4], axis=1), 2)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return models.write(tmp_path_factory.mktemp("dense"), models.tensors(
        layers=2, width=64, inner=90, vocabulary=290, context=16))


WINDOWS = [[7, 3, 200, 4, 9, 11], [5, 5, 1, 250]]


def test_statistics_are_those_of_the_model_pruned_so_far(source):
    """The inputs of each matrix, seen by multiplying through a model that was changed by hand."""
    checkpoint, seen = Checkpoint(source), {}

    def change(number, name, weights, gram):
        seen[number, name] = gram
        return weights * np.float32(0.5) if (number, name) == (0, "down") else weights

    layers = list(calibrated(checkpoint, WINDOWS, change))
    assert list(seen) == [(number, name) for number in range(2) for name in MATRICES]
    np.testing.assert_array_equal(layers[0].down, checkpoint.layer(0).down * np.float32(0.5))

    class Changed:
        """The checkpoint with the layers that came out."""
        shape, layer = checkpoint.shape, staticmethod(lambda number: layers[number])
        embedding, positions = checkpoint.embedding, checkpoint.positions
        final_norm, head = checkpoint.final_norm, checkpoint.head

    def normed(x, gamma, beta):
        centred = x - x.mean(axis=1, keepdims=True)
        return centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + 1e-5) \
            * gamma + beta

    want = {"first": 0, "second": 0}
    for window in WINDOWS:
        streams = {"embedded": checkpoint.embedding()[window]
                   + checkpoint.positions()[:len(window)]}
        Reference(Changed()).logits(window, streams.__setitem__)
        for place, number, stream in (("first", 0, "embedded"), ("second", 1, "layer 0 mlp")):
            layer = layers[number]
            x = normed(streams[stream], layer.gamma1, layer.beta1)
            want[place] = want[place] + x.T @ x
    np.testing.assert_allclose(seen[0, "qkv"], want["first"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(seen[1, "qkv"], want["second"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_a_folder_pruned_with_a_text(source, tmp_path, method):
    done = []
    prune_folder(source, "2:4", tmp_path / "out", method=method, windows=WINDOWS,
                 progress=lambda *counts: done.append(counts))
    assert done[-1] == (8, 8)
    before, after = Checkpoint(source), Checkpoint(tmp_path / "out")
    assert after.config["heddle"] == {"pattern": "2:4", "method": method}
    layers = calibrated(before, WINDOWS, lambda number, name, weights, gram:
                        METHODS[method][0](weights, gram, 2, 4))
    for number, layer in enumerate(layers):
        for name in MATRICES:
            np.testing.assert_array_equal(getattr(after.layer(number), name), getattr(layer, name))
    np.testing.assert_array_equal(after.embedding(), before.embedding())


def test_samples_are_windows_of_the_text():
    text = list(range(100, 150))
    found = samples(text, 8, 10, seed=1)
    assert len(found) == 8
    assert len({each[0] for each in found}) == 8
    assert all(each == list(range(each[0], each[0] + 10)) for each in found)
    assert found == samples(text, 8, 10, seed=1) != samples(text, 8, 10, seed=2)
    assert samples(text, 99, 49) == [text[:49], text[1:]]


def test_what_calibration_refuses(source, tmp_path):
    for sentence, call in (
            ("the calibration text must have at least 10 tokens, one window, not 9",
             lambda: samples([1] * 9, 1, 10)),
            ("samples must be at least 1, not 0", lambda: samples([1] * 9, 0, 5)),
            ("method must be one of magnitude, wanda, sparsegpt, not 'obs'",
             lambda: prune_folder(source, "2:4", tmp_path / "x", method="obs")),
            ("wanda needs a calibration text, or choose magnitude, which needs none",
             lambda: prune_folder(source, "2:4", tmp_path / "x", method="wanda"))):
        with pytest.raises(UserError) as caught:
            call()
        assert str(caught.value) == sentence
    assert not (tmp_path / "x").exists()
