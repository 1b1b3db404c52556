# SPDX-License-Identifier: Apache-2.0
"""`heddle doctor` tries what it names, and says how to get what is missing."""

import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from heddle import cli
from heddle.doctor import Check, Missing, State, boards, examine, extras, imports, toolchain
from heddle.doctor.examine import output

HEDDLE = pathlib.Path(sys.executable).with_name("heddle")


def doctor(*arguments: str, path: str | None = None, timeout: float = 600, **variables: str):
    """What the command wrote and its exit status."""
    environment = os.environ | variables
    if path is not None:
        environment["PATH"] = path
    return subprocess.run([HEDDLE, "doctor", *arguments], env=environment, text=True, check=False,
                          capture_output=True, timeout=timeout)


def attempt(checks: list[Check], name: str):
    """State and detail of one check, tried alone."""
    check = next(check for check in checks if check.name == name)
    found = next(iter(examine([check])))
    return found.state, found.detail


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The findings of this installation, without the Verilated card."""
    file = tmp_path_factory.mktemp("doctor") / "doctor.json"
    done = doctor("--quick", "--json", str(file))
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


def test_the_tools_of_this_environment_work(here):
    shown, found = here
    states = {one["name"]: one["state"] for one in found["checks"]}
    assert found["works"] is True
    for name in ("Python", "heddle", "packages", "functional card", "generator", "c++", "make",
                 "perl", "Verilator", "ccache", "extra dev"):
        assert states[name] == "ok", name
        assert re.search(rf"\b{re.escape(name)} +ok ", shown)
    assert "Verilated card" not in states
    details = {one["name"]: one["detail"] for one in found["checks"]}
    assert details["functional card"] == "sim:tiny made 2 tokens"
    assert details["generator"] == "wrote 3 modules of the unit quantise"
    assert details["perl"].startswith("Perl 5.")
    assert f"numpy {importlib.metadata.version('numpy')}" in details["packages"]


def test_every_check_says_how_to_get_it(here):
    shown, found = here
    for one in found["checks"]:
        assert re.fullmatch(r"[A-Z].* .*\.", one["how"]), one
        assert (f"  {one['name']}: {one['how']}\n" in shown) == (one["state"] != "ok")


def test_every_extra_is_looked_at(here):
    declared = importlib.metadata.metadata("heddle-fpga").get_all("Provides-Extra")
    names = {one["name"] for one in here[1]["checks"]}
    assert {f"extra {name}" for name in declared} <= names
    assert {"extra train", "extra docs", "extra dev"} <= names


def test_a_path_without_tools(tmp_path):
    file = tmp_path / "doctor.json"
    done = doctor("--json", str(file), path=str(tmp_path))
    found = {one["name"]: (one["state"], one["detail"])
             for one in json.loads(file.read_text())["checks"]}
    assert {name: found[name] for name in ("c++", "make", "perl")} == {
        name: ("missing", f"{name} is not in the PATH") for name in ("c++", "make", "perl")}
    assert found["Verilator"][0] == "ok"        # the program itself needs none of them
    assert found["Verilated card"] == ("not tried", "needs c++, make, perl")
    for line in (
            "  c++: Install a C++ compiler (Debian and Ubuntu: apt install g++; Fedora: dnf "
            "install gcc-c++).",
            "  make: Install GNU make (Debian and Ubuntu: apt install make; Fedora: dnf install "
            "make).",
            "  perl: Install Perl with its modules (Debian and Ubuntu: apt install perl; Fedora: "
            "dnf install perl)."):
        assert line in done.stdout.splitlines()
    assert done.returncode == 0         # models still run on the functional card
    assert done.stderr == ""


def program(folder: pathlib.Path, name: str, text: str) -> None:
    """A program that is found in place of the real one."""
    path = folder / name
    path.write_text(f"#!{shutil.which('sh')}\n{text}\n")
    path.chmod(0o755)


def test_tools_that_are_there_and_do_not_work(tmp_path, monkeypatch):
    program(tmp_path, "c++", "echo 'x.cpp:1: fatal error: thread: No such file' >&2\n"
                             "echo 'compilation terminated.' >&2; exit 1")
    program(tmp_path, "make", "echo BSD")
    program(tmp_path, "perl", "echo \"Can't locate Pod/Usage.pm in @INC\" >&2; exit 2")
    program(tmp_path, "ccache", "kill -9 $$")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    checks = toolchain(compile_card=False)
    assert attempt(checks, "c++") == (
        State.FAILS, "c++ ended with status 1: x.cpp:1: fatal error: thread: No such file: "
                     "compilation terminated.")
    assert attempt(checks, "make") == (State.FAILS, "make must be GNU make, and is another one")
    assert attempt(checks, "perl") == (
        State.FAILS, "perl ended with status 2: Can't locate Pod/Usage.pm in @INC")
    assert attempt(checks, "ccache") == (State.FAILS, "ccache ended with signal 9")


def test_a_compiler_whose_programs_do_not_run(tmp_path, monkeypatch):
    program(tmp_path, "c++", "")        # content with everything, and makes nothing
    monkeypatch.setenv("PATH", str(tmp_path))
    assert attempt(toolchain(compile_card=False), "c++") == (
        State.MISSING, "program is not in the PATH")


def test_a_program_that_hangs():
    with pytest.raises(RuntimeError, match=r"^sleep did not end within 0\.2 s$"):
        output(["sleep", "30"], seconds=0.2)


def test_packages(tmp_path, monkeypatch):
    for name, text in {"fine": "", "old": "", "broken": "raise ImportError('no lib\\nz.so')",
                       "fatal": "import os; os.abort()"}.items():
        (tmp_path / f"heddle_test_{name}.py").write_text(text)
        info = tmp_path / f"heddle_test_{name}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: heddle-test-{name}\n"
                                       "Version: 1.5\n")
        (info / "top_level.txt").write_text(f"heddle_test_{name}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def wanted(*names: str) -> list[Requirement]:
        return [Requirement(f"heddle-test-{name}") for name in names]

    assert imports.missing_or_broken(wanted("fine", "old")) == (
        "heddle-test-fine 1.5, heddle-test-old 1.5")
    with pytest.raises(Missing, match=r"^heddle-test-none is not installed; "
                                      r"heddle-test-old must be >=2, not 1\.5$"):
        imports.missing_or_broken(wanted("fine", "none", "old>=2"))
    with pytest.raises(RuntimeError, match=r"status 1: heddle_test_broken cannot be imported: "
                                           r"no lib z\.so$"):
        imports.missing_or_broken(wanted("fine", "broken"))
    with pytest.raises(RuntimeError, match=r"signal 6: importing heddle_test_fatal ends Python$"):
        imports.missing_or_broken(wanted("fine", "fatal"))


@pytest.mark.parametrize("check", extras(), ids=lambda check: check.name)
def test_extras_ask_for_something(check):
    assert imports.requirements(check.name.removeprefix("extra "))


def test_core_and_extras_are_apart():
    core = {one.name for one in imports.requirements(None)}
    assert "numpy" in core
    assert "pytest" not in core
    assert {one.name for one in imports.requirements("train")} == {"torch", "transformers"}


def test_boards_of_pci_express(tmp_path):
    assert attempt(boards(tmp_path), "Alveo boards") == (
        State.MISSING, "no PCI device of AMD/Xilinx")
    for address, vendor in (("0000:00:00.0", "0x8086"), ("0000:3b:00.0", "0x10ee")):
        device = tmp_path / "bus/pci/devices" / address
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "device").write_text("0x500c\n")
    assert attempt(boards(tmp_path), "Alveo boards") == (
        State.OK, "0000:3b:00.0 (device 0x500c)")


def test_serial_ports(tmp_path):
    assert attempt(boards(tmp_path, tmp_path), "serial ports") == (
        State.MISSING, "no serial port on USB")
    (tmp_path / "class/tty/ttyUSB0").mkdir(parents=True)
    (tmp_path / "class/tty/tty0").mkdir()
    state, detail = attempt(boards(tmp_path, tmp_path), "serial ports")
    assert (state, detail) == (State.FAILS, f"{tmp_path}/ttyUSB0 must be readable and writable "
                                            "for this user, and is not")
    (tmp_path / "ttyUSB0").touch()
    assert attempt(boards(tmp_path, tmp_path), "serial ports") == (
        State.OK, f"{tmp_path}/ttyUSB0")


PYXRT = """
class xrt_info_device:
    bdf, name = range(2)
