# SPDX-License-Identifier: Apache-2.0
"""``heddle bench``: what a model of a published shape costs on a card."""

import dataclasses
import pathlib
import shlex
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..bench import Workload
from ..errors import UserError
from ..measure import Bench
from ..options import Options
from ..shape import Shape
from ..shapes import SHAPES, find_shape
from . import common
from .common import ERR, OUT, figure
from .completing import choices

#: Positions that are in memory where there is no prompt.
CONTEXT = 128

#: The options of ``heddle bench`` and ``heddle estimate``: what a card does.
ShapeName = Annotated[str, typer.Option(
    help=f"{', '.join(SHAPES)}, or layers:width:vocabulary.", autocompletion=choices(*SHAPES))]
Pattern = Annotated[str, typer.Option(
    help="N:M pattern of the layers' weights, as in 2:4, or dense.",
    autocompletion=common.PATTERNS)]
Context = Annotated[int | None, typer.Option(
    help="Positions that are in memory before the first token [default: "
         f"{CONTEXT}, with a prompt 0].")]
Prompt = Annotated[int | None, typer.Option(
    help="Tokens of a prompt, of which the first new token comes.")]
New = Annotated[int, typer.Option(help="Tokens to make, of each sequence.")]
Batch = Annotated[int, typer.Option(help="Independent sequences, side by side.")]
Spread = Annotated[int, typer.Option(
    help="Positions by which each sequence is shorter than the one before.")]
Clock = Annotated[float | None, typer.Option(
    metavar="MHZ", help="Clock of the card [default: the configuration's].")]
Latency = Annotated[float | None, typer.Option(
    metavar="NS", help="Latency of memory reads [default: the model's].")]
Layers = Annotated[int | None, typer.Option(help="The first layers alone, without the LM head.")]
Full = Annotated[bool, typer.Option(
    "--full", help="Whole steps, LM head and sampling included; the default without --layers.")]


def command_line(context: typer.Context) -> str:
    """The command that was given, without the options that have their defaults."""
    words = ["heddle", str(context.info_name)]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if value is None or value == parameter.default:
            continue
        words.append(parameter.opts[0])
        if value is not True:
            words.append(str(value))
    return shlex.join(words)


def taken(shape: str, layers: int | None) -> Shape:
    """A shape by its name, or its first layers."""
    found = find_shape(shape)
    if layers is None:
        return found
    if not 1 <= layers <= found.layers:
        raise UserError(f"layers must be in 1..{found.layers} for {shape}, not {layers}")
    return dataclasses.replace(found, layers=layers)


def workload(context: int | None, prompt: int | None, new: int, batch: int, full: bool,
             layers: int | None, spread: int = 0) -> Workload:
    """What the options ask for, or :class:`UserError`."""
    if prompt is not None and prompt < 1:
        raise UserError(f"prompt must be at least 1, not {prompt}")
    if context is None:
        context = 0 if prompt else CONTEXT
    return Workload(context=context, prompt=prompt or 0, new=new, batch=batch, spread=spread,
                    full=full or layers is None)


def figures(found: dict[str, Any]) -> None:
    """Print figures for people."""
    def percent(name: str) -> str:
        value = found[name]
        return figure(None if value is None else 100 * value, " %")

    OUT.print(common.table(("figure", "value"), [
        ("cycles a token", figure(found["cycles_per_token"], digits=7)),
        ("clock", figure(found["clock_mhz"], " MHz")),
        ("tokens/s of the card", figure(found["tokens_per_second_card"], digits=5)),
        ("MB read a token", figure(_mega(found["hbm_bytes_per_token"]), digits=5)),
        ("MB useful a token", figure(_mega(found["useful_bytes_per_token"]), digits=5)),
        ("read beats, of all cycles", percent("hbm_read_utilisation")),
        ("useful, of what memory could deliver", percent("hbm_useful_utilisation")),
        ("useful, of the nominal rate", percent("hbm_nominal_utilisation")),
        ("multipliers in use", percent("mac_utilisation")),
        *_prefill(found),
        *_times(found)]))
    if found["stall_cycles"]:
        cycles = found["cycles_total"]
        OUT.print()
        OUT.print(common.table(("the engine waited for", "cycles", "share"), [
            (cause, f"{count:,}", figure(100 * count / cycles, " %", 3))
            for cause, count in (found["stall_cycles"] | _link(found)).items()]))


def _link(found: dict[str, Any]) -> dict[str, int]:
    """Of the card that waited longest for its neighbours: counted among the causes above, too."""
    link = found.get("link") or {"stall_cycles": [0]}
    return {name: max(link[key]) for name, key in (
        ("of these a link", "stall_cycles"), ("and memory idled", "idle_cycles"))
        if any(link.get(key, ()))}


def _times(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows about time: the card's, if it was estimated, or the simulation's."""
    if "milliseconds" in found:
        return [("milliseconds of all", figure(found["milliseconds"], digits=5))]
    return [("simulated cycles/s", figure(found["simulated_cycles_per_second"]))]


def _prefill(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows about a prompt."""
    cycles, passes = found["prefill_cycles"], found["prefill_passes"]
    return [] if not passes else [
        ("passes of the prompt", f"{passes} of {found['prefill_tokens_per_pass']} tokens"),
        ("cycles of one", figure(cycles and cycles / passes, digits=7)),
        ("new tokens/s, prompt included", figure(found["output_tokens_per_second"]))]


def _mega(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def bench(
    command: typer.Context,
    cards: common.Cards = "rtl:u280",
    shape: ShapeName = "gpt2-345m",
    pattern: Pattern = "dense",
    activation: common.Activation = "a16",
    cache: common.Cache = "int16",
    split: common.Split = "auto",
    context: Context = None,
    prompt: Prompt = None,
    new: New = 1,
    batch: Batch = 1,
    spread: Spread = 0,
    clock: Clock = None,
    latency: Latency = None,
    layers: Layers = None,
    full: Full = False,
    seed: Annotated[int, typer.Option(help="Of weights, K, V and tokens.")] = 0,
    waves: Annotated[pathlib.Path | None, typer.Option(
        metavar="FILE", help="Write a waveform (VCD: slow and large).")] = None,
    json: common.Json = None,
) -> None:
    """Measure a random model of a published shape on a card, and check all that it computes.

    Example: heddle bench --cards rtl:tiny --shape 2:128:997 --pattern 2:4 --context 20
    """
    given = {"clock_mhz": clock, "latency_ns": latency, "waves": waves and str(waves)}
    made = Bench(
        cards=cards, shape=taken(shape, layers), seed=seed,
        options=Options(activation=activation, cache=cache, pattern=pattern,
                        split=split),
        workload=workload(context, prompt, new, batch, full, layers, spread),
        card_options={name: value for name, value in given.items() if value is not None})
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=ERR, transient=True, disable=not ERR.is_terminal) as bar:
        task = bar.add_task("starting")
        found = made.run(
            progress=lambda done, total: bar.update(task, description=f"loading {done}/{total}"),
            say=lambda text: bar.update(task, description=text))
    figures(found)
    common.write_json(json, {**found, "command": command_line(command)})
    ERR.print("The results are those of the functional card, bit for bit." if found["equal_to_sim"]
              else "The functional card counts no cycles and has nothing to be compared with.",
              style="dim")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)
