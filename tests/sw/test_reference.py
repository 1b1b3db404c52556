# SPDX-License-Identifier: Apache-2.0
"""The FP32 reference against Hugging Face's GPT-2, and by hand where PyTorch is not installed."""

import math

import numpy as np
import pytest

from heddle.checkpoint import Checkpoint
from heddle.reference import Dequantised, Reference, gelu, log_probabilities, norm
from heddle.shape import GELU_ERF, GELU_TANH
from tests.sw import models

TOKENS = np.random.default_rng(4).integers(1, 290, 20).tolist()
VARIANTS = {
    "plain": ({}, {}),
    "erf, untied, unscaled": ({"head": True}, {"activation_function": "gelu",
                                               "scale_attn_weights": False}),
    "ragged": ({"inner": 201, "width": 192}, {"layer_norm_epsilon": 1e-3}),
}


def write(folder, name):
    shape, config = VARIANTS[name]
    found = models.tensors(**{"layers": 2, "width": 128, "vocabulary": 290, "context": 20,
                              "seed": name, **shape})
    return models.write(folder, found, **config)


@pytest.mark.torch
@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_hugging_faces(tmp_path, name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = write(tmp_path, name)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    with torch.no_grad():
        want = theirs(torch.tensor([TOKENS])).logits[0].numpy()
    got = Reference(Checkpoint(folder)).logits(TOKENS)
    assert np.abs(want).max() > 3
    np.testing.assert_allclose(got, want, atol=2e-4)


def forward(checkpoint, tokens):
    """GPT-2 once more, token by token and head by head in FP64: no code in common."""
    shape, keys, values = checkpoint.shape, {}, {}
    rows = []
    for position, token in enumerate(tokens):
        x = checkpoint.embedding()[token].astype(float) + checkpoint.positions()[position]
        for number in range(shape.layers):
            layer = checkpoint.layer(number)

            def normed(x, gamma, beta):
                return (x - x.mean()) / math.sqrt(x.var() + shape.epsilon) * gamma + beta

            qkv = layer.qkv @ normed(x, layer.gamma1, layer.beta1) + layer.qkv_bias
            mixed = np.zeros(shape.width)
            for head in range(shape.heads):
                part = slice(64 * head, 64 * head + 64)
                q, k, v = (qkv[start:start + shape.width][part]
                           for start in (0, shape.width, 2 * shape.width))
                keys.setdefault((number, head), []).append(k)
                values.setdefault((number, head), []).append(v)
                scores = np.array(keys[number, head]) @ q / (8 if shape.scaled else 1)
                p = np.exp(scores - scores.max())
                mixed[part] = p @ np.array(values[number, head]) / p.sum()
            x = x + layer.out @ mixed + layer.out_bias
            h = layer.up @ normed(x, layer.gamma2, layer.beta2) + layer.up_bias
            if shape.gelu == GELU_ERF:
                h *= [0.5 * (1 + math.erf(value / math.sqrt(2))) for value in h]
            else:
                h *= 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
            x = x + layer.down @ h + layer.down_bias
        gamma, beta = checkpoint.final_norm()
        x = (x - x.mean()) / math.sqrt(x.var() + shape.epsilon) * gamma + beta
        rows.append(checkpoint.head() @ x)
    return np.array(rows)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_those_of_a_second_writing(tmp_path, name):
    checkpoint = Checkpoint(write(tmp_path, name))
    got = Reference(checkpoint).logits(TOKENS[:6])
    np.testing.assert_allclose(got, forward(checkpoint, TOKENS[:6]), atol=2e-4)


def test_no_token_sees_what_follows(tmp_path):
    reference = Reference(Checkpoint(write(tmp_path, "plain")))
    np.testing.assert_allclose(reference.logits(TOKENS[:5]), reference.logits(TOKENS)[:5],
                               atol=1e-5)


def test_probes_see_every_layer(tmp_path):
    seen = {}
    Reference(Checkpoint(write(tmp_path, "plain"))).logits(TOKENS, seen.__setitem__)
    assert list(seen) == ["layer 0 attention", "layer 0 mlp", "layer 1 attention", "layer 1 mlp"]
    assert all(value.shape == (20, 128) for value in seen.values())


def test_dequantised_weights_are_near_and_not_the_same(tmp_path):
    checkpoint = Checkpoint(write(tmp_path, "plain"))
    exact, near = Reference(checkpoint), Reference(Dequantised(checkpoint))
    off = np.abs(exact.logits(TOKENS) - near.logits(TOKENS)).max()
    assert 1e-3 < off < 1


def test_the_parts():
    x = np.linspace(-4, 4, 9, dtype=np.float32)
    y = norm(x, np.float32(2), np.float32(1), 0.0)
    assert y.mean() == pytest.approx(1, abs=1e-6)
    assert y.std() == pytest.approx(2, rel=1e-6)
    assert gelu(np.float32([0, 10, -10]), GELU_TANH).tolist() == [0, 10, 0]
    assert gelu(np.float32([1]), GELU_ERF)[0] == pytest.approx(0.8413447, abs=1e-6)
    assert gelu(np.float32([1]), GELU_TANH)[0] == pytest.approx(0.8411920, abs=1e-6)
    np.testing.assert_allclose(np.exp(log_probabilities(x[None])).sum(), 1)


def test_greedy_continuation_is_the_best_token_each_time(tmp_path):
    reference = Reference(Checkpoint(write(tmp_path, "plain")))
    tokens = TOKENS[:3]
    for token in reference.greedy(TOKENS[:3], 4):
        assert token == int(reference.logits(tokens)[-1].argmax())
        tokens.append(token)

