# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in every form they come in, and one sentence for each that cannot run."""

import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from heddle.checkpoint import MATRICES, Checkpoint, read_shape
from heddle.errors import UserError
from heddle.shape import GELU_ERF, GELU_TANH
from tests.sw import models


@pytest.fixture(scope="module")
def found():
    return models.tensors(layers=2, width=64, inner=100, vocabulary=290, context=8)


def same(checkpoint, found, dtype=np.float32):
    """Whether all parameters are those of ``found``, rounded to ``dtype``."""
    def stored(name):
        return found[name].astype(dtype).astype(np.float32)

    for number in range(2):
        layer = checkpoint.layer(number)
        for field, part in MATRICES.items():
            np.testing.assert_array_equal(getattr(layer, field),
                                          stored(f"h.{number}.{part}.weight").T)
            np.testing.assert_array_equal(getattr(layer, f"{field}_bias"),
                                          stored(f"h.{number}.{part}.bias"))
        np.testing.assert_array_equal(layer.gamma2, stored(f"h.{number}.ln_2.weight"))
        np.testing.assert_array_equal(layer.beta1, stored(f"h.{number}.ln_1.bias"))
    np.testing.assert_array_equal(checkpoint.embedding(), stored("wte.weight"))
    np.testing.assert_array_equal(checkpoint.positions(), stored("wpe.weight"))
    np.testing.assert_array_equal(checkpoint.final_norm()[1], stored("ln_f.bias"))
    head = "wte.weight" if checkpoint.tied else "lm_head.weight"
    np.testing.assert_array_equal(checkpoint.head(), stored(head))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_form_of_one_model_reads_alike(tmp_path, found, dtype, prefix, shards):
    path = models.write(tmp_path / "m", found, prefix=prefix, dtype=dtype, shards=shards)
    checkpoint = Checkpoint(path)
    assert (checkpoint.shape.layers, checkpoint.shape.heads, checkpoint.shape.inner) == (2, 1, 100)
    same(checkpoint, found, dtype)


def test_no_file_stays_mapped(tmp_path, found):
    """What was read of a map counts as memory of the process until the file is closed."""
    checkpoint = Checkpoint(models.write(tmp_path, found))
    layer, embedding = checkpoint.layer(0), checkpoint.embedding()
    assert layer.up.size
    assert embedding.size
    assert str(tmp_path) not in pathlib.Path("/proc/self/maps").read_text(encoding="utf-8")


def test_buffers_of_old_checkpoints_are_ignored(tmp_path, found):
    extra = {"h.0.attn.bias": np.ones((1, 1, 8, 8), np.float32),
             "h.0.attn.masked_bias": np.array(-1e4, np.float32)}
    same(Checkpoint(models.write(tmp_path, {**found, **extra})), found)


def test_the_head_may_be_untied(tmp_path, found):
    untied = {**found, "lm_head.weight": found["wte.weight"][::-1].copy()}
    checkpoint = Checkpoint(models.write(tmp_path, untied))
    assert not checkpoint.tied
    same(checkpoint, untied)


def test_a_tied_head_is_the_embedding_whatever_else_the_file_holds(tmp_path, found):
    odd = {**found, "lm_head.weight": found["wte.weight"] + 1}
    same(Checkpoint(models.write(tmp_path, odd, tie_word_embeddings=True)), found)


@pytest.mark.parametrize(("name", "form"), [
    ("gelu_new", GELU_TANH), ("gelu_pytorch_tanh", GELU_TANH), ("gelu", GELU_ERF)])
def test_activation(found, name, form):
    assert read_shape(models.config(found, activation_function=name)).gelu == form


def test_the_defaults_are_those_of_gpt2(found):
    config = models.config(found)
    for key in ("n_inner", "layer_norm_epsilon", "activation_function"):
        del config[key]
    shape = read_shape(config)
    assert (shape.inner, shape.epsilon, shape.gelu, shape.scaled) == (256, 1e-5, GELU_TANH, True)
    assert read_shape({**config, "scale_attn_weights": False}).scaled is False


def test_stop_tokens(tmp_path, found):
    assert Checkpoint(models.write(tmp_path / "one", found)).stop_tokens == (0,)
    several = Checkpoint(models.write(tmp_path / "two", found, eos_token_id=[3, 5]))
    assert (several.stop_tokens, several.start_token) == ((3, 5), 0)
    none = Checkpoint(models.write(tmp_path / "no", found, eos_token_id=None, bos_token_id=None))
    assert (none.stop_tokens, none.start_token) == ((), None)


