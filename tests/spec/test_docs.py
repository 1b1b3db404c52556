# SPDX-License-Identifier: Apache-2.0
"""Generated pages are fresh."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_generated_pages_are_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "sw/tools/write_docs.py", "--check"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
