# SPDX-License-Identifier: Apache-2.0
"""Count what a card takes of a U280 and how deep its logic is, with Yosys; writes docs/resources.md.

    python sw/tools/resources.py                        the u280 card, docs/resources.md
    python sw/tools/resources.py --unit softmax -o -    one unit on its own, to standard output

Exit status 1 if a figure is beyond its target.
"""

import argparse
import collections
import dataclasses
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
from typing import Any

import paths
import synthesis
from synthesis import ROOT, Area

from rtl_gen import cli, emit, units
from rtl_gen.spec import config as configs

#: What a U280 has.
DEVICE = Area(lut=1_304_000, packed=1_304_000, memory=601_000, ff=2_607_000, dsp=9_024, bram=2_016, uram=960)
#: Shares of it that place and route can still cope with.
TARGETS = {"lut": 0.60, "dsp": 0.75}
#: Nanoseconds between registers.
PERIOD = 5.0
#: Units inside the card's top module; the rest of it joins them.
CARD_UNITS = ("control", "memory", "engine", "epilogue", "probabilities", "vector", "sampler",
              "scratchpad", "scales")
COLUMNS = (("LUT", "lut"), ("LUT, paired", "packed"), ("LUT as memory", "memory"), ("FF", "ff"), ("DSP", "dsp"),
           ("BRAM36", "bram"), ("URAM", "uram"))


@dataclasses.dataclass
class Module:
    """What was found of a piece.

    Attributes
    ----------
    area : Area
        Its own cells, without its children.
    children : Counter
        How many of each it instantiates.
    timing : paths.Timing
    seconds : float
        That Yosys took.
    """

    area: Area
    children: collections.Counter[str]
    timing: paths.Timing
    seconds: float


def measure(texts: dict[str, str], inside: tuple[str, ...] = (), jobs: int = 1
            ) -> dict[str, Module]:
    """Area and timing of all pieces of a design, its top first.

    Parameters
    ----------
    texts : dict
        Verilog by module name, the top first.
    inside : tuple of str
        Modules of the top file that are pieces of their own.
    jobs : int
        Processes that run Yosys.
    """
    found = synthesis.pieces(texts, inside)
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for piece, seconds in zip(found.values(), pool.imap(_seconds, found.values()), strict=True):
            print(f"{piece.name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    modules: dict[str, Module] = {}

    def visit(name: str) -> None:
        if name not in modules:
            for child in found[name].children:
                visit(child)
            netlist, seconds = synthesis.synthesise(found[name])
            area, children = synthesis.count(netlist)
            timing = paths.analyse(netlist, {child: modules[child].timing for child in children}, name)
            modules[name] = Module(area, children, timing, seconds)

    visit(next(iter(found)))
    return {name: modules[name] for name in found}


def _seconds(piece: synthesis.Piece) -> float:
    return synthesis.synthesise(piece)[1]


def total(modules: dict[str, Module], name: str) -> Area:
    """Cells of a module and of everything in it."""
    area = modules[name].area
    for child, number in modules[name].children.items():
        area += total(modules, child) * number
    return area


def instances(modules: dict[str, Module]) -> dict[str, int]:
    """How often each module is there."""
    top = next(iter(modules))
    found = collections.Counter({top: 1})

    def visit(name: str, times: int) -> None:
        for child, number in modules[name].children.items():
            found[child] += times * number
            visit(child, times * number)

    visit(top, 1)
    return found


def _table(head: tuple[str, ...], rows: list[list[Any]]) -> str:
    align = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, align, *rows)) + "\n"


def _cells(area: Area) -> list[str]:
    return [f"{getattr(area, field):,.4g}" if field == "bram" else f"{getattr(area, field):,}"
            for _, field in COLUMNS]


def _title(name: str) -> str:
    return f"`{name.partition('.')[2] or name.removeprefix('heddle_')}`"


