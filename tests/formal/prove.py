# SPDX-License-Identifier: Apache-2.0
"""Proofs without a bound: assertions of a component, by Yosys and ABC's ``pdr``.

A component states what it takes for granted with ``Assume`` and what must hold with ``Assert``;
its inputs are free in every cycle.  It is small: sizes that the argument does not need are cut to
the least.
"""

import pathlib
import re
import subprocess
import sys

import pyosys
from amaranth.back import rtlil
from amaranth.lib import wiring

ABC = pathlib.Path(pyosys.__file__).parent / "yosys-abc"
SCRIPT = """\
read_rtlil top.il
hierarchy -check -top top
proc; flatten; opt -full
memory -nomap; memory_map -formal; opt -full
formalff -clk2ff -ff2anyinit
chformal -early; chformal -lower
async2sync
setundef -undriven -anyseq
opt -full; techmap; opt -full; opt_clean -purge
setattr -unset keep; delete -output; dffunmap; aigmap; opt_clean
write_aiger -I -B -zinit top.aig
"""


def prove(component: wiring.Component, folder: pathlib.Path, *, seconds: int = 600) -> None:
    """Prove all assertions of ``component``.

    Raises
    ------
    AssertionError
        If one is refuted; the message has the cycle.
    RuntimeError
        If nothing is known after so many seconds, or a tool fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "top.il").write_text(rtlil.convert(component, name="top"))
    (folder / "script.ys").write_text(SCRIPT)
    # In a process of its own: Yosys ends the one that it fails in.
    _run([sys.executable, "-c", "from pyosys import libyosys as yosys; "
          "yosys.run_pass('script script.ys', yosys.Design())"], folder)
    # `fold` gives the assumptions to the assertions, of which `orpos` makes one; `scorr` merges
    # what is always equal.  Where that leaves no register, `pdr` says nothing and `sat` does.
    report = _run([str(ABC), "-c", "read_aiger top.aig; fold; orpos; strash; scorr; "
                   f"pdr -s -f -y -T {seconds}; sat"], folder)
    if found := re.search(r"was asserted in frame (\d+)", report):
        raise AssertionError(f"refuted in cycle {found[1]}")
    if "Property proved" not in report and "UNSATISFIABLE" not in report:
        raise RuntimeError(f"not decided in {seconds} s:\n{report[-1000:]}")


def _run(command: list[str], folder: pathlib.Path) -> str:
    done = subprocess.run(command, cwd=folder, text=True, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed in {folder}:\n{done.stdout[-3000:]}")
    return done.stdout