class device:
    def __init__(self, number):
        if number >= {count}:
            raise RuntimeError("no such device")
        self.number = number
    def get_info(self, which):
        return [f'"0000:{{self.number}}b:00.1"', '"xilinx_u280_gen3x16_xdma_base_1"'][which]
"""


@pytest.mark.parametrize("listing", ["", "def enumerate_devices():\n    return {count}\n"])
def test_boards_that_xrt_sees(tmp_path, monkeypatch, listing):
    """Both generations of pyxrt; the module stands in for one that only a machine with XRT has."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    module = tmp_path / "pyxrt.py"
    module.write_text((PYXRT + listing).format(count=0))
    assert attempt(boards(), "pyxrt") == (State.MISSING, "pyxrt is there, but sees no board")
    module.write_text((PYXRT + listing).format(count=2))
    assert attempt(boards(), "pyxrt") == (
        State.OK, "0000:0b:00.1 xilinx_u280_gen3x16_xdma_base_1, "
                  "0000:1b:00.1 xilinx_u280_gen3x16_xdma_base_1")
    module.write_text("raise ImportError('libxrt_core.so.2: cannot open shared object file')")
    state, detail = attempt(boards(), "pyxrt")
    assert state == State.FAILS
    assert detail.endswith("libxrt_core.so.2: cannot open shared object file")


