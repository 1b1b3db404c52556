# SPDX-License-Identifier: Apache-2.0
"""``heddle demo``: the main job from end to end on the small card."""

import importlib.metadata
import pathlib
import sys
import time
from typing import Annotated, Any

import typer

from ..errors import RunError, UserError
from ..listing import listing
from ..report import costs
from . import common
from .common import ERR, OUT, figure
from .tools import GROUP

DEMO = pathlib.Path(__file__).resolve().parents[2] / "models" / "shakespeare-gpt2"
PATTERNS = ("dense", "2:4")
BACKENDS = ("sim", "rtl")


def _generate(config: str, folder: pathlib.Path) -> None:
    """Have the generator write the card's Verilog."""
    points = list(importlib.metadata.entry_points(group=GROUP, name="rtl"))
    if not points:
        raise UserError("the generator must be installed: run make setup")
    try:
        status = points[0].load()(["--config", config, "-o", str(folder)])
    except SystemExit as end:
        status = end.code
    if status:
        raise RunError(f"generating the Verilog of {config} ended with status {status}")


def _run(pattern: str, backend: str, config: str, prompt: str, tokens: int,
         folder: pathlib.Path) -> dict[str, Any]:
    """Generate text on one card, streamed to the terminal; what it was and what it cost."""
    def show(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    OUT.print(f"\n[bold]{pattern} on {backend}:{config}[/bold]")
    start = time.monotonic()
    with common.loaded(DEMO, f"{backend}:{config}", pattern=pattern) as model:
        show(prompt)
        made = common.watched(model.stream(prompt, max_new_tokens=tokens), show)
        show("\n")
        program = folder / f"program-{pattern.replace(':', 'of')}.txt"
        program.write_text("\n".join(listing(model.runtime.program())) + "\n")
        return {"pattern": pattern, "text": made.text, "token_ids": list(made.token_ids),
                "seconds": time.monotonic() - start, "instructions": str(program), **costs(model)}


def demo(
    config: Annotated[str, typer.Option(help="Configuration of the card.")] = "tiny",
    prompt: Annotated[str, typer.Option(help="Text to go on from.")] = "ROMEO.\n",
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to make in each run.")] = 32,
    output: Annotated[pathlib.Path, typer.Option(
        "-o", "--output", help="Folder for Verilog, report and programs.")] = pathlib.Path(
            "build/demo"),
) -> None:
    """Generate a card's Verilog, build it, and have a GPT-2 write text on it, dense and 2:4.

    Example: heddle demo --max-new-tokens 48
    """
    if not DEMO.is_dir():
        raise UserError(f"the demo model must be at {DEMO}: run the demo from a copy of the "
                        "repository")
    with common.loaded(DEMO, f"sim:{config}") as model:      # what is wrong is told at once
        model.request(prompt, max_new_tokens=max_new_tokens)
    output.mkdir(parents=True, exist_ok=True)
    verilog = output / config
    _generate(config, verilog)
    OUT.print("The same program now runs on the functional card (sim) and on the Verilog just "
              "generated (rtl), built by Verilator once.")
    runs = [_run(pattern, backend, config, prompt, max_new_tokens, output)
            for pattern in PATTERNS for backend in BACKENDS]
    report = output / "report.json"
    equal = all(a["token_ids"] == b["token_ids"]
                for a, b in zip(runs[::2], runs[1::2], strict=True))
    common.write_json(report, {"equal": equal, "verilog": str(verilog), "runs": runs})
    OUT.print()
    OUT.print(common.table(
        ("card", "weights", "tokens", "cycles a token", "tokens/s at clock", "HBM reads", "MACs",
         "seconds"),
        [(f"{run['backend']}:{run['config']}", run["pattern"], str(len(run["token_ids"])),
          figure(run["cycles_per_token"], digits=6), figure(run["tokens_per_second_card"]),
          figure(run["hbm_read_utilisation"] and 100 * run["hbm_read_utilisation"], " %"),
          figure(run["mac_utilisation"] and 100 * run["mac_utilisation"], " %"),
          figure(run["seconds"])) for run in runs], right=2))
    OUT.print(f"\nVerilog   {verilog}\nreport    {report}\nprograms  {runs[0]['instructions']}, "
              f"{runs[2]['instructions']}")
    if not equal:
        raise RunError("the tokens of sim and rtl must be equal, but are not; see the report")
    ERR.print("The tokens of sim and rtl are equal.", style="bold green")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)
