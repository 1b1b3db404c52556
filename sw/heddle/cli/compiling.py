# SPDX-License-Identifier: Apache-2.0
"""``heddle compile`` and ``heddle disasm``."""

import dataclasses
import pathlib
from typing import Annotated

import typer

from rtl_gen.spec.isa import COUNTERS, Register

from ..check import check
from ..checkpoint import Checkpoint
from ..choose import alternatives, split_name
from ..compile import DECODE, Compiler
from ..errors import UserError
from ..explain import explain as explain_
from ..listing import listing, words
from ..model import prepare
from ..options import Options
from ..parts import SILENT, first_pass
from . import common
from .common import OUT

#: What ``compile`` writes.
PROGRAM, LISTING, LAYOUT = "program.bin", "program.txt", "layout.json"


def compile_(
    model: common.ModelFolder,
    output: Annotated[pathlib.Path | None, typer.Option(
        "-o", "--output", metavar="DIR",
        help=f"Write {PROGRAM}, {LISTING} and {LAYOUT} to this folder.")] = None,
    cards: common.Cards = "sim:tiny",
    candidates: Annotated[int, typer.Option(help="Best tokens in every result.")] = 0,
    logits: Annotated[bool, typer.Option("--logits", help="Write all logits to memory.")] = False,
    explain: Annotated[bool, typer.Option(
        "--explain", help="Say what each card of a ring holds and sends.")] = False,
    pattern: common.Pattern = None,
    activation: common.Activation = "a16",
    cache: common.Cache = "int16",
    context: common.Context = None,
    split: common.Split = "auto",
    json: common.Json = None,
) -> None:
    """Compile the program of a decode step, check it for races and say what it needs.

    Example: heddle compile sw/models/shakespeare-gpt2 --cards sim:u280 -o build/program

    Example: heddle compile sw/models/shakespeare-gpt2 --cards sim:u280*4 --explain
    """
    options = Options(activation=activation, cache=cache, pattern=pattern, context=context,
                      split=split)
    placed, _ = prepare(Checkpoint(model), cards, options)
    layout = placed[0]
    if not 0 <= candidates <= layout.config.top_k:
        raise UserError(f"candidates must be in 0..{layout.config.top_k} on {layout.config.name}, "
                        f"not {candidates}")
    position, programs, executed = layout.context - 1, [], []
    for part in placed:
        programs.append(Compiler(part, candidates=candidates, store_logits=logits).program())
        executed.append(check(part.config, programs[-1].instructions, {
            **first_pass(part, DECODE, [position]), Register.LEFT: 1, SILENT: 1}))
    program, checked = programs[0], executed[0]
    cards_ = [explain_(part, each) for part, each in zip(placed, programs, strict=True)]
    size = layout.memory.used * layout.config.beat_bytes
    used = {number for _, fields in program.instructions for number in range(COUNTERS)
            if fields["wait"] >> number & 1}
    found = {
        "config": layout.config.name, "instructions": len(program), "counters": len(used),
        "instructions_per_token": checked - 1, "context": layout.context,
        "pattern": layout.pattern.name, "bytes_per_channel": size,
        "memory": dataclasses.asdict(layout.memory), "scratch": dataclasses.asdict(layout.scratch),
        "planes": dataclasses.asdict(layout.planes), "cards": cards_,
        "split": split_name(layout.parts.whole) if len(placed) > 1 else None}
    OUT.print(f"{len(program)} instructions, {checked - 1} a token, {len(used)} counters, "
              f"no races; {size / 2**20:.1f} MB of each of {layout.config.channels} channels")
    if explain:
        OUT.print()
        if layout.config.cards > 1:
            OUT.print(common.table(
                ("split, cycles", "a layer", "its waits", "LM head", "a token", ""),
                [(split_name(each.whole), *(f"{cycles:,.0f}" for cycles in (
                    each.layer, each.waits, each.head, each.total)),
                  ("chosen" if options.whole is None else "given")
                  if each.whole == layout.parts.whole else "") for each in alternatives(
                      layout.config, layout.shape, options, layout.pattern)]))
            OUT.print()
        OUT.print(common.table(
            ("card", "heads", "out", "up", "down", "vocabulary rows", "MB", "sends back",
             "sends on"),
            [(str(card["card"]), *(f"{card[part][0]}–{card[part][1] - 1}"
                                   for part in ("heads", "out", "up", "down")),
              f"{card['vocabulary']:,}", f"{card['megabytes']:,.1f}",
              *(f"{card['sends'][side]:,} B" for side in ("previous", "next")))
             for card in cards_]))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for number, each in enumerate(programs):
            # Of a ring, those of the other cards lie beside the first one's.
            folder = output / f"card{number}" if number else output
            folder.mkdir(exist_ok=True)
            (folder / PROGRAM).write_bytes(each.image())
            (folder / LISTING).write_text("\n".join(listing(each)) + "\n", encoding="utf-8")
        common.write_json(output / LAYOUT, found)
    common.write_json(json, found)


def disasm(
    program: Annotated[pathlib.Path, typer.Argument(metavar="FILE", help="A program's image.")],
) -> None:
    """List the instructions of a program.

    Example: heddle disasm build/program/program.bin
    """
    try:
        data = program.read_bytes()
    except OSError as error:
        raise UserError(f"{program} cannot be read: {error.strerror}") from None
    for line in listing(words(data)):
        OUT.print(line, markup=False)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("compile")(compile_)
    app.command()(disasm)
