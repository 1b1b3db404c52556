# SPDX-License-Identifier: Apache-2.0
"""How fast the simulators are, and how long cards take to generate and to build."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import speed
from bench_rows import Row, measure

from cardsim.rtl import build
from heddle.errors import RunError
from heddle.measure import commit
from rtl_gen.spec import config as configs

#: What the speed of the Verilated cards is taken from.
ROWS = {name: Row(f"speed-{name}", ("--cards", f"rtl:{name}", *rest)) for name, rest in {
    "tiny": ("--shape", "2:128:997", "--new", "20"),
    "u280": ("--shape", "gpt2-345m", "--cache", "int8", "--layers", "4")}.items()}
#: Models that the functional card's speed is taken from.
MODELS = (("gpt2-124m", "dense"), ("gpt2-124m", "2:4"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speeds:
    """What was measured, on this machine."""

    machine: str
    #: Processes that wanted to run, of the last minute, before.
    load: float
    #: By configuration.
    cycles_per_second: dict[str, float]
    generate_seconds: dict[str, float]
    build_seconds: dict[str, float]
    #: Fields of :class:`speed.Speed`.
    functional: list[dict[str, float | str]]

    def lines(self) -> list[tuple[str, str]]:
        """Rows of a table."""
        made = []
        for name, value in self.cycles_per_second.items():
            made.append((f"`rtl:{name}`: `{ROWS[name].command}`", f"{value:,.0f} cycles/s"))
        for one in self.functional:
            made.append((f"`sim:u280`: `python sw/tools/speed.py {one['shape']} "
                         f"--pattern {one['pattern']}`",
                         f"{one['tokens_per_second']:.1f} tokens/s "
                         f"({one['tokens_per_cpu_second']:.1f} in a second of CPU time), "
                         f"{float(one['resident_bytes']) / float(one['image_bytes']):.2f} images "
                         f"of {float(one['image_bytes']) / 1e6:,.0f} MB in memory"))
        for name in self.generate_seconds:
            made.append((f"`{name}`: Verilog of the card generated",
                         f"{self.generate_seconds[name]:.1f} s"))
        for name in self.build_seconds:
            made.append((f"`{name}`: Verilated card built, Verilog included, two jobs, "
                         "no compiler cache", f"{self.build_seconds[name]:.0f} s"))
        return made


def _built(name: str) -> tuple[float, float]:
    """Seconds to generate, and to generate and compile, from nothing; the card is kept."""
    code = ("import sys, time, bench_speed; "
            "print(*bench_speed.build_here(sys.argv[1]))")
    with tempfile.TemporaryDirectory() as folder:
        path = os.pathsep.join([str(pathlib.Path(__file__).parent),
                                os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-c", code, name], capture_output=True, text=True, check=False,
            env=os.environ | {"HEDDLE_CACHE": folder, "CCACHE_DIR": f"{folder}/ccache",
                              "PYTHONPATH": path})
        if done.returncode:
            raise RunError(f"{name} could not be built: {done.stderr.strip()}")
        for card in pathlib.Path(folder).glob(f"{name}-*"):
            kept = build.cache_folder() / card.name
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                part = kept.with_name(f"{kept.name}.{os.getpid()}")
                shutil.copytree(card, part)
                part.rename(kept)       # whole, or not there
    generate, whole = map(float, done.stdout.split())
    return generate, whole


def build_here(name: str) -> tuple[float, float]:
    """The same, in this process and its cache folder."""
    marks = [time.monotonic()]
    build.library(configs.find(name), trace=False, say=lambda _: marks.append(time.monotonic()))
    start, _, generated = marks         # it says when it generates, and when it compiles
    return generated - start, time.monotonic() - start


def _machine() -> str:
    """Cores and processor of this machine."""
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else 'an unknown processor'}"


def kept_speeds(folder: pathlib.Path) -> Speeds | None:
    """What was measured before, of whatever commit."""
    path = folder / "speed.json"
    if not path.exists():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    return Speeds(**{name: value for name, value in known.items() if name != "commit"})


def measure_speeds(folder: pathlib.Path, say: Callable[[str], None]) -> Speeds:
    """Measure, or take what was measured of an unchanged commit on this machine."""
    path, head = folder / "speed.json", commit()
    if head and not head.endswith("+") and path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.pop("commit") == head and kept["machine"] == _machine():
            return Speeds(**kept)
    folder.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    built = {}
    for name in ROWS:
        say(f"building {name}")
        built[name] = _built(name)
    cycles = {}
    for name, row in ROWS.items():
        say(row.command)
        cycles[name] = measure(row, folder)["simulated_cycles_per_second"]
    functional = []
    for shape, pattern in MODELS:
        say(f"speed of sim:u280, {shape} {pattern}")
        functional.append(dataclasses.asdict(speed.measure(shape, pattern=pattern)))
    found = Speeds(machine=_machine(), load=load, cycles_per_second=cycles, functional=functional,
                   generate_seconds={name: seconds[0] for name, seconds in built.items()},
                   build_seconds={name: seconds[1] for name, seconds in built.items()})
    path.write_text(json.dumps(dataclasses.asdict(found) | {"commit": head}, indent=2) + "\n",
                    encoding="utf-8")
    return found
