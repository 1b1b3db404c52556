# SPDX-License-Identifier: Apache-2.0
"""The workloads that docs/benchmarks.md shows, and the processes that measure them."""

import concurrent.futures
import dataclasses
import json
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from heddle.errors import RunError
from heddle.measure import commit

PATTERNS = ("dense", "2:4", "1:4", "4:8", "8:16")
#: The two that whole steps are measured with.
MAIN = PATTERNS[:2]
#: Their difference is a layer in the midst of others, without the start and the end of a pass.
FEW, MORE = 2, 6
#: The longest that a context of 1,024 leaves room for.
LONG = 1023
#: Most tokens of a pass, by activation, on a card with four columns.
TOKENS = {"a8": 4, "a16": 2}
#: Those that the short form measures on a few layers, but for the first, and a variant.
SHAPES = ("gpt2-124m", "gpt2-774m", "gpt2-1.5b", "gpt2-1.5b-1600")
#: A batch whose sequences all attend to 128 positions or more, each to one more than the next.
APART = "batch-4-128-apart"
#: Nanoseconds; the published measurements of an idle U280 lie between 128 and this.
SLOW = 289


@dataclasses.dataclass(frozen=True)
class Row:
    """One run of ``heddle bench``."""

    name: str
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        return shlex.join(("heddle", "bench", *self.arguments))


def _row(name: str, text: str) -> Row:
    return Row(name, tuple(text.split()))


def short(pattern: str) -> str:
    """A pattern as part of a file's name.

    >>> short("2:4")
    '2-4'
    """
    return pattern.replace(":", "-")


def rows(long: bool = False, *, variants: bool | None = None) -> list[Row]:
    """All of them.

    Parameters
    ----------
    long : bool
        What the short form takes the first layers for is measured on whole models.
    variants : bool, optional
        Whole steps at another clock, with a long context, with wide K and V, and of sequences at
        different positions too; if left out, those of the long form.
    """
    made = []
    variants = long if variants is None else variants
    for pattern in MAIN:
        step, name = f"--shape gpt2-345m --pattern {pattern}", short(pattern)
        made.append(_row(f"step-{name}", f"{step} --cache int8"))
        if variants or pattern != "dense":
            made.append(_row(f"step-{name}-int16", f"{step} --cache int16"))
        if variants:
            made += [_row(f"step-{name}-225", f"{step} --cache int8 --clock 225"),
                     _row(f"step-{name}-long", f"{step} --cache int8 --context {LONG}")]
        made.append(_row(f"latency-{name}", f"{step} --cache int8 --latency {SLOW}"
                         + ("" if long else f" --layers {MORE}")))
    for context in (128, LONG):
        for batch in (1, TOKENS["a8"]):
            made.append(_row(f"batch-{batch}-{context}",
                             f"--shape gpt2-345m --cache int8 --activation a8 --context {context}"
                             + (f" --batch {batch}" if batch > 1 else "")))
    if variants:
        made.append(_row(APART, f"--shape gpt2-345m --cache int8 --activation a8 --context "
                         f"{128 + TOKENS['a8'] - 1} --batch {TOKENS['a8']} --spread 1"))
    for pattern in PATTERNS:
        made += [_row(f"layers-{short(pattern)}-{layers}",
                      f"--shape gpt2-345m --pattern {pattern} --cache int8 --layers {layers}")
                 for layers in (FEW, MORE)]
    layers = 24 if long else MORE
    # Sparse passes are short: what starts them is too much of a few layers.
    for pattern, deep in (("dense", layers), ("2:4", 24))[:1 + variants]:
        for activation, tokens in TOKENS.items():
            common = (f"--shape gpt2-345m --pattern {pattern} --cache int8"
                      + " --activation a8" * (activation == "a8") + f" --layers {deep}")
            name = f"{short(pattern)}-{activation}"
            made += [_row(f"decode-{name}", common),
                     _row(f"prefill-{name}", f"{common} --context 128 --prompt {tokens}")]
    made += [_row(f"{shape}-{short(pattern)}", f"--shape {shape} --pattern {pattern} --cache int8"
                  + ("" if long or shape == SHAPES[0] else " --layers 4"))
             for shape in SHAPES[:None if variants else -1] for pattern in MAIN]
    return made


def _kept(path: pathlib.Path, row: Row, head: str | None) -> dict[str, Any] | None:
    """What was measured before of the same row and an unchanged commit."""
    if head is None or head.endswith("+") or not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    same = (found.get("row"), found.get("commit")) == (row.command, head)
    return found if same else None


def kept(wanted: Sequence[Row], folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Figures that are in ``folder``, of whatever commit, by the names of their rows."""
    found = {}
    for row in wanted:
        path = folder / f"{row.name}.json"
        if path.exists():
            figures = json.loads(path.read_text(encoding="utf-8"))
            if figures.get("row") == row.command:
                found[row.name] = figures
    return found


def measure(row: Row, folder: pathlib.Path) -> dict[str, Any]:
    """The figures of a row: those in ``folder`` if they are of this commit, else measured now.

    Raises
    ------
    RunError
        The bench failed; what it said.
    """
    path = folder / f"{row.name}.json"
    if known := _kept(path, row, commit()):
        return known
    part = path.with_suffix(".part")
    done = subprocess.run(
        [sys.executable, "-m", "heddle", "bench", *row.arguments, "--json", str(part)],
        capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"{row.command} ended with status {done.returncode}: "
                       f"{done.stderr.strip()}")
    found: dict[str, Any] = json.loads(part.read_text(encoding="utf-8")) | {"row": row.command}
    if not found["equal_to_sim"]:
        raise RunError(f"{row.command} must have been compared with the functional card")
    part.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    part.rename(path)
    return found


def measure_all(wanted: Sequence[Row], folder: pathlib.Path, jobs: int,
                say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Figures by the names of rows; ``jobs`` processes work side by side.

    Of rows with one command, one is measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    firsts: dict[str, Row] = {}
    for row in wanted:
        firsts.setdefault(row.command, row)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        runs = {pool.submit(measure, row, folder): row for row in firsts.values()}
        try:
            for number, run in enumerate(concurrent.futures.as_completed(runs), 1):
                first = runs[run]
                for row in wanted:
                    if row.command == first.command:
                        found[row.name] = run.result()
                        if row != first:
                            shutil.copyfile(folder / f"{first.name}.json",
                                            folder / f"{row.name}.json")
                say(f"{number}/{len(firsts)}  {found[first.name]['cycles_total']:>9,} cycles  "
                    f"{first.command}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found
