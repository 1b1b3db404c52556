# SPDX-License-Identifier: Apache-2.0
"""``heddle trace``: where the cycles of a run go."""

import dataclasses
import pathlib
from typing import Annotated, Any

import typer

from ..bench import Meter
from ..errors import UserError
from ..layout import Layout
from ..measure import REFERENCE, Bench
from ..options import Options
from ..report import costs
from ..runtime import Runtime
from ..shapes import SHAPES
from ..tracing import Account, Recorder, Timeline, Wait, account
from ..tracing.chrome import SAMPLE, events, write
from ..tracing.figure import Point, draw
from ..tracing.labels import labels
from . import common
from .benching import taken, workload
from .common import ERR, OUT

#: Rows of the tables of waits.
ROWS = 16


class Watch:
    """Puts a recorder around the card of a runtime, as close to it as possible.

    Attributes
    ----------
    runtime : Runtime
    recorder : Recorder
    """

    def __call__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        card = runtime.cards[0]
        if isinstance(card, Meter):
            card.card = self.recorder = Recorder(card.card)
        else:
            runtime.cards[0] = self.recorder = Recorder(card)


def trace(
    model: Annotated[pathlib.Path | None, typer.Argument(
        metavar="[MODEL]", help="Model folder, for a run on its weights with --prompt; "
                                "without it, a random model of --shape.")] = None,
    cards: common.Cards = "rtl:u280",
    shape: Annotated[str, typer.Option(
        help=f"{', '.join(SHAPES)}, or layers:width:vocabulary.")] = "gpt2-345m",
    pattern: common.Pattern = None,
    activation: common.Activation = "a16",
    cache: common.Cache = "int16",
    split: common.Split = "auto",
    context: Annotated[int, typer.Option(
        help="Positions that are in memory before the first token of a random model.")] = 128,
    prompt: Annotated[str | None, typer.Option(
        help="Text that MODEL goes on from; tokens of the prompt of a random model.")] = None,
    new: Annotated[int, typer.Option(help="Tokens to make.")] = 1,
    batch: Annotated[int, typer.Option(help="Sequences.")] = 1,
    clock: Annotated[float | None, typer.Option(
        metavar="MHZ", help="Clock of the card [default: the configuration's].")] = None,
    latency: Annotated[float | None, typer.Option(
        metavar="NS", help="Latency of memory reads [default: the model's].")] = None,
    layers: Annotated[int | None, typer.Option(
        help="The first layers alone, without the LM head.")] = None,
    full: Annotated[bool, typer.Option(
        "--full", help="Whole steps, LM head and sampling included; the default "
                       "without --layers.")] = False,
    seed: Annotated[int, typer.Option(help="Of weights, K, V and tokens.")] = 0,
    sample: Annotated[int, typer.Option(help="Cycles of a sample of the counters.")] = SAMPLE,
    waves: Annotated[pathlib.Path | None, typer.Option(
        metavar="FILE", help="Write a waveform (VCD: slow and large).")] = None,
    output: Annotated[pathlib.Path | None, typer.Option(
        "-o", "--output", metavar="DIR",
        help="Write trace.json.gz, account.json and trace.png into this folder.")] = None,
    summary: Annotated[bool, typer.Option(
        "--summary", help="Tables alone; nothing is written.")] = False,
) -> None:
    """Show where the cycles of a run go.

    Example: heddle trace --cards rtl:tiny --shape 2:128:997 --context 20 -o build/trace
    """
    if (output is None) == (not summary):
        raise UserError("one of --output and --summary must be given, not "
                        f"{'both' if summary else 'none'}")
    if sample < 1:
        raise UserError(f"sample must be at least 1 cycle, not {sample}")
    if cards.partition(":")[0] == REFERENCE:
        raise UserError(f"cards must be of a kind that has a clock, as rtl:tiny, not {cards}: it "
                        "counts no cycles")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    given = {"clock_mhz": clock, "latency_ns": latency, "waves": waves and str(waves)}
    how: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    how["events"] = True
    options = Options(activation=activation, cache=cache, pattern=pattern, split=split)
    watch = Watch()
    if model is None:
        work = workload(context, _count(prompt), new, batch, full, layers)
        figures = _random(watch, Bench(
            cards=cards, shape=taken(shape, layers), options=options, workload=work, seed=seed,
            card_options=how))
        what = f"{shape}, {context} positions" + (f", {layers} layers" if layers else "")
    else:
        if prompt is None:
            raise UserError("a prompt must be given with a model")
        figures = _model(watch, model, cards, options, prompt, new, how)
        what = model.resolve().name
    layout, recorder = watch.runtime.layout, watch.recorder
    notes = watch.runtime.notes()
    # The run itself is the largest of its commands; one that loads a program may take longer.
    recording = max(recorder.recordings, key=lambda found: found.status.counters["instructions"])
    timeline = Timeline(recording)
    names = labels(recording.program, layout)
    layer, whole = (account(timeline, names, *part)
                    for part in (timeline.layers(), (0, timeline.cycles, 1)))
    _tables(layer, whole)
    if output is None:
        return
    title = (f"{what}, {layout.pattern.name} {activation.upper()}, on {cards} at "
             f"{figures['clock_mhz']:g} MHz")
    write(output / "trace.json.gz",
          events(timeline, recording, names, notes, figures["clock_mhz"], sample),
          {"run": title, "cycles": timeline.cycles, **recording.status.counters})
    common.write_json(output / "account.json", {
        "run": title, **figures, "layer": _plain(layer), "whole": _plain(whole)})
    part = cards if layers is None else f"{cards}, {layers} layers alone"
    draw(output / "trace.png", _point(recorder, layout, figures, part), layer, title)
    ERR.print(f"{output / 'trace.json.gz'} is for https://ui.perfetto.dev", style="dim")


