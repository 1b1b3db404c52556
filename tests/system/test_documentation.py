# SPDX-License-Identifier: Apache-2.0
"""What the pages show works: their Python and their commands, as they stand there."""

import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/host.md", "docs/simulators.md", "docs/cli.md", "docs/rtl.md")
#: Commands that other tests or `make demo` run, because they take minutes.
ELSEWHERE = ("heddle demo", "--config u280", "--board u280", "python -m", "heddle doctor",
             "heddle rtl --list")


def blocks(language: str):
    """(page, text) of every fenced block of that language."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for found in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            yield page, found[1]


def commands():
    """Every command of `heddle` in a block without a language."""
    for page, block in blocks(""):
        for line in block.splitlines():
            command = line.partition(" #")[0].strip().removeprefix(".venv/bin/")
            if command.startswith("heddle ") and not any(part in line for part in ELSEWHERE):
                yield pytest.param(command, id=f"{page}: {command}")


@pytest.mark.parametrize("page", dict.fromkeys(page for page, _ in blocks("python")))
def test_python(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for where, code in blocks("python"):
        if where == page:
            exec(code, names)
    assert names


@pytest.mark.xdist_group("documentation")       # later commands read what earlier ones wrote
@pytest.mark.parametrize("command", list(commands()))
def test_command(command):
    words = [str(pathlib.Path(sys.executable).with_name("heddle")), *shlex.split(command)[1:]]
    if "-o" in words:       # what an earlier run wrote is not written over
        shutil.rmtree(ROOT / words[words.index("-o") + 1], ignore_errors=True)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_link_leads_somewhere():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/*.md"),
             *ROOT.glob("sw/*/*.md")]
    dead = [f"{page.relative_to(ROOT)}: {target}" for page in pages
            for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
            if "://" not in target and not (page.parent / target).exists()]
    assert not dead
