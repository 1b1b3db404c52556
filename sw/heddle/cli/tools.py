# SPDX-License-Identifier: Apache-2.0
"""Commands of other parts: entry points of the group ``heddle.tools``.

An entry point is a function that takes the arguments after the command's name as a list, and ends
with :class:`SystemExit` or returns an exit status.
"""

import importlib.metadata
from typing import Any

import typer

from ..errors import UserError

GROUP = "heddle.tools"
#: What commands are for, where the part is not loaded to ask it.
_HELP = {"estimate": "Estimate what a model of any shape costs on a card.",
         "rtl": "Generate Verilog of a card or of one unit."}


def _command(point: importlib.metadata.EntryPoint) -> Any:
    def command(context: typer.Context) -> int:
        try:
            tool = point.load()
        except ImportError as error:
            raise UserError(f"{point.name} must be installed completely: {error}") from None
        try:
            status = tool(list(context.args))
        except SystemExit as end:
            status = end.code
        return status if isinstance(status, int) else int(bool(status))

    command.__doc__ = _HELP.get(point.name, f"See heddle {point.name} --help.") + (
        f"\n\nExample: heddle {point.name} --help")
    return command


def add_to(app: typer.Typer) -> None:
    """Add a command for each tool; it reads its own options, --help included."""
    for point in sorted(importlib.metadata.entry_points(group=GROUP)):
        app.command(point.name, add_help_option=False, context_settings={
            "allow_extra_args": True, "ignore_unknown_options": True})(_command(point))
