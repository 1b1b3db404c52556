# SPDX-License-Identifier: Apache-2.0
"""Write the golden files with the GPT-2 of transformers, in FP32.

    .venv/bin/python -m tests.golden.write            all of them
    .venv/bin/python -m tests.golden.write demo       one: when the demo model has changed

Needs PyTorch: make setup-train.
"""

import pathlib
import sys
import tempfile
import zlib

import numpy as np
import safetensors.numpy
import torch
import transformers

from heddle.tokenizer import Tokenizer
from tests.golden.cases import CASES, Case, digest

#: Hot enough that a random model does not repeat itself.
TEMPERATURE = 3.0


def sequence(case: Case, folder: pathlib.Path, model: torch.nn.Module) -> list[int]:
    """A piece of the text beside the model; where there is none, tokens drawn from the model."""
    text = folder / "heldout.txt"
    if text.exists():
        start = text.read_text(encoding="utf-8")[:20 * case.count]
        return Tokenizer(folder).encode(start)[:case.count]
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    tokens = [int(rng.integers(model.config.vocab_size))]
    while len(tokens) < case.count:
        logits = model(torch.tensor([tokens])).logits[0, -1].numpy()
        tokens.append(int((logits + TEMPERATURE * rng.gumbel(size=len(logits))).argmax()))
    return tokens


def golden(case: Case, folder: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a golden file; ``folder`` holds the case's model."""
    transformers.utils.logging.disable_progress_bar()
    # Sums then have one order, however many cores there are.
    torch.set_num_threads(1)
    model = transformers.GPT2LMHeadModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        tokens = sequence(case, folder, model)
        logits = model(torch.tensor([tokens])).logits[0]
        logs = torch.log_softmax(logits.double(), dim=1)[:-1]
        top = logits.topk(2).values
    arrays = {
        "tokens": np.array(tokens, np.int32),
        "best": logits.argmax(dim=1).numpy().astype(np.int32),
        "logs": logs[torch.arange(len(tokens) - 1), tokens[1:]].numpy().astype(np.float32),
        "margins": (top[:, 0] - top[:, 1]).numpy(),
        "places": np.array(case.places, np.int32),
        "logits": logits[case.places].numpy()}
    return arrays, {"weights": digest(folder), "torch": torch.__version__,
                    "transformers": transformers.__version__}


def main() -> None:
    for name in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            folder = CASES[name].folder(pathlib.Path(scratch))
            arrays, about = golden(CASES[name], folder)
        safetensors.numpy.save_file(arrays, CASES[name].file, about)
        perplexity = float(np.exp(-arrays["logs"].mean(dtype=np.float64)))
        print(f"{CASES[name].file.name}: {len(arrays['tokens'])} tokens, "
              f"perplexity {perplexity:.4f}")


if __name__ == "__main__":
    main()