def _count(prompt: str | None) -> int | None:
    """The tokens of a random model's prompt."""
    if prompt is None or prompt.isdecimal():
        return None if prompt is None else int(prompt)
    raise UserError(f"prompt must be a number of tokens, or a text with a model, not {prompt!r}")


def _random(watch: Watch, bench: Bench) -> dict[str, Any]:
    """Run what ``heddle bench`` runs."""
    with common.progress("loading") as show:
        return bench.run(progress=show, watch=watch)


def _model(watch: Watch, folder: pathlib.Path, cards: str, options: Options, prompt: str, new: int,
           how: dict[str, Any]) -> dict[str, Any]:
    """Run what ``heddle run`` runs."""
    with common.loaded(folder, cards, pattern=options.pattern, activation=options.activation,
                       cache=options.cache, **how) as model:
        watch(model.runtime)
        made = model.generate(prompt, max_new_tokens=new)
        return {"text": made.text, "token_ids": list(made.token_ids), **costs(model),
                "clock_mhz": watch.recorder.clock_mhz}


def _tables(layer: Account, whole: Account) -> None:
    """Print who had the cycles."""
    def share(cycles: float, of: Account) -> list[str]:
        return [f"{cycles:,.1f}", f"{100 * cycles / of.cycles:.1f} %"]

    mean = f", mean of {layer.layers}" if layer.layers > 1 else ""
    for name, found in ((f"one layer{mean}", layer), ("all", whole)):
        OUT.print(f"{name}: {found.cycles:,.0f} cycles")
        OUT.print(common.table(("memory moved beats of", "cycles", "share"), [
            [what, *share(cycles, found)] for what, cycles in found.moved.items()]))
        for title, waits in (("memory moved none", found.lost), ("the engine waited",
                                                                found.waited)):
            OUT.print(common.table((title, "product", "for", "cycles", "share"), [
                [wait.cause, wait.what, wait.on, *share(cycles, found)]
                for wait, cycles in list(waits.items())[:ROWS]], right=3))
        OUT.print()


def _plain(found: Account) -> dict[str, Any]:
    """An account for machines."""
    def rows(waits: dict[Wait, float]) -> list[dict[str, Any]]:
        return [{**dataclasses.asdict(wait), "cycles": cycles} for wait, cycles in waits.items()]

    return {"start": found.start, "stop": found.stop, "layers": found.layers,
            "cycles": found.cycles, "moved": found.moved, "lost": rows(found.lost),
            "fired": found.fired, "waited": rows(found.waited)}


def _point(recorder: Recorder, layout: Layout, figures: dict[str, Any], name: str) -> Point:
    """This card on the roofline."""
    config = layout.config
    # Multiplications with a weight are spread over all columns when every one of them works.
    busiest = figures["tokens_per_second_card"] / figures["mac_utilisation"]
    return Point(
        name=f"this card ({name}): {figures['tokens_per_second_card']:,.0f} tokens/s",
        tokens_per_second=figures["tokens_per_second_card"],
        bytes_per_token=figures["hbm_bytes_per_token"],
        bandwidth_gbps=recorder.channel_gbps * config.channels,
        nominal_gbps=recorder.nominal_gbps * config.channels,
        compute_tokens_per_second=busiest)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(trace)
