# SPDX-License-Identifier: Apache-2.0
"""``heddle run``: from a prompt to text."""

import pathlib
import sys
from typing import Annotated, Any

import typer

from ..errors import UserError
from ..generation import Generation
from ..model import Model
from ..report import costs
from . import common
from .common import ERR, figure


def _show(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _summary(found: dict[str, Any]) -> str:
    """One line on what a run cost."""
    what = f"{found['steps']} steps on {found['backend']}:{found['config']}"
    if found["cycles_total"] is None:
        return f"{what}, which counts no cycles"
    return (f"{what}: {figure(found['cycles_per_token'])} cycles a token, "
            f"{figure(found['tokens_per_second_card'])} tokens/s at {found['clock_mhz']} MHz, "
            f"{figure(100 * found['hbm_read_utilisation'])} % of the read beats")


def _result(made: Generation, model: Model) -> dict[str, Any]:
    return {"text": made.text, "token_ids": list(made.token_ids), "prompt": made.prompt,
            "prompt_token_ids": list(made.prompt_token_ids), **costs(model)}


def run(
    model: common.ModelFolder,
    prompt: Annotated[str | None, typer.Option(help="Text to go on from.")] = None,
    prompt_file: Annotated[pathlib.Path | None, typer.Option(
        metavar="FILE", help="File with the text to go on from.")] = None,
    cards: common.Cards = "sim:tiny",
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens to make.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 takes the best token always.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="Choose among so many best tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(
        help="Choose among the fewest best tokens of this probability.")] = None,
    repetition_penalty: Annotated[float, typer.Option(
        help="Above 1: make tokens that the text has less likely.")] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(
        metavar="TEXT", help="End before this text; may be given several times.")] = None,
    seed: Annotated[int | None, typer.Option(help="Equal seeds choose equal tokens.")] = None,
    pattern: common.Pattern = None,
    activation: common.Activation = "a16",
    cache: common.Cache = "int16",
    context: common.Context = None,
    split: common.Split = "auto",
    json: common.Json = None,
) -> None:
    """Generate text.

    Example: heddle run sw/models/shakespeare-gpt2 --cards sim:tiny --prompt "ROMEO." --seed 1
    """
    if (prompt is None) == (prompt_file is None):
        raise UserError("one of --prompt and --prompt-file must be given, not "
                        f"{'both' if prompt is not None else 'none'}")
    text = prompt if prompt_file is None else common.read_text(prompt_file)
    with common.loaded(model, cards, pattern=pattern, activation=activation, cache=cache,
                       context=context, split=split) as opened:
        made = common.watched(opened.stream(
            text or "", max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k,
            top_p=top_p, repetition_penalty=repetition_penalty, stop=stop, seed=seed), _show)
        _show("\n")
        found = _result(made, opened)
    common.write_json(json, found)
    ERR.print(_summary(found), style="dim", soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
