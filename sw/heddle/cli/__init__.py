# SPDX-License-Identifier: Apache-2.0
"""The command line: ``heddle COMMAND``."""

import importlib.metadata
import os
import sys
from typing import Annotated

import typer

from rtl_gen.spec import contract

from ..card import CardError
from ..errors import RunError, UserError
from . import (
    benching,
    compiling,
    completing,
    demo,
    doctoring,
    inspecting,
    pruning,
    running,
    scoring,
    serving,
    tools,
    tracing,
)

app = typer.Typer(
    add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
    help="Run language models on FPGA cards, real or simulated.")


def _version(asked: bool) -> None:
    if asked:
        version = importlib.metadata.version("heddle-fpga")
        typer.echo(f"heddle {version}, contract {contract.DIGEST:08x}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option(
        "--version", callback=_version, is_eager=True,
        help="Show the version, and the contract that cards must have, and exit.")] = False,
) -> None:
    pass


for _part in (running, serving, demo, scoring, benching, tracing, pruning, compiling, inspecting,
              doctoring, completing, tools):
    _part.add_to(app)

#: What a wrong command line raises; its class has moved between versions of Typer.
_UsageError = typer.BadParameter.__mro__[1]


def _fail(message: object, status: int) -> int:
    """Print an error as one line; returns ``status``."""
    print("heddle: " + " ".join(str(message).split()), file=sys.stderr)   # noqa: T201
    return status


def run(arguments: list[str] | None = None) -> int:
    """Carry out one command; returns the exit status: 0, 1 for a failed run, 2 for bad input."""
    completing.prepare()
    try:
        # A newcomer types the name alone.
        given = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
        result = app(args=given, prog_name="heddle", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except UserError as error:
        return _fail(error, 2)
    except (CardError, RunError) as error:
        return _fail(error, 1)
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not complain at exit either.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")   # noqa: SIM115
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except MemoryError:
        return _fail("the model needs more memory than there is", 1)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error, 2)
    except Exception as error:
        if isinstance(error, _UsageError):
            return _fail(error.format_message(), 2)    # type: ignore[attr-defined]
        raise


def main() -> None:
    """The script ``heddle``."""
    sys.exit(run())
