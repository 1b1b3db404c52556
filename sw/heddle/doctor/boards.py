# SPDX-License-Identifier: Apache-2.0
"""Boards of this machine, and what reaches them."""

import functools
import os
import pathlib
import sys

from .. import xrt
from ..card import CardMissing, open_cards
from .examine import Check, Missing, output

PART = "real cards"
SYSFS = pathlib.Path("/sys")
#: PCI vendor of Xilinx, now AMD; Alveo boards carry it.
XILINX = 0x10EE
#: Configuration of the boards that have but one.
BUILT = {"uart": "ulx3s"}
#: Kinds of card that need a board, and how to get them.
HOW = {"xrt": "Build a bitstream (heddle rtl --board u280) and name it in HEDDLE_XCLBIN; for a "
              "ring, name its boards in HEDDLE_XRT_DEVICES.",
       "uart": "Load a bitstream (make bitstream-ulx3s) and name the board's port in HEDDLE_PORT."}
#: Prints one line for each board.  `enumerate_devices` came with XRT 2.18; before, a board that is
#: not there is an exception.
PYXRT = """import pyxrt
def boards():
    if hasattr(pyxrt, "enumerate_devices"):
        yield from range(pyxrt.enumerate_devices())
        return
    for number in range(64):
        try:
            pyxrt.device(number)
        except Exception:
            return
        yield number
print("pyxrt")
for number in boards():
    device = pyxrt.device(number)
    info = pyxrt.xrt_info_device
    print(device.get_info(info.bdf).strip('"'), device.get_info(info.name).strip('"'))
"""


def _alveo(sysfs: pathlib.Path) -> str:
    """PCI devices of the vendor."""
    found = []
    for vendor in sorted(sysfs.glob("bus/pci/devices/*/vendor")):
        if int(vendor.read_text(), 16) == XILINX:
            device = vendor.with_name("device").read_text().strip()
            found.append(f"{vendor.parent.name} (device {device})")
    if not found:
        raise Missing("no PCI device of AMD/Xilinx")
    return ", ".join(found)


def _pyxrt() -> str:
    """Boards as XRT sees them."""
    try:
        lines = output([sys.executable, "-P", "-c", PYXRT]).splitlines()
    except RuntimeError as error:
        if "No module named 'pyxrt'" in str(error):
            raise Missing(xrt.of_another_python() or "pyxrt cannot be imported") from None
        raise
    boards = lines[1:]
    if not boards:
        raise Missing("pyxrt is there, but sees no board")
    return ", ".join(boards)


def _serial(sysfs: pathlib.Path, devices: pathlib.Path) -> str:
    """Serial ports on USB, which this user may open."""
    names = sorted(path.name for kind in ("ttyUSB*", "ttyACM*")
                   for path in sysfs.glob(f"class/tty/{kind}"))
    if not names:
        raise Missing("no serial port on USB")
    closed = [name for name in names if not os.access(devices / name, os.R_OK | os.W_OK)]
    if closed:
        raise PermissionError(f"{', '.join(str(devices / name) for name in closed)} must be "
                              "readable and writable for this user, and is not")
    return ", ".join(str(devices / name) for name in names)


def _card(kind: str) -> str:
    """A card of a kind, or those of a ring, if there are any, say who they are."""
    try:
        if kind == "xrt":
            # An Alveo board is what its bitstream was built from: of a ring, if several are named.
            ring = f"*{len(xrt.named())}" if len(xrt.named()) > 1 else ""
            cards = open_cards(f"{kind}:{xrt.configuration()}{ring}")
        else:
            cards = open_cards(f"{kind}:{BUILT[kind]}")
    except CardMissing as error:
        raise Missing(str(error)) from None
    try:
        found = [card.identity() for card in cards]
    finally:
        for card in cards:
            card.close()
    return "; ".join(f"{one.board}, contract {one.contract:08x}, commit {one.commit:08x}"
                     for one in found)


def boards(sysfs: pathlib.Path = SYSFS, devices: pathlib.Path = pathlib.Path("/dev")
           ) -> list[Check]:
    """Checks of boards on PCI Express and on USB, and of the kinds of card for them."""
    return [
        Check(name="Alveo boards", part=PART, attempt=functools.partial(_alveo, sysfs),
              how="Put a board into a PCI Express slot; in a container or virtual machine it must "
                  "be passed through."),
        Check(name="pyxrt", part=PART, attempt=_pyxrt,
              how="Install XRT of the board's shell and run source /opt/xilinx/xrt/setup.sh in "
                  "this shell: it is not on PyPI, and must belong to this version of Python."),
        Check(name="serial ports", part=PART,
              attempt=functools.partial(_serial, sysfs, devices),
              how="Connect the board by USB, and become a member of the port's group (Debian and "
                  "Ubuntu: sudo adduser $USER dialout, then log in again)."),
        *(Check(name=f"card {kind}", part=PART, attempt=functools.partial(_card, kind), how=how)
          for kind, how in HOW.items())]
