# SPDX-License-Identifier: Apache-2.0
"""What `heddle estimate` says of the rows of docs/benchmarks.md, beside what was measured."""

import concurrent.futures
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from bench_rows import Row

from heddle.errors import RunError


def arguments(row: Row) -> list[str]:
    """Those of ``heddle estimate``, whose cards have no backend.

    >>> arguments(Row("one", ("--cards", "rtl:tiny", "--new", "2")))
    ['--cards', 'tiny', '--new', '2']
    """
    words = list(row.arguments)
    if "--cards" in words:
        place = words.index("--cards") + 1
        words[place] = words[place].partition(":")[2]
    return words


def estimate(row: Row) -> int:
    """Cycles of a row.

    Raises
    ------
    RunError
        The estimator failed; what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "estimate.json"
        done = subprocess.run(
            [sys.executable, "-m", "heddle", "estimate", *arguments(row), "--json", str(path)],
            capture_output=True, text=True, check=False)
        if done.returncode:
            raise RunError(f"the estimate of {row.command} ended with status {done.returncode}: "
                           f"{done.stderr.strip()}")
        return int(json.loads(path.read_text(encoding="utf-8"))["cycles_total"])


def with_estimates(wanted: Sequence[Row], found: Mapping[str, dict[str, Any]], jobs: int
                   ) -> dict[str, dict[str, Any]]:
    """The figures of rows, with ``estimated_cycles``; ``jobs`` processes work side by side."""
    there = [row for row in wanted if row.name in found]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        cycles = list(pool.map(estimate, there))
    return dict(found) | {row.name: found[row.name] | {"estimated_cycles": number}
                          for row, number in zip(there, cycles, strict=True)}
