# SPDX-License-Identifier: Apache-2.0
"""Shells complete commands, options and values, those of other parts included."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from heddle.shapes import SHAPES
from rtl_gen import units
from rtl_gen.spec.config import CONFIGS

HEDDLE = pathlib.Path(sys.executable).with_name("heddle")

#: Words typed so far, and what a shell offers; bash offers what is behind the last colon.
LINES = {
    "heddle r": ["run", "rtl"],
    "heddle --v": ["--version"],
    "heddle run --c": ["--cards", "--cache", "--context"],
    'heddle run m --prompt "a b" --ac': ["--activation"],
    "heddle run --activation ": ["a16", "a8"],
    "heddle run --cards rtl:": [f"rtl:{name}" for name in CONFIGS],
    "heddle run --cards=rtl:t": ["rtl:tiny"],
    "heddle bench --pattern 1:": ["1:4", "1:8", "1:16"],
    "heddle bench --shape ": list(SHAPES),
    "heddle completion ": ["bash", "zsh", "fish"],
    "heddle rtl --d": ["--dsp48"],
    "heddle rtl --config ": list(CONFIGS),
    "heddle rtl --unit s": [name for name in units.UNITS if name.startswith("s")],
    "heddle estimate --cards u": ["u280", "ulx3s"],
    "heddle estimate --sh": ["--shape"],
    "heddle run ": [],
}
#: Calls the function that bash calls, and prints what it offers.
DRIVER = """source <("$1" completion bash)
COMP_LINE=$2 COMP_POINT=${#2} COMPREPLY=()
_heddle_completion "$1"
(( ${#COMPREPLY[@]} )) && printf '%s\\n' "${COMPREPLY[@]}"
complete -p heddle"""


def script(shell: str) -> str:
    done = subprocess.run([HEDDLE, "completion", shell], capture_output=True, text=True, check=True)
    return done.stdout


def ask(shell: str, line: str, **variables: str) -> str:
    """What Heddle answers a shell, by the variables that the shell's script sets."""
    assert "_HEDDLE_COMPLETE=complete_" in script(shell)
    environment = os.environ | {"_HEDDLE_COMPLETE": f"complete_{shell}",
                                "_TYPER_COMPLETE_ARGS": line, **variables}
    return subprocess.run([HEDDLE], env=environment, capture_output=True, text=True,
                          check=True).stdout


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize(("line", "offered"), LINES.items())
def test_bash(line, offered):
    done = subprocess.run(["bash", "--norc", "-c", DRIVER, "bash", HEDDLE, line],
                          capture_output=True, text=True, check=True)
    *found, specification = done.stdout.splitlines()
    typed = line.rpartition(" ")[2].rpartition("=")[2]
    kept = len(typed) - len(typed.rpartition(":")[2])
    assert found == [value[kept:] for value in offered]
    # Files are offered where nothing else is.
    assert specification == "complete -o default -F _heddle_completion heddle"


@pytest.mark.parametrize("line", ["heddle r", "heddle run --cards rtl:", "heddle rtl --unit s"])
def test_fish(line):
    offered = LINES[line]
    found = ask("fish", line, _TYPER_COMPLETE_FISH_ACTION="get-args")
    assert [text.partition("\t")[0] for text in found.splitlines()] == offered


@pytest.mark.parametrize("line", ["heddle run --c", "heddle rtl --d", "heddle "])
def test_offers_have_their_help_on_one_line(line):
    answers = ask("fish", line, _TYPER_COMPLETE_FISH_ACTION="get-args").splitlines()
    assert answers
    assert all(len(text.split("\t")) == 2 and text.split("\t")[1] for text in answers)


def test_zsh():
    answer = ask("zsh", "heddle run --c")
    assert answer.startswith("_arguments '*: :((\"--cards\":\"Kind of card and configuration")
    assert '\n"--cache":' in answer
    assert '"rtl\\\\:tiny"' in ask("zsh", "heddle run --cards rtl:")
    assert ask("zsh", "heddle run ").strip() == "_files"
    assert script("zsh").lstrip().startswith("#compdef heddle\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_in_the_shell_s_language(shell):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([program, "-n"], input=script(shell), text=True, check=True)


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_itself():
    path = f"{HEDDLE.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["fish", "--no-config", "-c",
         'heddle completion fish | source; complete -C "heddle run --cards rtl:ti"'],
        env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["rtl:tiny"]