def area_tables(modules: dict[str, Module], inside: tuple[str, ...]) -> str:
    """Cells by unit with all that is in them, and by module."""
    top = next(iter(modules))
    number = instances(modules)
    whole = total(modules, top)
    first = [*inside, *(name for name in modules[top].children if name not in inside)]
    rows = [[_title(name) + (f" × {times}" if (times := modules[top].children[name]) > 1 else ""),
             *_cells(total(modules, name) * times)] for name in first]
    rows.append(["what joins them", *_cells(modules[top].area)])
    rows.append(["**all**", *_cells(whole)])
    rows.append(["of a U280", *_cells(DEVICE)])
    rows.append(["share", *(f"{getattr(whole, field) / getattr(DEVICE, field):.1%}"
                            for _, field in COLUMNS)])
    head = tuple(title for title, _ in COLUMNS)
    by_module = [[_title(name), number[name], *_cells(module.area)]
                 for name, module in modules.items()]
    return (_table(("unit, with all in it", *head), rows) + "\nOne instance, without the modules in it:\n\n"
            + _table(("module", "instances", *head), by_module))


def paths_table(modules: dict[str, Module]) -> str:
    """The longest path of each module."""
    rows = []
    for name, module in modules.items():
        if (path := module.timing.worst) is not None:
            start, *_, end = path.words()
            rows.append([_title(name), f"{path.delay:.2f}", path.levels, _short(start), _short(end)])
    return _table(("module", "ns", "levels", "from", "to"), rows)


def _short(place: str) -> str:
    """A start or an end without what the reader knows: `lane: add.base`."""
    kind, _, rest = place.partition(" heddle_")
    return f"{kind} `{rest.replace('inside.', '')}`"


PAGE = """# Resources and clock

<!-- Written by sw/tools/resources.py (make resources). -->

What the `{config}` card takes of an Alveo U280, counted by Yosys {yosys} (`synth_xilinx -family xcup`) on the Verilog of
commit `{commit}`, configuration digest `{digest:#010x}`, with multipliers as DSP48E2 (`heddle rtl --dsp48`). `make resources` writes this page;
without kept netlists it takes {minutes:.0f} minutes on one core. No place and route has run on it.

{verdict}

## Area

{area}
The card as a whole is too large for Yosys in reasonable time. Modules are emitted once and instantiated many times, so each is
synthesised once and counted as often as it is there; `synthesis.py` says where the card is cut. Which way the figures err:

* **LUT too high** where a module's inputs are constant or outputs unused in some of its instances: nothing is simplified across the cuts.
* **LUT and FF too high** in the `fp_*` modules, `vector` and `control`: Yosys packs no registers, pre-adders or post-adders into the DSP48E2 that it infers. The
  engine's are instantiated with their registers and cascades, so `lane` has no such excess.
* **LUT too high**: a LUT6 is two functions of five shared inputs too, or two short shift registers, which Yosys never uses and the vendor's placer does. *LUT, paired* counts
  such pairs once (`pairs.py`), for an idea of what placed figures may be; the target holds for the plain count. Inverters are not counted: they vanish into what they feed.
* **Too low**: the HBM controllers, the shell of the board and registers that place and route duplicates are not in it.
* DSP, BRAM and URAM are right: the vendor's tools have the same shapes to choose from. BRAM counts a RAMB18 as half.

## Longest paths

A clock of {clock} MHz leaves {period:.1f} ns between registers. Yosys times UltraScale+ with delays of an older family, and no open tool places or routes it. So `paths.py`
adds up typical delays of speed grade -2 over the netlist, through all modules:

| cell | ns | |
| --- | ---: | --- |
| LUT | {LUT:.2f} | with the way to it; assumed |
| carry chain | {CARRY_IN:.2f}, {CARRY_WAY:.2f} | in and out, from a LUT beside it or from elsewhere; assumed |
| four bits of a carry chain | {CARRY:.3f} | assumed |
| MUXF7, MUXF8 | {MUXF:.2f} | behind their LUTs; assumed |
| way to any other pin | {WAY:.2f} | enables, resets, addresses, multipliers; assumed |
| register | {CLOCK_TO_Q:.2f}, {SETUP:.2f} | clock to output, setup; assumed |
| shift register or memory of LUTs | {SHIFT_TO_Q:.2f} | clock to output; assumed |
| block memory | {RAM_TO_Q:.2f}, {RAM_SETUP:.2f} | clock to output without its register, setup; assumed after Versal's 0.9 (DS958) |
| product of an inferred DSP48E2 | {DSP:.2f} | two registers around it reach 544 MHz without the one inside (DS923, grade -2 at 0.85 V) |

Levels are LUTs, products and carry chains. At these delays {period:.0f} ns are {fit} LUTs in a row. Congestion, crossings between the dies and nets of
large fan-out are in none of the sums: the longest path is {worst:.2f} ns without them. The longest path of each module, which may end in modules that it contains:

{paths}"""


