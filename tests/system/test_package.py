# SPDX-License-Identifier: Apache-2.0
"""The wheel: what is in it, what it asks for, and that it works alone, without the repository."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
#: Where the packages are, below folders that have other things too.
PACKAGES = ("hw/rtl_gen", "sw/heddle", "sim/cardsim")
MODEL = ROOT / "sw" / "models" / "shakespeare-gpt2"

pytestmark = pytest.mark.xdist_group("package")         # the wheel is built once


def tracked(*where: str) -> list[pathlib.PurePosixPath]:
    """What git tracks there, relative to the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("a copy without git does not say which files belong to it")
    listed = subprocess.run(["git", "ls-files", "-z", "--", *where], cwd=ROOT, text=True,
                            capture_output=True, check=True).stdout
    return [pathlib.PurePosixPath(name) for name in listed.split("\0")
            if name and os.path.lexists(ROOT / name)]


def packaged() -> set[str]:
    """Names of a wheel that has every file of the packages; a link to a folder stands for what is
    in it."""
    names = set()
    for path in tracked(*PACKAGES):
        inside = pathlib.PurePosixPath(*path.parts[1:])
        file = ROOT / path
        if file.is_symlink() and file.is_dir():
            target = pathlib.PurePosixPath(file.resolve().relative_to(ROOT))
            names |= {str(inside / one.relative_to(target)) for one in tracked(str(target))}
        else:
            names.add(str(inside))
    return names


def pip(*arguments: str, python: pathlib.Path | str = sys.executable) -> str:
    done = subprocess.run([python, "-m", "pip", "--disable-pip-version-check", *arguments],
                          text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel of what git tracks, as it is in the working copy."""
    source, built = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    for path in tracked():
        target = source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, target, follow_symlinks=False)
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built),
        str(source))
    found, = built.glob("*.whl")
    return found


def test_the_wheel_has_the_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = {name for name in names if name.startswith("heddle_fpga-")}
    assert {pathlib.PurePosixPath(name).name for name in info} == {
        "METADATA", "WHEEL", "RECORD", "LICENSE", "entry_points.txt", "top_level.txt"}
    assert names - info == packaged()
    assert {name.partition("/")[0] for name in names - info} == {"rtl_gen", "heddle", "cardsim"}
    assert not [name for name in names if "test" in name.rpartition("/")[2]]
    assert wheel.stat().st_size < 2 << 20


def test_data_of_boards_is_in_the_wheel(wheel):
    boards = [path.relative_to("hw/boards") for path in tracked("hw/boards")]
    if not boards:
        pytest.skip("there is no data of boards")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert not [path for path in boards if not any(name.endswith(f"/{path}") for name in names)]


def test_every_requirement_has_its_tested_version():
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, pin = line.split("==")
            pins[canonicalize_name(name)] = Version(pin)
    for extra, lines in {"": PROJECT["dependencies"], **EXTRAS}.items():
        for one in map(Requirement, lines):
            assert pins.get(canonicalize_name(one.name)) in one.specifier, (extra, one)


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_can_be_installed(wheel, extra, tmp_path):
    """All names and versions exist and agree with each other, in an environment with nothing."""
    report = tmp_path / "report.json"
    pip("install", "--quiet", "--dry-run", "--ignore-installed", "--constraint",
        str(ROOT / "constraints.txt"), "--report", str(report), f"{wheel}[{extra}]")
    chosen = {canonicalize_name(one["metadata"]["name"])
              for one in json.loads(report.read_text())["install"]}
    wanted = {canonicalize_name(Requirement(line).name)
              for line in (*PROJECT["dependencies"], *EXTRAS[extra])}
    assert wanted <= chosen


@pytest.fixture(scope="session")
def clean(wheel, tmp_path_factory):
    """An environment with the wheel and what it asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip("install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel),
        python=folder / "bin" / "python")
    return folder / "bin"


def heddle(scripts: pathlib.Path, folder: pathlib.Path, *arguments: str, status: int = 0):
    """Run the command of an environment, from a folder in which no source is."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([scripts / "heddle", *arguments], cwd=folder, env=variables, text=True,
                          capture_output=True, check=False)
    assert done.returncode == status, done.stderr
    return done


@pytest.mark.slow
def test_the_wheel_alone_generates_text(clean, tmp_path):
    arguments = ("run", str(MODEL), "--cards", "sim:tiny", "--prompt", "ROMEO.\n",
                 "--max-new-tokens", "6")
    found = heddle(clean, tmp_path, *arguments).stdout
    assert found == heddle(pathlib.Path(sys.executable).parent, tmp_path, *arguments).stdout
    assert heddle(clean, tmp_path, "--version").stdout.startswith(f"heddle {PROJECT['version']}, ")


@pytest.mark.slow
def test_the_wheel_alone_generates_verilog(clean, tmp_path):
    heddle(clean, tmp_path, "rtl", "--config", "tiny", "-o", "card")
    assert "module heddle_tiny" in (tmp_path / "card" / "heddle_tiny.v").read_text()
    estimated = heddle(clean, tmp_path, "estimate", "--cards", "tiny", "--shape", "1:64:97")
    assert "cycles a token" in estimated.stdout


@pytest.mark.slow
def test_the_wheel_alone_simulates_its_verilog(clean, tmp_path):
    """Everything that is compiled into the Verilated card is in the wheel; so says the doctor."""
    said = heddle(clean, tmp_path, "doctor").stdout
    assert "rtl:tiny made 2 tokens, equal to the functional card" in " ".join(said.split())


@pytest.mark.slow
def test_the_doctor_sees_a_package_that_is_gone(clean, tmp_path):
    """The last one here: it breaks the environment, and mends it."""
    python = clean / "python"
    pip("uninstall", "--quiet", "--yes", "numba", python=python)
    try:
        done = heddle(clean, tmp_path, "doctor", "--quick", "--json", "doctor.json", status=1)
    finally:
        pip("install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), "numba",
            python=python)
    assert done.stderr == ("heddle: the core does not work: packages, functional card; "
                           "see above\n")
    found = json.loads((tmp_path / "doctor.json").read_text())
    details = {one["name"]: (one["state"], one["detail"]) for one in found["checks"]}
    assert found["works"] is False
    assert details["packages"] == ("missing", "numba is not installed")
    assert details["functional card"] == ("fails", "No module named 'numba'")
