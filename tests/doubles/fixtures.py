# SPDX-License-Identifier: Apache-2.0
"""What tests of real cards share: bitstreams, and a machine with boards."""

import pathlib
import subprocess
import sys
import zipfile

from tests.doubles import machine as machines
from tests.doubles import package

MODEL = package.HERE.parents[1] / "sw" / "models" / "shakespeare-gpt2"
#: What the cards show as their commit.
COMMIT = 0x1234ABCD


def build(folder: pathlib.Path, *arguments: str) -> pathlib.Path:
    """A bitstream of what ``heddle rtl --board`` writes of the tiny card."""
    subprocess.run([sys.executable, "-m", "heddle", "rtl", "--config", "tiny",
                    "--commit", f"{COMMIT:08x}", "-o", folder / "tiny", *arguments], check=True)
    return package.archive(folder / "tiny", folder / "tiny.xclbin")


def edited(xclbin: pathlib.Path, path: pathlib.Path, name: str, *changes: tuple[str, str]
           ) -> pathlib.Path:
    """A bitstream with texts replaced in one of its files."""
    with zipfile.ZipFile(xclbin) as source, zipfile.ZipFile(path, "w") as made:
        for entry in source.namelist():
            text = source.read(entry).decode()
            for old, new in changes if entry == name else ():
                assert old in text
                text = text.replace(old, new)
            made.writestr(entry, text)
    return path


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
