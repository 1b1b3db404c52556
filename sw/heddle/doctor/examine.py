# SPDX-License-Identifier: Apache-2.0
"""One thing that an installation needs, and how it is looked at."""

import contextlib
import dataclasses
import enum
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence

#: Seconds after which a program that is tried is taken to hang.
PATIENCE = 120.0


class State(enum.StrEnum):
    """What became of a check."""

    OK = "ok"
    #: It is not there.
    MISSING = "missing"
    #: It is there and does not work.
    FAILS = "fails"
    #: It cannot be tried, because something that it needs is not ok.
    UNTRIED = "not tried"


class Missing(Exception):
    """What is looked for is not there; the message says where it was looked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Something that an installation may need.

    Attributes
    ----------
    name : str
    part : str
        What of Heddle needs it.
    how : str
        One sentence on how to get it.
    attempt : callable
        Tries it and returns what was found; raises :class:`Missing`, or anything else if it is
        there and does not work.
    essential : bool
        Nothing works without it.
    needs : tuple of str
        Names of earlier checks without which it cannot be tried.
    """

    name: str
    part: str
    how: str
    attempt: Callable[[], str]
    essential: bool = False
    needs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found."""

    name: str
    part: str
    essential: bool
    state: State
    detail: str
    how: str


def examine(checks: Sequence[Check], say: Callable[[str], None] = lambda text: None
            ) -> Iterator[Finding]:
    """Carry out checks one after another; whatever is wrong with one, the others are tried too.

    Parameters
    ----------
    checks : sequence of Check
    say : callable
        Is told the name of what is tried.
    """
    states: dict[str, State] = {}
    for check in checks:
        absent = [name for name in check.needs if states.get(name) != State.OK]
        say(check.name)
        try:
            if absent:
                state, detail = State.UNTRIED, f"needs {', '.join(absent)}"
            else:
                state, detail = State.OK, check.attempt()
        except Missing as error:
            state, detail = State.MISSING, str(error)
        except Exception as error:
            state = State.FAILS
            detail = f"{error}" if str(error).strip() else type(error).__name__
        states[check.name] = state
        yield Finding(name=check.name, part=check.part, essential=check.essential, state=state,
                      detail=" ".join(detail.split()), how=check.how)


def output(command: Sequence[str], *, environment: Mapping[str, str] | None = None,
           given: str = "", lines: int = 1, seconds: float = PATIENCE) -> str:
    """Standard output of a program that must end well.

    Parameters
    ----------
    command : sequence of str
    environment : mapping, optional
        In place of this process's.
    given : str
        Its standard input.
    lines : int
        Of what it wrote last, so many say what is wrong.
    seconds : float
        After which it is ended.

    Raises
    ------
    Missing
        The program is not in the PATH.
    RuntimeError
        It failed or did not end; the message has the last lines that it wrote.
    """
    name = pathlib.Path(command[0]).name
    variables = os.environ if environment is None else environment
    try:
        done = subprocess.run(command, input=given, env=variables, text=True, check=False,
                              capture_output=True, timeout=seconds, errors="replace")
    except FileNotFoundError:
        raise Missing(f"{name} is not in the PATH") from None
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{name} did not end within {seconds:g} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-lines:]
        how = f"status {done.returncode}" if done.returncode > 0 else \
            f"signal {-done.returncode}"
        raise RuntimeError(": ".join([f"{name} ended with {how}", *said]))
    return done.stdout


def first_line(text: str) -> str:
    """The first line that says something."""
    with contextlib.suppress(StopIteration):
        return next(line.strip() for line in text.splitlines() if line.strip())
    raise RuntimeError("it wrote nothing")
