# SPDX-License-Identifier: Apache-2.0
"""``heddle rtl``: Verilog of a card or of one unit."""

import json
import pathlib
import re
import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from amaranth.lib import wiring
from rich.console import Console
from rich.table import Table

from . import emit, pins, units
from .spec import config as configs
from .spec.config import CardConfig, known
from .standalone import Standalone
from .vitis.board import Board, boards, find

app = typer.Typer(add_completion=False, rich_markup_mode=None,
                  context_settings={"help_option_names": ["-h", "--help"]})


def generate(unit: str, config: str, settings: dict[str, str]) -> dict[str, str]:
    """Verilog by module name, the top first; ``unit`` "card" is the whole card."""
    top, component = make(unit, config, settings)
    return emit.convert(component, top, clocked=True)


def make(unit: str, config: str, settings: dict[str, str], commit: int = 0
         ) -> tuple[str, wiring.Component]:
    """Module name and component of the card or of a unit, with the pins that it has on its own."""
    top = module(unit, config, settings)
    if unit == "card":
        from .card import Card
        return top, Card(units.configure(configs.find(config), settings), commit=commit)
    return top, Standalone(units.build(unit, config, settings))


#: What is written beside every unit's modules.
OURS = ("waivers.vlt", "files.f", "unit.json")


def module(unit: str, config: str, settings: dict[str, str]) -> str:
    """Name of the module of the card or of a unit."""
    if unit == "card":
        unit = units.configure(configs.find(config), settings).name
    return f"heddle_{unit}"


def write(texts: dict[str, str], folder: pathlib.Path,
          described: dict[str, Any]) -> list[pathlib.Path]:
    """Write the modules, the list of their files, the lint waivers and what the unit is."""
    paths = emit.write(texts, folder)
    waivers = folder / "waivers.vlt"
    waivers.write_text("`verilator_config\n" + "".join(
        f"lint_off -rule {rule}\n" for rule in emit.WAIVED))
    files = folder / "files.f"
    files.write_text("".join(f"{path.name}\n" for path in paths))
    about = folder / "unit.json"
    about.write_text(json.dumps({"top": next(iter(texts))} | described, indent=1) + "\n")
    return [*paths, files, waivers, about]


def _told(path: pathlib.Path, key: str) -> str | None:
    """A word of a file that an earlier run wrote; None if there is none, or it is another file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, str) else None


def check_folder(folder: pathlib.Path, top: str, board: Board | None) -> None:
    """:class:`ValueError` if files of another card or unit would stay among the new ones."""
    other = _told(folder / "unit.json", "top")
    if other is not None and other != top:
        raise ValueError(f"-o must be a new folder or one of {top}, not {folder}, which has "
                         f"{other}")
    other = _told(folder / "identity.json", "board")
    if other is not None and (board is None or other != board.name):
        raise ValueError("-o must be a new folder or one of the same board, not "
                         f"{folder}, which is for {other}")


def check_files(folder: pathlib.Path, names: Iterable[str]) -> None:
    """:class:`ValueError` if a file would be overwritten in a folder that no earlier run wrote."""
    if _told(folder / "unit.json", "top") is None:
        for name in sorted(names):
            if (folder / name).exists():
                raise ValueError(f"-o must be a folder without files of these names, or one that "
                                 f"heddle rtl wrote, not {folder}, which has a {name}")


def check_file(path: pathlib.Path | None) -> None:
    """:class:`ValueError` if a file for machines has no folder, found out before the work."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(f"--json must be a file that can be written, not {path}")


def parse_commit(text: str) -> int:
    """The first 32 bits of a commit, from eight or more hexadecimal digits."""
    if not re.fullmatch(r"[0-9a-fA-F]{8,}", text):
        raise ValueError(f"the commit must be eight hexadecimal digits or more, not {text!r}")
    return int(text[:8], 16)


def board_files(board: Board, config: CardConfig, modules: list[str], commit: int
                ) -> dict[str, str]:
    """What a board's bitstream is built with beside its Verilog, by name."""
    from .vitis import folder as vitis  # imports the whole card

    return vitis.texts(config, board, modules, commit=commit)


