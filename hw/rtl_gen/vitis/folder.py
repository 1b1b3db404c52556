# SPDX-License-Identifier: Apache-2.0
"""The files beside the Verilog, filled in for one card and one board."""

import dataclasses
import json
import re

from ..spec import contract
from ..spec.config import CardConfig, known
from . import connectivity, kernel
from .board import SHARED, Board

#: Control registers of a Vitis kernel, which are no arguments: name and byte offset.
_CONTROL = (("CTRL", 0x0), ("GIER", 0x4), ("IP_IER", 0x8), ("IP_ISR", 0xC))

#: Of AuroraFlow: the version whose ports and variables these files are for.
LINKS_COMMIT = "261c22cce2a260d0eb965def8b90ffdd77d669af"


def texts(config: CardConfig, board: Board, modules: list[str], *, commit: int
          ) -> dict[str, str]:
    """Files by name.

    Parameters
    ----------
    config : CardConfig
    board : Board
    modules : list of str
        Names of the card's modules, which lie beside these files as ``.v``.
    commit : int
        32 bits that the card shows; 0 for none.

    Raises
    ------
    ValueError
        The board has no place for such a card.
    """
    board.check(config)
    values = _values(config, board, modules)
    return {
        "kernel.xml": kernel.xml(config),
        "connectivity.cfg": connectivity.text(config, board),
        **{name: _shared(name, values) for name in ("Makefile", "package_kernel.tcl", "README.md")},
        board.constraints_name: _fill(board.constraints, values),
        "identity.json": json.dumps(identity(config, board, commit), indent=1) + "\n"}


def identity(config: CardConfig, board: Board, commit: int) -> dict[str, object]:
    """What the bitstream is, before it is built: the part of its manifest that is known now."""
    return {
        "board": board.name, "platform": board.platform, "part": board.part,
        "kernel": kernel.name(config), "clock_mhz": config.clock_mhz,
        "configuration": dataclasses.asdict(config) | {"digest": f"{config.digest:#010x}"},
        "contract": f"{contract.DIGEST:#010x}", "commit": f"{commit:08x}"}


def _values(config: CardConfig, board: Board, modules: list[str]) -> dict[str, str]:
    """Words of the shared files, by name."""
    links, ring = board.links or {}, config.cards > 1
    arguments = kernel.arguments(config)
    addressed = [argument for argument in arguments if argument.qualifier != kernel.STREAM]
    entries = [(name, offset, 32, "{}") for name, offset in _CONTROL]
    entries += [(argument.name, argument.offset, 8 * argument.bytes,
                 argument.port if argument.qualifier == kernel.GLOBAL else "{}")
                for argument in addressed]
    banks = {port: f"HBM[{bank}]" for bank, port in enumerate(kernel.masters(config))}
    return {
        "kernel": kernel.name(config), "title": board.title, "part": board.part,
        "platform": board.platform, **board.tools, "clock_mhz": str(config.clock_mhz),
        "clock_hz": str(config.clock_mhz * 1_000_000), "constraints": board.constraints_name,
        "channels": str(config.channels),
        "what": f"a card of `{config.name}`" + (
            f" in a ring of {config.cards}" if ring else ""),
        "masters": " ".join(kernel.masters(config)), "streams": " ".join(kernel.streams(config)),
        "files": "\n".join(f"    {module}.v" for module in modules),
        "registers": "\n".join(f"    {{{name} {offset:#05x} {bits} {port}}}"
                               for name, offset, bits, port in entries),
        "links": _shared("links.mk", {"beat_bytes": str(config.beat_bytes)}) if ring else "",
        "links_connect": ", which stream which link" if ring else "",
        "links_build": _shared("links.md", {
            f"{side}_lanes": links[side]["lanes"] for side in ("previous", "next")})
        if ring else "",
        "make": f"git clone https://github.com/pc2/AuroraFlow\n"
                f"git -C AuroraFlow checkout {LINKS_COMMIT}\nmake" if ring else "make",
        "cards": f"xrt:{config.name if known(config) else 'CONFIGURATION'}"
                 + (f"*{config.cards}" if ring else ""),
        "unknown": "" if known(config) else
        "Heddle does not know this configuration: its parameters were changed. Add it under a name "
        "of its own to `hw/rtl_gen/spec/config.py`\n(`docs/adding-a-configuration.md` says how), "
        "generate this folder again from that, and put the name into the command below.\n\n",
        "arguments": "\n".join(
            f"| {number} | `{a.name}` | `{a.offset:#05x}` | {a.bytes} | `{a.port}` | "
            f"{banks.get(a.port, '')} |" for number, a in enumerate(addressed))}


def _shared(name: str, values: dict[str, str]) -> str:
    """A file that boards share, filled in."""
    return _fill((SHARED / name).read_text(encoding="utf-8"), values)


def _fill(text: str, values: dict[str, str]) -> str:
    """Replace every ``@name@``; a name without a value is an error."""
    return re.sub(r"@([a-z_]+)@", lambda match: values[match[1]], text)
