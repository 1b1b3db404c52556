# SPDX-License-Identifier: Apache-2.0
"""``heddle eval`` and ``heddle diff``: how good, and how exact, a card is."""

import dataclasses
import pathlib
from typing import Annotated

import typer

from ..diff import diff as compare
from ..evaluate import evaluate
from ..image import Pruned
from ..reference import Dequantised, Reference
from ..report import costs
from . import common
from .common import ERR, OUT, figure


def score(
    model: common.ModelFolder,
    text: Annotated[pathlib.Path, typer.Option(metavar="FILE", help="Text to score.")],
    cards: common.Cards = "sim:tiny",
    limit: Annotated[int | None, typer.Option(help="Score so many windows only.")] = None,
    pattern: common.Pattern = None,
    activation: common.Activation = "a16",
    cache: common.Cache = "int16",
    context: common.Context = None,
    json: common.Json = None,
) -> None:
    """Perplexity of a text, in windows of the context length.

    The text is one sequence of tokens, cut into consecutive windows; a last short one is dropped.
    Every window is scored from its second token.

    Example: heddle eval sw/models/shakespeare-gpt2 --text heldout.txt --limit 4
    """
    words = common.read_text(text)
    with common.loaded(model, cards, pattern=pattern, activation=activation, cache=cache,
                       context=context) as opened:
        with common.progress("scoring") as show:
            found = evaluate(opened.runtime, opened.encode(words), limit=limit, progress=show)
        costs_ = costs(opened)
    OUT.print(f"perplexity {found.perplexity:.4f} over {found.tokens} tokens in {found.windows} "
              "windows")
    common.write_json(json, {
        "perplexity": found.perplexity, "tokens": found.tokens, "windows": found.windows,
        "best_token_ids": list(found.best_token_ids),
        "log_probabilities": list(found.log_probabilities), **costs_})


def diff(
    model: common.ModelFolder,
    prompt: Annotated[str, typer.Option(help="Text to compare on.")],
    cards: common.Cards = "sim:tiny",
    dequantised: Annotated[bool, typer.Option(
        "--dequantised",
        help="Compare with the weights that the card has, not the model's.")] = False,
    pattern: common.Pattern = None,
    activation: common.Activation = "a16",
    cache: common.Cache = "int16",
    json: common.Json = None,
) -> None:
    """Compare a card with FP32, layer by layer.

    Example: heddle diff sw/models/shakespeare-gpt2 --prompt "ROMEO. But, soft!"
    """
    with common.loaded(model, cards, pattern=pattern, activation=activation,
                       cache=cache) as opened:
        source = Pruned(opened.checkpoint, opened.runtime.layout.pruning)
        reference = Reference(Dequantised(source) if dequantised else source)
        tokens = opened.encode(prompt)[:opened.context]
        with common.progress("comparing") as show:
            rows, agreed = compare(opened.runtime, reference, tokens, show)
    OUT.print(common.table(
        ("", "size", "error", "relative", "largest"),
        [(row.place, figure(row.size), figure(row.error), f"{row.relative:.2e}",
          figure(row.largest)) for row in rows]))
    OUT.print(f"best tokens: {agreed} of {len(tokens)} equal")
    common.write_json(json, {
        "tokens": len(tokens), "best_tokens_equal": agreed,
        "differences": [dataclasses.asdict(row) | {"relative": row.relative} for row in rows]})
    if not all(row.error == row.error for row in rows):
        ERR.print("some values are no numbers", soft_wrap=True)
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("eval")(score)
    app.command()(diff)
