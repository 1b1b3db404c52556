# SPDX-License-Identifier: Apache-2.0
"""What the pages show works: their Python and their commands, as they stand there."""

import importlib.util
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from typer.main import get_command

import heddle
from heddle import cli
from tests.pages import ROOT, blocks, pages

#: The scripts that write these pages run what they show; tests/system/test_tutorial.py runs those.
#: tests/serve runs the server's.
APART = ("docs/serve.md", "docs/benchmarks.md", "docs/scaling.md", "docs/resources.md",
         "docs/tutorial/", "docs/how-to/")
PAGES = [page for page in pages() if not page.startswith(APART)]
#: Parts of a generator, which are no programs.
FRAGMENTS = ("docs/architecture.md", "docs/units/")
#: Commands that other tests or `make demo` run, because they take minutes.
ELSEWHERE = ("heddle demo", "--config u280", "heddle doctor", "rtl:u280", "heddle serve",
             "--board u280", "--cards xrt")


def commands():
    """Every command of `heddle` in a block of the shell."""
    for block in (block for page in PAGES for block in blocks(page)):
        for line in block.text.splitlines() if block.language in ("", "sh") else ():
            command = line.partition(" #")[0].strip().removeprefix(".venv/bin/")
            if command.startswith("heddle ") and not any(part in line for part in ELSEWHERE):
                yield pytest.param(command, id=f"{block}: {command}")


def programs() -> dict[str, list[str]]:
    """The Python of each page."""
    found: dict[str, list[str]] = {}
    for block in (block for page in PAGES for block in blocks(page)):
        if block.language == "python" and not block.page.startswith(FRAGMENTS):
            found.setdefault(block.page, []).append(block.text)
    return found


@pytest.mark.parametrize(("page", "texts"), programs().items())
def test_python(page, texts, monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for text in texts:
        exec(text, names)
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


def test_the_site_builds_without_a_warning(tmp_path):
    """Dead links between pages, pages that no contents list, docstrings that are no markup: each
    is a warning, and each warning an error."""
    for name in ("sphinx", "myst_parser", "furo"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (make docs)")
    done = subprocess.run([sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html",
                           "-d", tmp_path / "trees", ROOT / "docs", tmp_path / "site"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in ROOT.glob("docs/**/*.md")}
    built = {path.relative_to(tmp_path / "site").with_suffix("")
             for path in tmp_path.glob("site/**/*.html")}
    assert pages <= built
    reference = (tmp_path / "site" / "api.html").read_text()
    assert all(f'id="heddle.{name}"' in reference for name in heddle.__all__)
    commands = (tmp_path / "site" / "commands.html").read_text()
    names = [*get_command(cli.app).commands]
    assert {"run", "rtl", "estimate"} <= set(names)
    assert all(f'id="help-heddle-{name}"' in commands for name in names)


def test_every_link_leads_somewhere():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/*.md"),
             *ROOT.glob("sw/*/*.md")]
    dead = [f"{page.relative_to(ROOT)}: {target}" for page in pages
            for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
            if "://" not in target and not (page.parent / target).exists()]
    assert not dead
