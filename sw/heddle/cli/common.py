# SPDX-License-Identifier: Apache-2.0
"""What commands share: options, progress, tables, JSON."""

import contextlib
import errno
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rtl_gen.spec import formats
from rtl_gen.spec.config import CONFIGS

from ..card import backends
from ..errors import UserError
from ..generation import Generation, Stream
from ..model import Model, load
from .completing import choices

#: Results go to the first, everything else to the second.
OUT, ERR = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False)

ModelFolder = Annotated[pathlib.Path, typer.Argument(
    metavar="MODEL", help="Folder with config.json, model.safetensors and tokenizer.json.")]
Cards = Annotated[str, typer.Option(
    help="Kind of card and configuration, as in sim:tiny; `heddle cards` lists them.",
    autocompletion=lambda: [f"{kind}:{name}" for kind in backends() for name in CONFIGS])]
#: For a shell; others can be given too.
PATTERNS = choices(*(pattern.name for pattern in formats.PATTERNS))
Pattern = Annotated[str | None, typer.Option(
    help="N:M pattern of the layers' weights, as in 2:4, or dense [default: the model's own].",
    autocompletion=PATTERNS)]
Activation = Annotated[str, typer.Option(
    help="Activations: a16 or a8.", autocompletion=choices("a16", "a8"))]
Cache = Annotated[str, typer.Option(
    help="K and V in memory: int16 or int8.", autocompletion=choices("int16", "int8"))]
Context = Annotated[int | None, typer.Option(
    help="Longest context [default: the model's, as far as the card reaches].")]
Split = Annotated[str, typer.Option(
    help="Matrices on the cards of a ring: outputs (each split), whole:out,up (those whole on "
         "every card), or auto.", autocompletion=choices("auto", "outputs"))]


def _writable(path: pathlib.Path | None) -> pathlib.Path | None:
    """Found out before the work whose result would be lost."""
    if path is not None:
        parent = path.parent
        reason = errno.EISDIR if path.is_dir() else errno.ENOENT if not parent.exists() else \
            errno.ENOTDIR if not parent.is_dir() else errno.EACCES if not os.access(
                path if path.exists() else parent, os.W_OK) else None
        if reason is not None:
            raise UserError(f"{path} cannot be written: {os.strerror(reason)}")
    return path


Json = Annotated[pathlib.Path | None, typer.Option(
    "--json", metavar="FILE", help="Write the result to this file as JSON.", callback=_writable)]


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, and nothing elsewhere; yields a function of (done, total)."""
    if not ERR.is_terminal:
        yield lambda done, total: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), \
        TimeRemainingColumn()
    with Progress(*columns, console=ERR, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def loaded(folder: pathlib.Path, cards: str, **options: Any) -> Iterator[Model]:
    """A model on cards, with a progress bar while it is loaded."""
    with progress("loading") as show:
        model = load(folder, cards=cards, progress=show, **options)
    with model:
        yield model


def watched(stream: Stream, show: Callable[[str], None]) -> Generation:
    """Show a text as it is made; the whole."""
    for piece in stream:
        show(piece)
    assert stream.generation is not None
    return stream.generation


def read_text(path: pathlib.Path) -> str:
    """A text file, or one sentence on why it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} must be UTF-8, but byte {error.start} is not") from None


def write_json(path: pathlib.Path | None, value: dict[str, Any]) -> None:
    """Write a result for machines, if a file was named."""
    if path is not None:
        try:
            path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n",
                            encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from None


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 1) -> Table:
    """A table for people; columns from number ``right`` on hold figures."""
    made = Table(box=None, pad_edge=False)
    for number, title in enumerate(titles):
        made.add_column(title, justify="right" if number >= right else "left",
                        overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def figure(value: float | None, unit: str = "", digits: int = 4) -> str:
    """A figure for people; a dash for what is not known."""
    return "–" if value is None else f"{value:,.{digits}g}{unit}"
