# SPDX-License-Identifier: Apache-2.0
"""``heddle prune``."""

import pathlib
from typing import Annotated

import typer

from ..prune import prune_folder
from . import common
from .common import OUT


def prune(
    model: common.ModelFolder,
    pattern: Annotated[str, typer.Option(help="Of every M weights of a row, N stay: N:M.")],
    output: Annotated[pathlib.Path, typer.Option(
        "-o", "--output", metavar="DIR", help="Folder to write the pruned model to.")],
) -> None:
    """Write a copy of a model with the smallest weights of every group set to zero.

    Embeddings and the LM head stay as they are.

    Example: heddle prune sw/models/shakespeare-gpt2 --pattern 2:4 -o build/shakespeare-2-4
    """
    with common.progress("pruning") as show:
        prune_folder(model, pattern, output, progress=show)
    OUT.print(f"{output}: {pattern}")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(prune)
