# SPDX-License-Identifier: Apache-2.0
"""Logits of the functional card against FP32, for models and options of all kinds."""

import numpy as np
import pytest

import heddle
from heddle.diff import diff
from heddle.image import Pruned
from heddle.reference import Dequantised, Reference
from tests.sw import models

TOKENS = [17, 3, 250, 96, 3, 3, 211, 140, 8, 77, 62, 199]


def differences(folder, **options):
    """(differences, best tokens that agree) against the weights that the card has."""
    with heddle.load(folder, **options) as model:
        source = Pruned(model.checkpoint, model.runtime.layout.pruning)
        return diff(model.runtime, Reference(Dequantised(source)), TOKENS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = models.tensors(layers=2, width=128, vocabulary=300, context=12)
    return models.write(tmp_path_factory.mktemp("m"), found)


@pytest.fixture(scope="module")
def ragged(tmp_path_factory):
    """Nothing divides anything; the other GELU, an untied head, unscaled scores."""
    found = models.tensors(layers=2, width=320, inner=1001, vocabulary=997, context=13, head=True,
                           seed="ragged")
    for layer in range(2):
        # Queries that are 8 times smaller make up for the missing scale.
        found[f"h.{layer}.attn.c_attn.weight"][:, :320] /= 8
    return models.write(tmp_path_factory.mktemp("r"), found, activation_function="gelu",
                        scale_attn_weights=False)


@pytest.mark.parametrize(("cards", "pattern"), [
    *(("sim:tiny", pattern) for pattern in ("dense", "2:4", "4:8", "8:16", "1:4", "2:16", "3:4")),
    *((cards, pattern) for cards in ("sim:small", "sim:u280")
      for pattern in ("dense", "2:4", "2:16"))])
def test_sixteen_bits_are_as_good_as_fp32(folder, cards, pattern):
    rows, agreed = differences(folder, cards=cards, pattern=pattern)
    assert agreed == len(TOKENS)
    assert [row.place for row in rows] == [
        "layer 0 attention", "layer 0 mlp", "layer 1 attention", "layer 1 mlp", "logits"]
    for row in rows:
        assert row.size > 0.1
        assert row.relative < 1e-4, row


@pytest.mark.parametrize("cards", ["sim:tiny", "sim:u280"])
@pytest.mark.parametrize("pattern", ["dense", "1:8"])
def test_sizes_that_divide_nothing(ragged, cards, pattern):
    rows, agreed = differences(ragged, cards=cards, pattern=pattern)
    assert agreed == len(TOKENS)
    assert max(row.relative for row in rows) < 1e-4


@pytest.mark.parametrize(("options", "bound"), [
    ({"cache": "int8"}, 0.01),
    ({"activation": "a8"}, 0.05),
    ({"activation": "a8", "cache": "int8", "pattern": "2:4", "cards": "sim:small"}, 0.05)],
    ids=repr)
def test_eight_bits_stay_within_their_bound(folder, options, bound):
    rows, _ = differences(folder, **options)
    worst = max(row.relative for row in rows)
    # Were it as exact as 16 bits, the option would have had no effect.
    assert 1e-4 < worst < bound


def test_the_reference_is_not_the_card_in_disguise(folder):
    """Other weights give other logits: the comparison can fail."""
    with heddle.load(folder) as model:
        rows, _ = diff(model.runtime, Reference(Pruned(model.checkpoint, (2, 4))), TOKENS)
    assert rows[-1].relative > 0.1


def test_a_card_that_is_used_again_gives_the_same(folder):
    with heddle.load(folder) as model:
        first = model.runtime.run(TOKENS, 0, 12, store_logits=True)
        logits = model.runtime.logits()
        again = model.runtime.run(TOKENS, 0, 12, store_logits=True)
        np.testing.assert_array_equal(logits, model.runtime.logits())
    assert [result.token for result in first] == [result.token for result in again]
    assert first[-1].token == int(logits.argmax())
    assert first[-1].logit == logits.max()
    wide = logits.astype(float)
    assert first[-1].log_sum == pytest.approx(np.log(np.exp(wide - wide.max()).sum()) + wide.max(),
                                              abs=1e-5)
