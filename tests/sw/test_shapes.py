# SPDX-License-Identifier: Apache-2.0
"""Random models of published shapes."""

import dataclasses
import itertools

import numpy as np
import pytest

from heddle.checkpoint import MATRICES
from heddle.errors import UserError
from heddle.prune import broken_group, groups
from heddle.quantise import quantise_rows
from heddle.reference import Reference
from heddle.shapes import SHAPES, RandomSource, find_shape

#: Parameters of the matrices alone, in millions: GPT-2's published sizes less embeddings of
#: positions, biases and norms.
MILLIONS = {"gpt2-124m": 124, "gpt2-345m": 353, "gpt2-774m": 772, "gpt2-1.5b": 1436,
            "gpt2-1.5b-1600": 1555}


@pytest.mark.parametrize("name", SHAPES)
def test_published_shapes(name):
    shape = find_shape(name)
    assert (shape.vocabulary, shape.context, shape.inner) == (50257, 1024, 4 * shape.width)
    assert round(shape.weights / 1e6) == MILLIONS[name]


@pytest.mark.parametrize("text", ["gpt2", "2:128", "2:128:x", "2:100:300", "0:128:300", "-1:64:9"])
def test_other_shapes_are_refused(text):
    with pytest.raises(UserError, match="must be"):
        find_shape(text)


@pytest.mark.parametrize("pruning", [(1, 1), (2, 4), (3, 4), (1, 16), (8, 16)],
                         ids=lambda pair: "{}of{}".format(*pair))
def test_weights_obey_their_pattern_and_are_no_zeros(pruning):
    n, m = pruning
    # 72 inputs: the last group of 16 is short.
    source = RandomSource(dataclasses.replace(find_shape("2:64:300"), inner=72), 5, pruning)
    layer = source.layer(1)
    for name in MATRICES:
        weights = getattr(layer, name)
        q = quantise_rows(weights).q
        assert broken_group(weights, n, m) is None
        whole = q[:, :q.shape[1] // m * m]
        counts = np.count_nonzero(groups(whole, m), axis=-1)
        assert counts.min() == counts.max() == n
        # Every place of a group is used.
        assert groups(whole, m).any(axis=(0, 1)).all()
        assert 0.008 < np.abs(weights[weights != 0]).mean() < 0.024
    assert quantise_rows(source.embedding()).q.all()


def test_equal_seeds_give_equal_weights_and_layers_differ():
    shape = find_shape("3:64:300")
    first, second, other = (RandomSource(shape, seed, (2, 4)) for seed in (1, 1, 2))
    # In whatever order they are asked for.
    ahead = {number: second.layer(number) for number in (2, 0, 1)}
    for number in range(3):
        for field in dataclasses.fields(layer := first.layer(number)):
            assert np.array_equal(getattr(layer, field.name), getattr(ahead[number], field.name))
    layers = [source.layer(number) for source in (first, other) for number in range(3)]
    for a, b in itertools.combinations(layers, 2):
        for field in dataclasses.fields(a):
            assert not np.array_equal(getattr(a, field.name), getattr(b, field.name))
    assert np.array_equal(first.head(), first.embedding())
    assert len(np.unique(first.layer(0).qkv[:, 0])) > 60
    with pytest.raises(UserError, match="seed must be at least 0, not -1"):
        RandomSource(shape, -1)


def test_a_random_model_computes_like_a_trained_one():
    """Finite, every layer moves the residual stream, and logits are neither equal nor extreme."""
    probes = {}
    logits = Reference(RandomSource(find_shape("4:128:500"), 3)).logits(
        list(range(40)), lambda name, x: probes.setdefault(name, x[-1]))
    parts = np.stack(list(probes.values()))
    assert np.isfinite(logits).all()
    assert 0.01 < np.abs(np.diff(parts, axis=0)).mean() < 10
    assert 0.05 < logits[-1].std() < 5
