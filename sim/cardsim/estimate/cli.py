# SPDX-License-Identifier: Apache-2.0
"""``heddle estimate``: what a model of any shape costs on a card, in seconds instead of hours."""

import dataclasses
from typing import Annotated

import typer

from heddle.card import parse_cards
from heddle.cli import benching, common
from heddle.errors import UserError
from heddle.options import Options
from rtl_gen.spec.config import CONFIGS, CardConfig

from ..rtl.timing import Timing
from .estimate import estimate as costs

app = typer.Typer(add_completion=False, rich_markup_mode=None,
                  context_settings={"help_option_names": ["-h", "--help"]})


def _config(cards: str) -> CardConfig:
    """The configuration of ``config*count``, or :class:`UserError`."""
    if ":" in cards:
        raise UserError(f"cards must be given without a backend, as in u280, not {cards!r}")
    try:
        spec = parse_cards(f"estimate:{cards}")
    except ValueError as error:
        said = str(error).replace("backend:config*count, as in sim:tiny*2",
                                  "config*count, as in u280*4")
        raise UserError(said.replace("estimate:", "")) from None
    return spec.config


@app.command()
def estimate(
    command: typer.Context,
    cards: Annotated[str, typer.Option(
        help="Configuration of the card, as in u280, or of a ring, as in u280*4.",
        autocompletion=lambda: list(CONFIGS))] = "u280",
    shape: benching.ShapeName = "gpt2-345m",
    pattern: benching.Pattern = "dense",
    activation: common.Activation = "a16",
    cache: common.Cache = "int16",
    split: common.Split = "auto",
    context: benching.Context = None,
    prompt: benching.Prompt = None,
    new: benching.New = 1,
    batch: benching.Batch = 1,
    spread: benching.Spread = 0,
    clock: benching.Clock = None,
    latency: benching.Latency = None,
    layers: benching.Layers = None,
    full: benching.Full = False,
    json: common.Json = None,
) -> None:
    """Estimate what a model of any shape costs on a card, within 3 % of its simulation.

    Example: heddle estimate --cards u280 --shape gpt2-1.5b --pattern 2:4 --context 512
    """
    config = _config(cards)
    try:
        timing = Timing(clock_mhz=clock)
        if latency is not None:
            timing = dataclasses.replace(timing, latency_ns=latency)
    except ValueError as error:
        raise UserError(str(error)) from None
    with common.ERR.status("estimating"):
        found = costs(
            config, benching.taken(shape, layers), timing=timing,
            options=Options(activation=activation, cache=cache, pattern=pattern,
                        split=split),
            workload=benching.workload(context, prompt, new, batch, full, layers, spread))
    common.write_json(json, {**found, "command": benching.command_line(command)})
    benching.figures(found)


def main(arguments: list[str] | None = None) -> None:
    """Entry point; ``arguments`` without the program's name."""
    app(arguments, prog_name="heddle estimate", standalone_mode=False)
