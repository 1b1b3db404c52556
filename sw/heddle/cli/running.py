# SPDX-License-Identifier: Apache-2.0
"""``heddle run``: from a prompt to text."""

import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ..errors import UserError
from ..generation import Generation
from ..model import Choices, Model
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


def _results(made: Sequence[Generation], model: Model) -> dict[str, Any]:
    """The same of several: lists, in the order of the prompts."""
    return {"text": [each.text for each in made],
            "token_ids": [list(each.token_ids) for each in made],
            "prompt": [each.prompt for each in made],
            "prompt_token_ids": [list(each.prompt_token_ids) for each in made], **costs(model)}


def run(
    model: common.ModelFolder,
    prompt: Annotated[list[str] | None, typer.Option(
        metavar="TEXT", help="Text to go on from; may be given several times, for texts that are "
                             "made side by side.")] = None,
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

    Example: heddle run sw/models/shakespeare-gpt2 --cards sim:tiny --prompt "ROMEO."

    Example: heddle run sw/models/shakespeare-gpt2 --prompt "JULIET." --temperature 0.8 --seed 7
    """
    if (not prompt) == (prompt_file is None):
        raise UserError("one of --prompt and --prompt-file must be given, not "
                        f"{'both' if prompt else 'none'}")
    prompts = prompt or []
    if prompt_file is not None:
        prompts = [common.read_text(prompt_file)]
    how: Choices = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k,
                    "top_p": top_p, "repetition_penalty": repetition_penalty, "stop": stop,
                    "seed": seed}
    with common.loaded(model, cards, pattern=pattern, activation=activation, cache=cache,
                       context=context, split=split) as opened:
        if len(prompts) == 1:
            made = common.watched(opened.stream(prompts[0], **how), _show)
            _show("\n")
            found = _result(made, opened)
        else:
            several = opened.generate(prompts, **how)
            for made in several:
                _show(f"{made.prompt}{made.text}\n\n")
            found = _results(several, opened)
    common.write_json(json, found)
    ERR.print(_summary(found), style="dim", soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
