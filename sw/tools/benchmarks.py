# SPDX-License-Identifier: Apache-2.0
"""Measure GPT-2 on the Verilated u280 card; writes docs/benchmarks.md, and README's short table.

    python sw/tools/benchmarks.py           the short form, below a quarter of an hour on two cores
    python sw/tools/benchmarks.py --variants    more whole steps of GPT-2 345M: half an hour
    python sw/tools/benchmarks.py --long        these, and whole models everywhere: an hour
    python sw/tools/benchmarks.py --kept    measures nothing: the page of what build/bench holds

Every row is a process of `heddle bench` and leaves its figures in build/bench.  Exit status 1 if a
run fails or a target is missed.
"""

import argparse
import pathlib
import re
import sys
import time

from bench_estimates import with_estimates
from bench_page import headline, page, targets
from bench_rows import kept, measure_all, rows
from bench_speed import kept_speeds, measure_speeds

from heddle.errors import RunError

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: README's lines between these are written.
MARKS = "<!-- figures of make bench -->", "<!-- end of figures -->"


def renewed(text: str, figures: str) -> str:
    """README with other figures between its marks.

    >>> renewed("a <!-- figures of make bench -->x<!-- end of figures --> b", "y")
    'a <!-- figures of make bench -->\\ny\\n<!-- end of figures --> b'
    """
    first, last = map(re.escape, MARKS)
    made, count = re.subn(f"({first}).*?({last})",
                          lambda found: f"{found[1]}\n{figures}\n{found[2]}", text,
                          flags=re.DOTALL)
    if count != 1:
        raise RunError(f"README.md must have {MARKS[0]} and {MARKS[1]} once, not {count} times")
    return made


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="whole models everywhere")
    parser.add_argument("--variants", action="store_true",
                        help="whole steps at 225 MHz, with a long context, with 16-bit K and V, "
                             "and of sequences at different positions")
    parser.add_argument("--kept", action="store_true",
                        help="write the page of the figures in build/bench, whatever their commit")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default: 2)")
    parser.add_argument("--rows", type=pathlib.Path, default=ROOT / "build/bench", metavar="DIR",
                        help="where figures are kept (default: build/bench)")
    options = parser.parse_args()
    if options.jobs < 1:
        print(f"benchmarks: jobs must be at least 1, not {options.jobs}", file=sys.stderr)
        return 2
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:5.0f} s  {text}", flush=True)

    folder = options.rows
    wanted = rows(options.long, variants=options.variants or options.kept or None)
    try:
        if options.kept:
            speeds, found = kept_speeds(folder), kept(wanted, folder)
            if missing := [row.command for row in wanted
                           if row.name.startswith("step-") and row.name not in found]:
                raise RunError(f"{folder} must have whole steps, but lacks {missing[0]}")
        else:
            speeds = measure_speeds(folder, say)     # alone: nothing beside it
            found = measure_all(wanted, folder, options.jobs, say)
        found = with_estimates(wanted, found, options.jobs)
        text = page(wanted, found, speeds, long=options.long)
        readme = ROOT / "README.md"
        shown = renewed(readme.read_text(encoding="utf-8"), headline(found))
    except RunError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    (ROOT / "docs/benchmarks.md").write_text(text, encoding="utf-8")
    readme.write_text(shown, encoding="utf-8")
    missed = [target for target in targets(found) if not target.good]
    for target in missed:
        print(f"missed: {target}")
    say("docs/benchmarks.md is written")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