def test_without_xrt(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if importlib.util.find_spec("pyxrt"):
        pytest.skip("pyxrt is installed")
    assert attempt(boards(), "pyxrt") == (State.MISSING, "pyxrt cannot be imported")


def test_with_the_pyxrt_of_another_python(monkeypatch, tmp_path):
    if importlib.util.find_spec("pyxrt"):
        pytest.skip("pyxrt is installed")
    monkeypatch.setenv("XILINX_XRT", str(tmp_path))
    file = tmp_path / "python" / "pyxrt.cpython-36m-x86_64-linux-gnu.so"
    file.parent.mkdir()
    file.touch()
    state, detail = attempt(boards(), "pyxrt")
    assert state == State.MISSING
    assert detail.startswith("pyxrt must be compiled for this Python (.cpython-3")
    assert f"not for another ({file})" in detail


def test_cards_on_boards_are_asked_who_they_are(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyxrt", None)
    monkeypatch.delenv("HEDDLE_PORT", raising=False)
    for kind, sentence in (("xrt", "pyxrt must be importable for cards of the kind xrt"),
                           ("uart", "HEDDLE_PORT must name the board's serial port")):
        state, detail = attempt(boards(), f"card {kind}")
        assert state == "missing"
        assert detail.startswith(sentence)
    # A port that is named and is no board is a fault.
    monkeypatch.setenv("HEDDLE_PORT", os.devnull)
    assert attempt(boards(), "card uart")[0] == "fails"


def test_what_depends_on_something_missing_is_not_tried():
    def absent() -> str:
        raise Missing("nowhere")

    def never() -> str:
        raise AssertionError("it must not be tried")

    common = {"part": "p", "how": "Get it."}
    found = list(examine([Check(name="a", attempt=absent, **common),
                          Check(name="b", attempt=never, needs=("a",), **common),
                          Check(name="c", attempt=lambda: "3", **common)]))
    assert [(one.state, one.detail) for one in found] == [
        (State.MISSING, "nowhere"), (State.UNTRIED, "needs a"), (State.OK, "3")]


def test_a_core_that_does_not_work_is_a_failure(capsys, monkeypatch):
    def gone(*_: object) -> str:
        raise ImportError("numba cannot be imported")

    monkeypatch.setattr("heddle.cli.doctoring.checks", lambda compile_card: [
        Check(name="functional card", part="everything", essential=True, attempt=gone,
              how="Install [it] anew.")])
    assert cli.run(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "numba cannot be imported" in out
    assert "  functional card: Install [it] anew.\n" in out
    assert err == "heddle: the core does not work: functional card; see above\n"
