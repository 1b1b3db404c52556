# SPDX-License-Identifier: Apache-2.0
"""Which boards and which bitstream: from options, or from the environment."""

import importlib
import os
import pathlib
import sys
import sysconfig
from collections.abc import Callable, Sequence
from typing import Any

from rtl_gen.spec.config import CardConfig

from ..card import CardError, CardMissing
from .card import XrtCard
from .device import PREFIX, Device, read
from .start import Start

#: The bitstream, and the boards by number or PCIe address (bus:device.function) with commas between
#: them, if no option says so.
XCLBIN, DEVICES = "HEDDLE_XCLBIN", "HEDDLE_XRT_DEVICES"


def open_cards(config: CardConfig, *, xclbin: str | os.PathLike[str] | None = None,
               devices: Sequence[int | str] | None = None,
               say: Callable[[str], None] = lambda text: None, **simulated: Any) -> list[XrtCard]:
    """Load a bitstream onto boards and open them as the cards of a ring, or as one card.

    Parameters
    ----------
    config : CardConfig
        What the bitstream must have been built from.
    xclbin : path, optional
        Its file; ``$HEDDLE_XCLBIN`` if not given.
    devices : sequence of int or str, optional
        Boards in the order of the ring, as XRT numbers them or by PCIe address;
        ``$HEDDLE_XRT_DEVICES`` if not given, or else the first ones.
    say : callable
        Is told in a few words what takes long.
    simulated
        Options that only simulated cards have are refused.

    Raises
    ------
    ValueError
        An option is for simulated cards.
    CardError
        XRT, a board or the bitstream is missing, or they do not match.
    """
    if simulated:
        raise ValueError(f"{', '.join(simulated)} must be left out on real cards")
    pyxrt = _pyxrt()
    path = _bitstream(xclbin)
    boards = _boards(devices, config)
    start = Start(config.cards)
    cards: list[XrtCard] = []
    try:
        for place, board in enumerate(boards):
            say(f"loading {path.name} onto board {board}")
            device = Device(pyxrt, board, path, config)
            cards.append(XrtCard(config, device, start=start, place=place))
    except BaseException:
        for card in cards:
            card.close()
        raise
    return cards


def configuration() -> str:
    """Name of the configuration whose kernel is in the bitstream that the environment names."""
    pyxrt, path = _pyxrt(), _bitstream(None)
    for name in read(pyxrt, path)[1]:
        if name.startswith(PREFIX):
            return name.removeprefix(PREFIX)
    raise CardError(f"the bitstream {path} must have a kernel of Heddle's, and has none")


def named() -> list[int | str]:
    """Boards that the environment names, in the order of the ring; none if it says nothing."""
    text = os.environ.get(DEVICES, "")
    return [int(part) if part.isdecimal() else part
            for part in map(str.strip, text.split(",")) if part]


def _pyxrt() -> Any:
    """pyxrt, which XRT installs outside of Python's own folders."""
    try:
        return importlib.import_module("pyxrt")
    except ImportError as error:
        if (other := of_another_python()) is not None:
            raise CardMissing(other) from None
        raise CardMissing("pyxrt must be importable for cards of the kind xrt: install XRT and run "
                          f"`source /opt/xilinx/xrt/setup.sh` in this shell ({error})") from None


def of_another_python() -> str | None:
    """What is wrong with a pyxrt that is there and was compiled for another Python, if one is."""
    places = [pathlib.Path(os.environ.get("XILINX_XRT", "/opt/xilinx/xrt"), "python"),
              *map(pathlib.Path, sys.path)]
    mine = sysconfig.get_config_var("EXT_SUFFIX")
    for found in (file for place in places for file in sorted(place.glob("pyxrt.cpython-*.so"))):
        if found.name != f"pyxrt{mine}":
            return (f"pyxrt must be compiled for this Python ({mine}), not for another "
                    f"({found}): use that Python, or compile pyxrt again as Heddle's page on "
                    "boards says")
    return None


def _bitstream(given: str | os.PathLike[str] | None) -> pathlib.Path:
    text = given if given is not None else os.environ.get(XCLBIN)
    if not text:
        raise CardMissing(f"the bitstream must be given: set {XCLBIN} to its xclbin file, which "
                          "`heddle rtl --board` and make build")
    path = pathlib.Path(text)
    if not path.is_file():
        raise CardError(f"the bitstream must be an xclbin file, not {str(path)!r}, where there is "
                        "none")
    return path


def _boards(given: Sequence[int | str] | None, config: CardConfig) -> list[int | str]:
    found = list(given) if given is not None else named() or list(range(config.cards))
    if len(found) != config.cards or len(set(found)) != len(found):
        raise CardError(f"the boards must be {config.cards} different ones for this ring, not "
                        f"{', '.join(map(str, found))}" if config.cards > 1 else
                        f"there must be one board for one card, not {', '.join(map(str, found))}")
    return found
