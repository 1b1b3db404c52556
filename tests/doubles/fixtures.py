# SPDX-License-Identifier: Apache-2.0
"""What tests of real cards share: bitstreams, and a machine with boards."""

import pathlib
import subprocess
import sys

from tests.doubles import machine as machines
from tests.doubles import package

MODEL = package.HERE.parents[1] / "sw" / "models" / "shakespeare-gpt2"
#: What the cards show as their commit.
COMMIT = 0x1234ABCD


def build(folder: pathlib.Path, *arguments: str) -> pathlib.Path:
    """A bitstream of what ``heddle rtl --board`` writes of the tiny card."""
    subprocess.run([sys.executable, "-m", "heddle", "rtl", "--config", "tiny", "--no-dsp48",
                    "--commit", f"{COMMIT:08x}", "-o", folder / "tiny", *arguments], check=True)
    return package.archive(folder / "tiny", folder / "tiny.xclbin")


def machine(monkeypatch):
    """A machine with one U280, which ``import pyxrt`` finds itself in; yields a function that puts
    another in its place."""
    def plug(**parts):
        made = machines.Machine(**parts)
        monkeypatch.setattr(machines, "here", made)
        return made

    monkeypatch.syspath_prepend(str(package.HERE))
    monkeypatch.delenv("HEDDLE_XCLBIN", raising=False)
    monkeypatch.delenv("HEDDLE_XRT_DEVICES", raising=False)
    plug()
    yield plug
    sys.modules.pop("pyxrt", None)
