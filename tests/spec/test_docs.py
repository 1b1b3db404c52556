# SPDX-License-Identifier: Apache-2.0
"""Generated pages are fresh, and every unit has one."""

import pathlib
import subprocess
import sys

from rtl_gen import units

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_generated_pages_are_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "sw/tools/write_docs.py", "--check"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_unit_has_a_page_that_says_what_users_need():
    text = (ROOT / "docs/index.md").read_text()
    pages = sorted((ROOT / "docs/units").glob("*.md"))
    assert all(f"units/{page.stem}\n" in text for page in pages)
    marks = "".join(page.read_text() for page in pages)
    for unit in ("card", *units.UNITS):
        assert f"<!-- pins of {unit}: " in marks
    for page in pages:
        for part in ("## Ports", "## Latency and throughput", "## Stalls", "## Tests"):
            assert page.stem == "scratchpad" or part in page.read_text(), page
