# SPDX-License-Identifier: Apache-2.0
"""Boards: read from the data in ``hw/boards``, or from a folder of the user's."""

import dataclasses
import json
import pathlib
from typing import Any

from ..spec.config import CardConfig

#: Data of the boards; a link to ``hw/boards`` in the repository, a folder of the installed package.
FOLDER = pathlib.Path(__file__).resolve().parent / "boards"
#: Files that boards share.
SHARED = FOLDER / "alveo"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Board:
    """A board, as its ``board.json`` has it (``hw/boards/README.md``)."""

    name: str
    title: str
    part: str
    platform: str
    tools: dict[str, str]
    #: Kernel clock.
    highest_mhz: int
    #: Text of the constraints' file, and its name.
    constraints: str
    constraints_name: str
    banks: int
    bank_bytes: int
    #: How the links of a ring are wired; None if there are none.
    links: dict[str, Any] | None

    def check(self, config: CardConfig) -> None:
        """Refuse a card that the board has no place for."""
        for what, value, most, unit in (
                ("channels", config.channels, self.banks, ""),
                ("channel_bytes", config.channel_bytes, self.bank_bytes, ""),
                ("clock_mhz", config.clock_mhz, self.highest_mhz, "")):
            if value > most:
                raise ValueError(f"{what} must be at most {most}{unit} on {self.name}, not {value}")
        if config.cards == 1:
            return
        if self.links is None:
            raise ValueError(f"cards must be 1 on {self.name}, which has no links, "
                             f"not {config.cards}")
        if config.beat_bytes not in self.links["beat_bytes"]:
            takes = " or ".join(map(str, self.links["beat_bytes"]))
            raise ValueError(f"beat_bytes must be {takes} for the links of {self.name}, "
                             f"not {config.beat_bytes}")


def boards() -> list[str]:
    """Names of the boards there are data of."""
    return sorted(path.parent.name for path in FOLDER.glob("*/board.json"))


def find(name: str) -> Board:
    """The board of that name, or the one in a folder.

    Raises
    ------
    ValueError
        There is none, or its data cannot be used.
    """
    folder = FOLDER / name if name in boards() else pathlib.Path(name)
    path = folder / "board.json"
    if not path.is_file():
        raise ValueError(f"the board must be one of {', '.join(boards())}, or a folder with "
                         f"board.json, not {name!r}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        hbm, constraints = data.pop("hbm"), data.pop("constraints")
        return Board(**data, banks=hbm["banks"], bank_bytes=hbm["bank_bytes"],
                     constraints=(folder / constraints).read_text(encoding="utf-8"),
                     constraints_name=constraints)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{path} must describe a board as hw/boards/README.md says: "
                         f"{error}") from None
