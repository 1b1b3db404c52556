# SPDX-License-Identifier: Apache-2.0
"""Commands of other parts: entry points of the group ``heddle.tools``.

An entry point is a function that takes the arguments after the command's name as a list, and ends
with :class:`SystemExit` or returns an exit status.  If its module has a Typer application ``app``,
a shell can complete the command's options too.
"""

import importlib
import importlib.metadata
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

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


def _class(point: importlib.metadata.EntryPoint) -> type[TyperCommand]:
    """A command that shows a shell the options of the tool, which it has none of itself."""
    class Tool(TyperCommand):
        def make_context(self, info_name: str | None, args: list[str], parent: Any = None,
                         **extra: Any) -> Any:
            make = super().make_context
            # Only a shell that completes words has them parsed without carrying them out.
            if extra.get("resilient_parsing"):
                app = getattr(importlib.import_module(point.module), "app", None)
                if isinstance(app, typer.Typer):
                    make = get_command(app).make_context
            return make(info_name, args, parent, **extra)

    return Tool


def add_to(app: typer.Typer) -> None:
    """Add a command for each tool; it reads its own options, --help included."""
    for point in sorted(importlib.metadata.entry_points(group=GROUP)):
        app.command(point.name, cls=_class(point), add_help_option=False, context_settings={
            "allow_extra_args": True, "ignore_unknown_options": True})(_command(point))
