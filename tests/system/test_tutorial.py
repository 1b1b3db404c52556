# SPDX-License-Identifier: Apache-2.0
"""The tutorial and the guides: commands, changes and programs, in their order, with their output.

A copy of the repository is worked in, as a reader would: pages change files.  Blocks of `sh` run in
bash, those of `diff` are applied, those of `python` are executed; a block of `text` is what the
block before it prints.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.pages import ROOT, Block, blocks, difference, shows

TUTORIAL = [f"docs/tutorial/{name}.md" for name in ("first-text", "sparse", "verilog", "change")]
GUIDES = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/how-to/*.md"))]
#: Carried out by CI: they would install this copy in place of the repository, or take an hour.
ELSEWHERE = ("make setup", "make demo", "make test", "make lint", "make docs", "make formal")
#: What ran, with its output: to read when something fails, and to write pages from.
LOG = ROOT / "build" / "tests" / "tutorial.txt"

pytestmark = [pytest.mark.slow, pytest.mark.cosim, pytest.mark.xdist_group("tutorial")]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The files of the repository as they are now, committed in a repository of their own."""
    folder = tmp_path_factory.mktemp("tutorial") / "heddle"
    if not (ROOT / ".git").exists():
        pytest.skip("a copy without git does not say which files belong to it")
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if os.path.lexists(ROOT / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    (folder / "build").mkdir()
    (folder / ".venv").symlink_to(sys.prefix)
    for command in (["init", "--quiet"], ["add", "--all"],
                    ["-c", "user.name=reader", "-c", "user.email=reader@localhost", "commit",
                     "--quiet", "--message", "as found"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    LOG.parent.mkdir(parents=True, exist_ok=True)
    LOG.write_text("")
    return folder


def environment(folder: pathlib.Path) -> dict[str, str]:
    """The copy's packages are found before those that are installed."""
    scripts = pathlib.Path(sys.executable).parent
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(str(folder / part) for part in ("hw", "sw", "sim")),
        "PATH": os.pathsep.join([str(scripts), os.environ["PATH"]]), "COLUMNS": "100"}


def carry_out(block: Block, folder: pathlib.Path) -> str:
    """Do what a block says; what it printed."""
    match block.language:
        case "sh":
            lines = [line for line in block.text.splitlines() if not line.startswith(ELSEWHERE)]
            command, given = ["bash", "-e", "-o", "pipefail"], "\n".join(lines)
        case "python":
            command, given = [sys.executable, "-"], block.text
        case "diff":
            command, given = ["git", "apply", "-"], block.text
    done = subprocess.run(command, cwd=folder, input=given, env=environment(folder), text=True,
                          check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with LOG.open("a") as log:
        log.write(f"== {block}\n{given}\n--\n{done.stdout}\n")
    assert done.returncode == 0, f"{block} ended with status {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.mark.parametrize("page", [*TUTORIAL, *GUIDES])
def test_page(page, copy):
    output, carried_out = None, 0
    for block in blocks(page):
        if block.language == "text":
            assert output is not None, f"{block} must follow what prints it"
            assert shows(block.text, output), f"{block}: {difference(block.text, output)}"
            output = None
        elif block.language in ("sh", "diff", "python"):
            output = carry_out(block, copy)
            carried_out += 1
        else:
            assert block.language.startswith("{"), f"{block} must say what language it is in"
    assert carried_out


def test_what_is_left_out_is_in_the_checks_of_every_commit():
    checks = (ROOT / ".ci" / "run").read_text() + (ROOT / "Makefile").read_text()
    for command in ELSEWHERE:
        target = command.removeprefix("make ")
        assert f"\n{target}:" in checks


def test_every_page_is_run():
    found = {str(path.relative_to(ROOT)) for path in ROOT.glob("docs/tutorial/*.md")}
    assert found == {*TUTORIAL, "docs/tutorial/index.md"}
    assert not any(block.language == "sh" for block in blocks("docs/tutorial/index.md"))
