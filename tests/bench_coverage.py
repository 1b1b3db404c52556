# SPDX-License-Identifier: Apache-2.0
"""Print line and toggle coverage of the generated Verilog, per unit, from the last tests."""

import collections
import json
import pathlib
import sys

from rich.console import Console
from rich.table import Table

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "build" / "tests" / "units"


def points(path: pathlib.Path):
    """(kind, hit) of every coverage point in one of Verilator's files; instances add up."""
    hits: dict[tuple, int] = collections.defaultdict(int)
    for line in path.read_text().splitlines():
        if not line.startswith("C '"):
            continue
        where, _, count = line[3:].rpartition("' ")
        keys = dict(part.split("\x02", 1) for part in where.split("\x01") if part)
        page = keys.get("page", "")
        kind = "toggle" if page.startswith("v_toggle") else "line"
        place = (kind, page, keys.get("f"), keys.get("l"), keys.get("n"), keys.get("o"))
        hits[place] += int(count)
    for (kind, *_), count in hits.items():
        yield kind, count > 0


def main() -> int:
    table = Table("unit", "lines", "line coverage", "signal bits", "toggle coverage")
    rows = {}
    for path in sorted(FOLDER.glob("*/build/coverage.dat")):
        unit = path.parents[1].name
        seen = collections.Counter(points(path))
        row = {}
        for kind in ("line", "toggle"):
            hit, missed = seen[kind, True], seen[kind, False]
            row[kind] = (hit + missed, hit / (hit + missed) if hit + missed else 1.0)
        rows[unit] = row
        table.add_row(unit, str(row["line"][0]), f"{row['line'][1]:.1%}", str(row["toggle"][0]),
                      f"{row['toggle'][1]:.1%}")
    if not rows:
        print(f"no coverage below {FOLDER}: run the tests first", file=sys.stderr)
        return 1
    Console().print(table)
    (FOLDER / "coverage.json").write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
