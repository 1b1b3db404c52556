# SPDX-License-Identifier: Apache-2.0
"""Small GPT-2 folders with random weights, for tests."""

import json
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import safetensors.numpy
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from heddle.results import Result
from heddle.runtime import Runtime

TEXT = ("A heddle lifts some of the threads, and the shuttle passes below them. "
        "Over and under, over and under, so the cloth grows – line by line, naïve and slow. ") * 4


def tensors(*, layers: int = 2, width: int = 128, inner: int | None = None, vocabulary: int = 300,
            context: int = 40, head: bool = False, seed: str = "model") -> dict[str, np.ndarray]:
    """The tensors of a GPT-2, named without a prefix; large enough for clear preferences."""
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    inner = inner or 4 * width

    def normal(*shape: int, std: float) -> np.ndarray:
        return (rng.standard_normal(shape) * std).astype(np.float32)

    found = {"wte.weight": normal(vocabulary, width, std=0.3),
             "wpe.weight": normal(context, width, std=0.1)}
    for layer in range(layers):
        for name in ("ln_1", "ln_2"):
            found[f"h.{layer}.{name}.weight"] = 1 + normal(width, std=0.2)
            found[f"h.{layer}.{name}.bias"] = normal(width, std=0.1)
        for name, inputs, outputs in (("attn.c_attn", width, 3 * width),
                                      ("attn.c_proj", width, width),
                                      ("mlp.c_fc", width, inner), ("mlp.c_proj", inner, width)):
            found[f"h.{layer}.{name}.weight"] = normal(inputs, outputs, std=inputs**-0.5)
            found[f"h.{layer}.{name}.bias"] = normal(outputs, std=0.05)
    found["ln_f.weight"] = 1 + normal(width, std=0.2)
    found["ln_f.bias"] = normal(width, std=0.1)
    if head:
        found["lm_head.weight"] = normal(vocabulary, width, std=0.3)
    return found


def config(found: dict[str, np.ndarray], **more: Any) -> dict[str, Any]:
    """The ``config.json`` of tensors named without a prefix."""
    width, inner = found["h.0.mlp.c_fc.weight"].shape
    return {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"],
        "n_layer": sum(name.endswith("ln_1.weight") for name in found), "n_embd": width,
        "n_head": width // 64, "n_positions": len(found["wpe.weight"]),
        "vocab_size": len(found["wte.weight"]),
        "n_inner": None if inner == 4 * width else inner,
        "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
        "tie_word_embeddings": "lm_head.weight" not in found,
        "bos_token_id": 0, "eos_token_id": 0, **more}


def tokenizer(vocabulary: int) -> tokenizers.Tokenizer:
    """A byte-level tokenizer whose token 0 is the end of a text."""
    found = tokenizers.Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    found.train_from_iterator([TEXT], trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return found


def text(folder: pathlib.Path) -> pathlib.Path:
    """A model folder from whose prompts many different tokens come."""
    return write(folder, tensors(layers=2, width=128, vocabulary=300, context=90, seed="text"))


def write(folder: pathlib.Path, found: dict[str, np.ndarray], *, prefix: str = "transformer.",
          dtype: Any = np.float32, shards: int = 1, **more: Any) -> pathlib.Path:
    """Write a model folder; ``more`` goes into ``config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(found, **more)), encoding="utf-8")
    named = {name if name == "lm_head.weight" else prefix + name: value.astype(dtype)
             for name, value in found.items()}
    if shards == 1:
        safetensors.numpy.save_file(named, folder / "model.safetensors")
    else:
        place = {name: f"model-{number % shards:05}.safetensors"
                 for number, name in enumerate(named)}
        for file in set(place.values()):
            safetensors.numpy.save_file(
                {name: named[name] for name in named if place[name] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    tokenizer(len(found["wte.weight"])).save(str(folder / "tokenizer.json"))
    return folder


def steps(runtime: Runtime, tokens: Sequence[int],
          first: int = 0) -> tuple[np.ndarray, list[Result]]:
    """Read ``tokens``, from position ``first`` on, with a command each.

    Returns logits [tokens, vocabulary] and the result records.
    """
    logits, results = [], []
    for position, token in enumerate(tokens, first):
        results += runtime.run([token], position, 1, candidates=4, store_logits=True)
        logits.append(runtime.logits())
    return np.stack(logits), results
