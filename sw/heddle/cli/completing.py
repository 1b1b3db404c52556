# SPDX-License-Identifier: Apache-2.0
"""``heddle completion``: what a shell needs to complete the commands, options and values of Heddle.

The shell calls ``heddle`` again with :data:`VARIABLE` in the environment, and Typer answers.
"""

import os
from collections.abc import Callable
from typing import Annotated

import typer
from typer import completion as protocol

from ..errors import UserError

#: Asks for completions, or for a shell's script.
VARIABLE = "_HEDDLE_COMPLETE"

#: For bash, which breaks words at colons and equals signs: Heddle is given the line, as fish gives
#: it, and of its answers the part that is typed already is cut off.
BASH = r"""
_heddle_completion() {
    local line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##*[[:space:]]}"
    word="${word##*=}"
    mapfile -t COMPREPLY < <(
        _HEDDLE_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
        _TYPER_COMPLETE_ARGS="$line" "$1" 2>/dev/null)
    COMPREPLY=("${COMPREPLY[@]%%$'\t'*}")
    if [[ $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*:}"}"}")
    fi
    [[ ${COMPREPLY[*]} ]] || COMPREPLY=()
}
complete -o default -F _heddle_completion heddle
""".strip()


#: Shells that can complete.
SHELLS = ("bash", "zsh", "fish")


def choices(*values: str) -> Callable[[str], list[str]]:
    """The function that Typer asks for the values of an option."""
    def values_(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return values_


def _register() -> None:
    """Make the shells known; Typer does so itself only for its own options."""
    protocol.completion_init()      # type: ignore[attr-defined]


def prepare() -> None:
    """Have Typer answer if a shell is asking."""
    if VARIABLE in os.environ:
        # An answer is a line: its help must not be broken into several.
        os.environ["COLUMNS"] = "9999"
        _register()


def completion(
    command: typer.Context,
    shell: Annotated[str, typer.Argument(
        help=f"{', '.join(SHELLS)}.", autocompletion=choices(*SHELLS))],
) -> None:
    """Print what makes a shell complete Heddle's commands, options and values.

    bash: heddle completion bash > ~/.local/share/bash-completion/completions/heddle

    zsh: source <(heddle completion zsh), in ~/.zshrc, behind compinit

    fish: heddle completion fish > ~/.config/fish/completions/heddle.fish

    Example: heddle completion bash
    """
    if shell not in SHELLS:
        raise UserError(f"shell must be one of {', '.join(SHELLS)}, not {shell!r}")
    if shell == "bash":
        typer.echo(BASH)
        return
    _register()
    protocol.shell_complete(command.find_root().command, {}, "heddle", VARIABLE, f"source_{shell}")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(completion)