def verdict(whole: Area, worst: float) -> tuple[str, bool]:
    """Targets and figures in a sentence, and whether all are met."""
    shares = {field: getattr(whole, field) / getattr(DEVICE, field) for field in
              ("lut", "packed", "ff", "dsp", "bram", "uram")}
    titles = {field: title for title, field in COLUMNS}
    good = worst <= PERIOD and all(shares[field] < limit for field, limit in TARGETS.items())
    text = ", ".join(f"{shares[field]:.1%} of its {titles[field]}"
                     + (f" (target: below {TARGETS[field]:.0%})" if field in TARGETS else "")
                     for field in shares)
    return (f"The card takes {text}. Its longest path is estimated at {worst:.2f} ns (target: at most "
            f"{PERIOD:.1f}). {'All targets are met.' if good else '**Not all targets are met.**'}", good)


def _commit() -> str:
    """The commit, and whether the generator has changed since."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True,
                              text=True).stdout.strip()
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (
        " and changes" if git("status", "--porcelain", "--", "hw") else "")


def page(config: configs.CardConfig, modules: dict[str, Module], inside: tuple[str, ...]
         ) -> tuple[str, str, bool]:
    """The page, what it says of the targets, and whether all are met."""
    top = next(iter(modules))
    worst = max(module.timing.worst.delay for module in modules.values() if module.timing.worst)
    sentence, good = verdict(total(modules, top), worst)
    delays = {name: getattr(paths, name) for name in (
        "LUT", "CARRY_IN", "CARRY_WAY", "CARRY", "MUXF", "WAY", "CLOCK_TO_Q", "SETUP", "SHIFT_TO_Q",
        "RAM_TO_Q", "RAM_SETUP", "DSP")}
    fit = int((PERIOD - paths.CLOCK_TO_Q - paths.SETUP) / paths.LUT)
    return PAGE.format(
        config=config.name, yosys=synthesis.yosys_version(), commit=_commit(), digest=config.digest,
        minutes=sum(module.seconds for module in modules.values()) / 60 + 1, verdict=sentence,
        area=area_tables(modules, inside), clock=config.clock_mhz, period=PERIOD, fit=fit,
        worst=worst, paths=paths_table(modules), **delays), sentence, good


def as_json(modules: dict[str, Module]) -> dict[str, Any]:
    """For machines: each module's own cells, instances, whole cells and longest path."""
    number = instances(modules)
    return {name: {
        "instances": number[name], "own": dataclasses.asdict(module.area),
        "total": dataclasses.asdict(total(modules, name)),
        "path": (path := module.timing.worst) and {
            "ns": round(path.delay, 3), "levels": path.levels, "cells": path.words()},
    } for name, module in modules.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="u280", help=f"one of {', '.join(configs.CONFIGS)}")
    parser.add_argument("--unit", default="card", help=f"card, or one of {', '.join(units.UNITS)}")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                        help="change a parameter; may be given several times")
    parser.add_argument("-o", "--output", default=str(ROOT / "docs/resources.md"),
                        help="file to write, - for standard output (default: docs/resources.md)")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file too")
    parser.add_argument("--jobs", type=int, default=1, help="processes that run Yosys (default: 1)")
    options = parser.parse_args()
    os.nice(10)
    try:
        settings = units.parse_settings(options.set)
        top, component = cli.make(options.unit, options.config, settings)
    except ValueError as error:
        print(f"resources.py: {error}", file=sys.stderr)
        return 2
    card = options.unit == "card"
    inside = tuple(f"{top}.{unit}" for unit in CARD_UNITS) if card else ()
    modules = measure(emit.convert(component, top, clocked=True, dsp48=True), inside, options.jobs)
    if options.json:
        options.json.write_text(json.dumps(as_json(modules), indent=1) + "\n")
    if card:
        text, sentence, good = page(component.config, modules, inside)
        print(sentence, file=sys.stderr)
    else:
        text, good = f"{area_tables(modules, inside)}\n{paths_table(modules)}", True
    if options.output == "-":
        print(text, end="")
    else:
        pathlib.Path(options.output).write_text(text)
        print(f"{options.output}: {sum(module.seconds for module in modules.values()) / 60:.0f} minutes"
              " of synthesis, kept ones included")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