@pytest.mark.parametrize(("more", "sentence"), [
    ({"model_type": "llama"}, "model_type in config.json must be 'gpt2', not 'llama'"),
    ({"architectures": ["GPT2DoubleHeadsModel"]},
     "architectures in config.json must have GPT2LMHeadModel, not ['GPT2DoubleHeadsModel']"),
    ({"scale_attn_by_inverse_layer_idx": True},
     "scale_attn_by_inverse_layer_idx in config.json must be false: cards do not support it"),
    ({"add_cross_attention": True},
     "add_cross_attention in config.json must be false: cards do not support it"),
    ({"n_layer": 0}, "n_layer in config.json must be a whole number of at least 1, not 0"),
    ({"n_embd": "64"}, "n_embd in config.json must be a whole number of at least 1, not '64'"),
    ({"n_head": 2}, "a head must have 64 elements: n_embd in config.json must be "
                    "64 × n_head = 128, not 64"),
    ({"activation_function": "relu"}, "activation_function in config.json must be one of "
                                      "gelu_new, gelu_pytorch_tanh, gelu, not 'relu'"),
    ({"layer_norm_epsilon": "small"},
     "layer_norm_epsilon in config.json must be a number, not 'small'"),
    ({"layer_norm_epsilon": 2}, "layer_norm_epsilon must be at least 0 and below 1, not 2.0"),
    ({"vocab_size": 291},
     "tensor transformer.wte.weight must have shape [291, 64], not [290, 64]"),
    ({"n_inner": None}, "tensor transformer.h.0.mlp.c_fc.weight must have shape [64, 256], "
                        "not [64, 100]"),
    ({"tie_word_embeddings": False}, "tensor lm_head.weight is missing in {folder}"),
    ({"heddle": {"pattern": "5:4"}},
     "heddle.pattern in config.json: N of an N:M pattern must be in 0..4, not 5"),
])
def test_what_cannot_run_is_one_sentence(tmp_path, found, more, sentence):
    folder = models.write(tmp_path, found, **more)
    with pytest.raises(UserError) as caught:
        Checkpoint(folder)
    assert str(caught.value) == sentence.format(folder=folder)


def test_a_stop_token_outside_the_vocabulary(tmp_path, found):
    checkpoint = Checkpoint(models.write(tmp_path, found, eos_token_id=50256))
    with pytest.raises(UserError) as caught:
        _ = checkpoint.stop_tokens
    assert str(caught.value) == ("eos_token_id in config.json must be below vocab_size (290), "
                                 "not 50256")


def read_all(folder):
    checkpoint = Checkpoint(folder)
    return [checkpoint.layer(number) for number in range(checkpoint.shape.layers)]


def refusal(folder) -> str:
    with pytest.raises(UserError) as caught:
        read_all(folder)
    return str(caught.value)


def test_damaged_folders(tmp_path, found):
    assert refusal(tmp_path / "none") == ("the model must be a folder with config.json and "
                                          f"model.safetensors, not '{tmp_path / 'none'}'")
    folder = models.write(tmp_path / "m", found)
    weights, config = folder / "model.safetensors", folder / "config.json"
    good, text = weights.read_bytes(), config.read_text()

    weights.write_bytes(good[:-5])
    assert refusal(folder).startswith(f"{weights} is damaged or cut short: ")
    weights.write_bytes(b"")
    assert refusal(folder).startswith(f"{weights} is damaged or cut short: ")
    weights.unlink()
    assert refusal(folder) == f"{folder} has no model.safetensors (other formats must be converted)"

    weights.write_bytes(good)
    for bad in ("{", "[]", ""):
        config.write_text(bad)
        assert refusal(folder).startswith(f"{config} ")
    config.unlink()
    assert refusal(folder) == f"{config} is missing"
    config.write_text(text)
    Checkpoint(folder)


def test_weights_must_be_finite_numbers(tmp_path, found):
    for bad in (np.nan, np.inf):
        broken = {name: value.copy() for name, value in found.items()}
        broken["h.1.mlp.c_fc.weight"][3, 4] = bad
        assert refusal(models.write(tmp_path / str(bad), broken)) == (
            "tensor transformer.h.1.mlp.c_fc.weight must be finite, but holds NaN or infinity")
    whole = models.write(tmp_path / "ints", found)
    tensors = safetensors.numpy.load_file(whole / "model.safetensors")
    tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"].astype(np.int32)
    safetensors.numpy.save_file(tensors, whole / "model.safetensors")
    assert refusal(whole) == ("tensor transformer.wpe.weight must be one of BF16, F16, F32, F64, "
                              "not I32")


def test_missing_shards_and_tensors(tmp_path, found):
    folder = models.write(tmp_path / "m", found, shards=2)
    index = folder / "model.safetensors.index.json"
    place = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**place, "x": "../secret.safetensors"}}))
    assert refusal(folder) == (f"{index} must name files of its own folder, "
                               "not '../secret.safetensors'")
    index.write_text("{}")
    assert refusal(folder) == f"{index} must have a weight_map"
    del place["transformer.ln_f.bias"]
    index.write_text(json.dumps({"weight_map": place}))
    assert refusal(folder) == f"tensor transformer.ln_f.bias is missing in {folder}"
    (folder / "model-00001.safetensors").unlink()
    assert refusal(folder) == f"{folder / 'model-00001.safetensors'} is missing"
