# SPDX-License-Identifier: Apache-2.0
"""``heddle estimate``: what a model of any shape costs on a card, in seconds instead of hours."""

import dataclasses
from typing import Annotated

import typer

from heddle.card import parse_cards
from heddle.cli import common
from heddle.cli.benching import CONTEXT, command_line, figures, taken, workload
from heddle.errors import UserError
from heddle.options import Options
from heddle.shapes import SHAPES
from rtl_gen.spec.config import CardConfig

from ..rtl.timing import Timing
from .estimate import estimate as costs

app = typer.Typer(add_completion=False)


def _config(cards: str) -> CardConfig:
    """The configuration of ``config*count``, or :class:`UserError`."""
    if ":" in cards:
        raise UserError(f"cards must be given without a backend, as in u280, not {cards!r}")
    try:
        spec = parse_cards(f"estimate:{cards}")
    except ValueError as error:
        raise UserError(str(error).replace("backend:config*count, as in sim:tiny*2",
                                           "config, as in u280").replace("estimate:", "")) from None
    if spec.count > 1:
        raise UserError(f"cards must be one, as in {spec.config.name}, not {spec.count}: cards in "
                        "a ring are not built yet")
    return spec.config


@app.command()
def estimate(
    command: typer.Context,
    cards: Annotated[str, typer.Option(
        help="Configuration of the card, as in u280.")] = "u280",
    shape: Annotated[str, typer.Option(
        help=f"{', '.join(SHAPES)}, or layers:width:vocabulary.")] = "gpt2-345m",
    pattern: Annotated[str, typer.Option(
        help="N:M pattern of the layers' weights, as in 2:4, or dense.")] = "dense",
    activation: common.Activation = "a16",
    cache: common.Cache = "int16",
    context: Annotated[int | None, typer.Option(
        help="Positions that are in memory before the first token [default: "
             f"{CONTEXT}, with a prompt 0].")] = None,
    prompt: Annotated[int | None, typer.Option(
        help="Tokens of a prompt, of which the first new token comes.")] = None,
    new: Annotated[int, typer.Option(help="Tokens to make, of each sequence.")] = 1,
    batch: Annotated[int, typer.Option(help="Independent sequences, side by side.")] = 1,
    spread: Annotated[int, typer.Option(
        help="Positions by which each sequence is shorter than the one before.")] = 0,
    clock: Annotated[float | None, typer.Option(
        metavar="MHZ", help="Clock of the card [default: the configuration's].")] = None,
    latency: Annotated[float | None, typer.Option(
        metavar="NS", help="Latency of memory reads [default: the model's].")] = None,
    layers: Annotated[int | None, typer.Option(
        help="The first layers alone, without the LM head.")] = None,
    full: Annotated[bool, typer.Option(
        "--full", help="Whole steps, LM head and sampling included; the default "
                       "without --layers.")] = False,
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
            config, taken(shape, layers), timing=timing,
            options=Options(activation=activation, cache=cache, pattern=pattern),
            workload=workload(context, prompt, new, batch, full, layers, spread))
    common.write_json(json, {**found, "command": command_line(command)})
    figures(found)


def main(arguments: list[str] | None = None) -> None:
    """Entry point; ``arguments`` without the program's name."""
    app(arguments, prog_name="heddle estimate", standalone_mode=False)
