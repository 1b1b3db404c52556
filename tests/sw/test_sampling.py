# SPDX-License-Identifier: Apache-2.0
"""Choosing tokens from logits."""

import numpy as np
import pytest

from heddle.errors import UserError
from heddle.sampling import Sampling, best_first, choose

LOGITS = np.array([1, 3, 2, 3, -1], np.float32)


def frequencies(count=8_000, **how):
    tokens, logits = best_first(LOGITS)
    rng, sampling = np.random.default_rng(7), Sampling(**how)
    drawn = [choose(tokens, logits, sampling, rng) for _ in range(count)]
    return np.bincount(drawn, minlength=5) / count


def softmax(x):
    p = np.exp(x - x.max())
    return p / p.sum()


def test_best_first_puts_equal_logits_by_token():
    tokens, logits = best_first(LOGITS)
    assert tokens.tolist() == [1, 3, 2, 0, 4]
    assert logits.tolist() == [3, 3, 2, 1, -1]


@pytest.mark.parametrize("temperature", [0.5, 1, 3])
def test_frequencies_are_those_of_the_softmax(temperature):
    want = softmax(LOGITS / temperature)
    np.testing.assert_allclose(frequencies(temperature=temperature), want, atol=0.02)


def test_top_k_and_top_p_leave_out_the_rest():
    assert (frequencies(temperature=1, top_k=3)[[0, 4]] == 0).all()
    np.testing.assert_allclose(frequencies(temperature=1, top_k=2)[[1, 3]], 0.5, atol=0.02)
    # The first has 0.37, both first ones 0.74, three 0.88: the one that reaches top_p stays.
    assert np.count_nonzero(frequencies(temperature=1, top_p=0.3)) == 1
    assert np.count_nonzero(frequencies(temperature=1, top_p=0.7)) == 2
    assert np.count_nonzero(frequencies(temperature=1, top_p=0.8)) == 3
    assert np.count_nonzero(frequencies(temperature=1, top_p=1.0)) == 5


def test_what_is_greedy_and_what_a_record_is_enough_for():
    assert Sampling().greedy
    assert Sampling(temperature=1, top_k=1).greedy
    assert not Sampling(temperature=1).greedy
    assert Sampling(temperature=1, top_k=64).candidates(64) == 64
    assert Sampling(temperature=1, top_k=65).candidates(64) is None
    assert Sampling(temperature=1, top_p=0.9).candidates(64) is None


@pytest.mark.parametrize(("how", "sentence"), [
    ({"temperature": -1}, "temperature must be 0 or more, not -1"),
    ({"temperature": float("nan")}, "temperature must be 0 or more, not nan"),
    ({"temperature": float("inf")}, "temperature must be 0 or more, not inf"),
    ({"top_k": 0}, "top_k must be at least 1, not 0"),
    ({"top_p": 0}, "top_p must be above 0 and at most 1, not 0"),
    ({"top_p": 1.1}, "top_p must be above 0 and at most 1, not 1.1"),
    ({"seed": -1}, "seed must be 0 or more, not -1"),
])
def test_what_makes_no_sense_is_one_sentence(how, sentence):
    with pytest.raises(UserError) as caught:
        Sampling(**how)
    assert str(caught.value) == sentence
