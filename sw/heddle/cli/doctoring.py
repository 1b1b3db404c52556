# SPDX-License-Identifier: Apache-2.0
"""``heddle doctor``: what of the installation works, and how to get what does not."""

import dataclasses
from typing import Annotated

import typer

from ..doctor import Finding, State, checks, examine
from ..errors import RunError
from . import common
from .common import ERR, OUT

#: Colours of the states on a terminal.
STYLES = {State.OK: "green", State.MISSING: "yellow", State.FAILS: "bold red",
          State.UNTRIED: "yellow"}


def _show(found: list[Finding]) -> None:
    """Print a table, and below it how to get what is not ok."""
    table = common.table(("for", "what", "state", "found"), [], right=4)
    part = ""
    for one in found:
        table.add_row(one.part if one.part != part else "", one.name,
                      f"[{STYLES[one.state]}]{one.state}[/]", one.detail.replace("[", "\\["))
        part = one.part
    OUT.print(table)
    lacking = [one for one in found if one.state != State.OK]
    if lacking:
        OUT.print("\nHow to get the rest:")
    for one in lacking:
        OUT.print(f"  {one.name}: {one.how}", markup=False)


def doctor(
    quick: Annotated[bool, typer.Option(
        "--quick", help="Leave out the Verilated card, which takes minutes to compile the first "
                        "time.")] = False,
    json: common.Json = None,
) -> None:
    """Try everything that Heddle needs, and say how to get what is missing.

    The exit status is 0 if the core works: models can be run on the functional card.

    Example: heddle doctor --json doctor.json
    """
    found = []
    with ERR.status("looking") as status:
        for one in examine(checks(compile_card=not quick),
                           say=lambda name: status.update(f"trying {name}")):
            found.append(one)
    lost = [one.name for one in found if one.essential and one.state != State.OK]
    common.write_json(json, {"works": not lost,
                             "checks": [dataclasses.asdict(one) for one in found]})
    _show(found)
    if lost:
        raise RunError(f"the core does not work: {', '.join(lost)}; see above")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)
