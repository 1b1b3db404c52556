# SPDX-License-Identifier: Apache-2.0
"""``heddle prune``."""

import pathlib
from typing import Annotated

import typer

from ..checkpoint import Checkpoint
from ..errors import UserError
from ..prune import METHODS, prune_folder, samples
from ..tokenizer import Tokenizer
from . import common
from .common import OUT


def prune(
    model: common.ModelFolder,
    pattern: Annotated[str, typer.Option(help="Of every M weights of a row, N stay: N:M.")],
    output: Annotated[pathlib.Path, typer.Option(
        "-o", "--output", metavar="DIR", help="Folder to write the pruned model to.")],
    method: Annotated[str, typer.Option(
        help=f"How to choose them: {', '.join(METHODS)}. All but magnitude read a text.")
    ] = "magnitude",
    text: Annotated[pathlib.Path | None, typer.Option(
        metavar="FILE", help="Calibration text, like what the model will read; not the one that it "
                             "is scored on.")] = None,
    count: Annotated[int, typer.Option(
        "--samples", help="Windows of the text, each of the model's context.")] = 128,
    seed: Annotated[int, typer.Option(help="Which windows.")] = 0,
) -> None:
    """Write a copy of a model with N of every M weights, the others set to zero.

    Embeddings and the LM head stay as they are.

    Example: heddle prune sw/models/shakespeare-gpt2 --pattern 2:4 -o build/shakespeare-2-4
    """
    windows: list[list[int]] = []
    if text is not None:
        if not METHODS.get(method, (None, True))[1]:
            raise UserError(f"--text must be left out: {method} reads none")
        checkpoint = Checkpoint(model)
        tokens = Tokenizer(checkpoint.folder).encode(common.read_text(text))
        windows = samples(tokens, count, checkpoint.shape.context, seed)
    with common.progress("pruning") as show:
        prune_folder(model, pattern, output, method=method, windows=windows, progress=show)
    OUT.print(f"{output}: {pattern}")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(prune)
