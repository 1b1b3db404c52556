# SPDX-License-Identifier: Apache-2.0
"""The trained demo model: what rounding to the card's formats costs it."""

import pathlib

import numpy as np
import pytest

import heddle
from heddle.evaluate import evaluate
from heddle.reference import Dequantised, Reference, log_probabilities

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "sw" / "models" / "shakespeare-gpt2"
WINDOWS = 2


@pytest.fixture(scope="module")
def text():
    return (FOLDER / "heldout.txt").read_text(encoding="utf-8")[:8000]


def test_the_card_is_as_good_as_fp32(text):
    with heddle.load(FOLDER) as model:
        tokens = model.encode(text)
        score = evaluate(model.runtime, tokens, limit=WINDOWS)
        size, checkpoint = model.context, model.checkpoint
    best, logs, margins = {}, {}, {}
    for name, source in (("fp32", checkpoint), ("dequantised", Dequantised(checkpoint))):
        reference = Reference(source)
        parts = [tokens[start:start + size] for start in range(0, WINDOWS * size, size)]
        logits = np.concatenate([reference.logits(part)[:-1] for part in parts])
        wanted = np.concatenate([part[1:] for part in parts])
        best[name] = logits.argmax(axis=1)
        logs[name] = log_probabilities(logits)[np.arange(len(wanted)), wanted]
        top = np.sort(logits, axis=1)
        margins[name] = top[:, -1] - top[:, -2]

    exact = float(np.exp(-logs["fp32"].mean()))
    assert score.perplexity == pytest.approx(exact, rel=0.002)
    same = {name: np.asarray(score.best_token_ids) == tokens for name, tokens in best.items()}
    assert same["fp32"].mean() >= 0.98
    assert same["dequantised"].mean() >= 0.995
    # Where FP32 is sure, so is the card.
    assert margins["fp32"][~same["fp32"]].max(initial=0) <= 0.25


def test_a_text_is_made_as_the_documentation_shows():
    with heddle.load(FOLDER, cards="sim:tiny") as model:
        text = model.generate("ROMEO.\n", max_new_tokens=16, temperature=0.8, top_k=40, seed=1)
        again = "".join(model.stream("ROMEO.\n", max_new_tokens=16, temperature=0.8, top_k=40,
                                     seed=1))
    assert text == again
    assert len(text) > 16
