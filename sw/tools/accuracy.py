# SPDX-License-Identifier: Apache-2.0
"""How near a card comes to FP32 on a text: perplexity, best tokens, and the limits for them.

    python sw/tools/accuracy.py sw/models/shakespeare-gpt2 \\
        --text sw/models/shakespeare-gpt2/heldout.txt --json accuracy.json

Windows are those of ``heddle eval``.  FP32 is the GPT-2 of transformers where it is installed
(make setup-train), otherwise ``heddle.reference``; the weights that the card has, dequantised, are
always calculated by the latter.  Exits with status 1 if a limit is not kept.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import importlib.util
import multiprocessing
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import heddle
from heddle.card import CardError
from heddle.checkpoint import Checkpoint
from heddle.cli.common import read_text, write_json
from heddle.evaluate import evaluate, windows
from heddle.model import Model, prepare
from heddle.options import ACTIVATIONS, CACHES, Options
from heddle.reference import Dequantised, Reference, log_probabilities
from heddle.tokenizer import Tokenizer

Floats = npt.NDArray[np.float32]
#: Logits [tokens, vocabulary] of a window.
Forward = Callable[[list[int]], Floats]


@dataclasses.dataclass(frozen=True)
class Foretold:
    """What was foretold at every place of a text: arrays [places]."""

    #: The best token.
    best: npt.NDArray[np.int64]
    #: Log probability of the token that came, in nats.
    logs: npt.NDArray[np.float64]
    #: How far the best logit is above the second.
    margins: Floats | None = None

    @property
    def perplexity(self) -> float:
        return float(np.exp(-self.logs.mean()))


def foretold(forward: Forward, parts: Iterable[list[int]]) -> Foretold:
    """All windows through a model that gives logits."""
    best, logs, margins = [], [], []
    for part in parts:
        logits = forward(part)[:-1]
        best.append(logits.argmax(axis=1))
        logs.append(log_probabilities(logits)[np.arange(len(logits)), part[1:]])
        top = np.partition(logits, -2, axis=1)
        margins.append(top[:, -1] - top[:, -2])
    return Foretold(np.concatenate(best), np.concatenate(logs), np.concatenate(margins))


def fp32(folder: pathlib.Path) -> tuple[str, Forward]:
    """The FP32 model of a folder, and whose it is."""
    if importlib.util.find_spec("transformers") is None:
        return "heddle.reference", Reference(Checkpoint(folder)).logits
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    model = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()

    def logits(part: list[int]) -> Floats:
        with torch.no_grad():
            found: Floats = model(torch.tensor([part])).logits[0].numpy()
        return found

    return f"transformers {transformers.__version__}", logits


# ---- The card: a process each, as windows know nothing of each other. ----

@functools.cache
def _opened(folder: pathlib.Path, options: tuple[tuple[str, Any], ...]) -> Model:
    return heddle.load(folder, **dict(options))


def _score(folder: pathlib.Path, options: tuple[tuple[str, Any], ...],
           part: list[int]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    found = evaluate(_opened(folder, options).runtime, part)
    return found.best_token_ids, found.log_probabilities


def card(folder: pathlib.Path, parts: list[list[int]], jobs: int,
         progress: Callable[[int, int], None], **options: Any) -> Foretold:
    """All windows on simulated cards; ``jobs`` of them work side by side."""
    best: list[int] = []
    logs: list[float] = []
    # Not forked: PyTorch's threads would not survive it.
    with concurrent.futures.ProcessPoolExecutor(
            jobs, multiprocessing.get_context("spawn")) as pool:
        score = functools.partial(_score, folder, tuple(options.items()))
        for done, (tokens, values) in enumerate(pool.map(score, parts), 1):
            best += tokens
            logs += values
            progress(done, len(parts))
    return Foretold(np.array(best), np.array(logs))


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure with its limit."""

    name: str
    value: float
    #: "at most" or "at least".
    sense: str
    limit: float

    @property
    def kept(self) -> bool:
        return self.value <= self.limit if self.sense == "at most" else self.value >= self.limit


def judge(found: Foretold, exact: Foretold, near: Foretold) -> list[Figure]:
    """The figures of a card against FP32 and against FP32 of dequantised weights."""
    same = found.best == exact.best
    assert exact.margins is not None
    return [
        *(Figure(f"perplexity off {name}", abs(found.perplexity / other.perplexity - 1),
                 "at most", 0.002) for name, other in (("FP32", exact), ("dequantised", near))),
        Figure("best tokens of FP32", float(same.mean()), "at least", 0.98),
        Figure("best tokens of dequantised", float((found.best == near.best).mean()),
               "at least", 0.995),
        # Where FP32 is sure, so is the card.
        Figure("largest FP32 margin lost", float(exact.margins[~same].max(initial=0)),
               "at most", 0.25)]


def report(name: str, found: Foretold, exact: Foretold, near: Foretold,
           figures: list[Figure]) -> Iterator[str]:
    """The table for people."""
    yield f"{'':28}{'perplexity':>12}{'same best token':>18}"
    for title, row in ((name, exact), ("dequantised", near)):
        yield f"{title:28}{row.perplexity:12.4f}{np.mean(found.best == row.best):18.3%}"
    yield f"{'card':28}{found.perplexity:12.4f}"
    yield ""
    for figure in figures:
        yield (f"{figure.name:28}{figure.value:12.5f}   {figure.sense} {figure.limit:g}"
               f"{'' if figure.kept else '   NOT KEPT'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=pathlib.Path, help="folder of a GPT-2")
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--cards", default="sim:tiny")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="a16")
    parser.add_argument("--cache", choices=CACHES, default="int16")
    parser.add_argument("--limit", type=int, help="take so many windows only")
    parser.add_argument("--jobs", type=int, default=1, help="cards side by side")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file")
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {args.jobs}")

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} windows", end="" if done < total else "\n",
                  file=sys.stderr)

    start = time.monotonic()
    options = {"activation": args.activation, "cache": args.cache}
    try:
        checkpoint = Checkpoint(args.model)
        tokens = Tokenizer(args.model).encode(read_text(args.text))
        (layout, *_), _ = prepare(checkpoint, args.cards, Options(**options))
        parts = windows(tokens, layout.context, args.limit)
        found = card(args.model, parts, args.jobs, progress, cards=args.cards, **options)
    except (heddle.UserError, CardError) as error:
        print(f"accuracy: {error}", file=sys.stderr)
        return 2
    name, forward = fp32(args.model)
    exact = foretold(forward, parts)
    near = foretold(Reference(Dequantised(checkpoint)).logits, parts)
    figures = judge(found, exact, near)
    print(f"{args.model} on {args.cards}: {len(exact.best)} tokens in {len(parts)} windows\n")
    print(*report(name, found, exact, near, figures), sep="\n")
    write_json(args.json, {
        "model": str(args.model), "text": str(args.text), "cards": args.cards, **options,
        "windows": len(parts), "tokens": len(exact.best), "fp32": name,
        "perplexity": {"card": found.perplexity, "fp32": exact.perplexity,
                       "dequantised": near.perplexity},
        "figures": [dataclasses.asdict(figure) | {"kept": figure.kept} for figure in figures],
        "seconds": round(time.monotonic() - start, 1)})
    return 0 if all(figure.kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