@app.command()
def rtl(
    output: Annotated[pathlib.Path | None, typer.Option(
        "-o", "--output", help="Folder to write to.")] = None,
    config: Annotated[str | None, typer.Option(
        help=f"One of {', '.join(configs.CONFIGS)} [default: tiny; u280 for a board].",
        autocompletion=lambda: list(configs.CONFIGS))] = None,
    unit: Annotated[str, typer.Option(
        help="The whole card, or one unit (see --list).",
        autocompletion=lambda: ["card", *units.UNITS])] = "card",
    settings: Annotated[list[str] | None, typer.Option(
        "--set", metavar="NAME=VALUE",
        help="Change a parameter; may be given several times.")] = None,
    board: Annotated[str | None, typer.Option(
        help=f"Add what makes a bitstream of the card: {', '.join(boards())}, or a folder "
             "with board.json.")] = None,
    commit: Annotated[str | None, typer.Option(
        metavar="DIGITS", help="Commit that the card is to show in its status record.")] = None,
    dsp48: Annotated[bool | None, typer.Option(
        "--dsp48/--no-dsp48", help="Multipliers as DSP48E2 of UltraScale+, two products in each "
                                   "[default: for a board].")] = None,
    show: Annotated[bool, typer.Option(
        "--list", help="List the units and their parameters.")] = False,
    json_file: Annotated[pathlib.Path | None, typer.Option(
        "--json", help="Write what was generated to this file.")] = None,
) -> None:
    """Generate Verilog of a card or of one unit.

    Example: heddle rtl --unit softmax --set lanes=16 -o build/softmax

    Example: heddle rtl --board u280 -o build/u280
    """
    console = Console(stderr=True)
    if show:
        table = Table("unit", "parameters", "what it is")
        table.add_row("card", "those of a card configuration", "The whole card.")
        for name, entry in units.UNITS.items():
            parameters = "those of a card configuration" if entry.parameters is None else ", ".join(
                f"{k}={v}" for k, v in entry.parameters.items())
            table.add_row(name, parameters, entry.doc)
        Console().print(table)
        return
    try:
        if output is None:
            raise ValueError("the folder to write to must be given with -o, as in -o build/card")
        if output.exists() and not output.is_dir():
            raise ValueError(f"-o must be a folder, not the file {output}")
        if (board or commit) and unit != "card":
            raise ValueError(f"--board and --commit must be given with the whole card, not with "
                             f"the unit {unit}")
        check_file(json_file)
        start = time.monotonic()
        config = config or ("u280" if board else "tiny")
        chosen = units.parse_settings(settings or [])
        shown = parse_commit(commit) if commit else 0
        on, what = None, f"{config} card" if unit == "card" else unit
        if board:
            on = find(board)
            on.check(units.configure(configs.find(config), chosen))
            what += f" for {on.title}"
        check_folder(output, module(unit, config, chosen), on)
        with console.status(f"generating {what}"):
            top, component = make(unit, config, chosen, shown)
            texts = emit.convert(component, top, clocked=True,
                                 dsp48=bool(board) if dsp48 is None else dsp48)
        beside = {f"{top}.veo": pins.template(component, top)} | (
            {} if on is None else board_files(on, component.config, list(texts), shown))
        check_files(output, [*(f"{name}.v" for name in texts), *OURS, *beside])
        paths = write(texts, output, units.describe(unit, config, chosen))
        for name, text in beside.items():
            paths.append(output / name)
            paths[-1].write_text(text, encoding="utf-8")
        if on is not None and not known(component.config):
            console.print("heddle rtl: heddle does not know this configuration, and would "
                          f"refuse the card: {output / 'README.md'} says how to add it",
                          style="yellow", markup=False, highlight=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        console.print(f"heddle rtl: {error}", style="red", markup=False,
                      highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
    seconds = time.monotonic() - start
    lines = sum(text.count("\n") for text in texts.values())
    Console().print(f"{what}: {len(texts)} modules, {lines} lines in {output} "
                    f"({seconds:.1f} s); top module {top}", highlight=False, soft_wrap=True)
    if json_file is not None:
        json_file.write_text(json.dumps({
            "unit": unit, "config": config, "top": top, "modules": list(texts),
            "lines": lines, "seconds": seconds, "files": [str(path) for path in paths]}, indent=1))


def main(arguments: list[str] | None = None) -> None:
    """Entry point; ``arguments`` without the program's name."""
    app(arguments, prog_name="heddle rtl", standalone_mode=False)
