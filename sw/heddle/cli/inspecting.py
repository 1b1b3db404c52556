# SPDX-License-Identifier: Apache-2.0
"""``heddle cards`` and ``heddle doctor``: what there is, and whether it works."""

import dataclasses
import functools
import importlib.metadata
import platform
from collections.abc import Callable

import typer

from rtl_gen.spec import config as configs
from rtl_gen.spec import contract

from ..card import NoCard, backends, open_cards
from ..errors import RunError
from . import common
from .common import OUT


def cards(json: common.Json = None) -> None:
    """List the kinds of cards that are installed, and the configurations.

    Example: heddle cards
    """
    found = backends()
    OUT.print(f"kinds: {', '.join(found) or 'none'}")
    OUT.print(common.table(
        ("config", "channels", "beat", "columns", "MHz", "context", "HBM", "digest"),
        [(c.name, str(c.channels), f"{c.beat_bytes} B", str(c.tokens), str(c.clock_mhz),
          str(c.context), f"{c.channels * c.channel_bytes >> 20} MB", f"{c.digest:08x}")
         for c in configs.CONFIGS.values()]))
    common.write_json(json, {
        "backends": found, "contract": f"{contract.DIGEST:08x}",
        "configs": {name: dataclasses.asdict(c) for name, c in configs.CONFIGS.items()}})


#: The configuration that cards of a kind have, where it is not ours to choose.
_BUILT = {"uart": "ulx3s"}


def _identity(name: str) -> str:
    """Open a card of a kind and ask it who it is."""
    card = open_cards(f"{name}:{_BUILT.get(name, 'tiny')}")[0]
    try:
        found = card.identity()
    finally:
        card.close()
    return f"{found.board}, contract {found.contract:08x}, commit {found.commit:08x}"


def doctor() -> None:
    """Check the installation: Python, packages, and that every kind of card opens.

    Example: heddle doctor
    """
    checks: list[tuple[str, Callable[[], str]]] = [
        ("Python", platform.python_version), ("contract", lambda: f"{contract.DIGEST:08x}")]
    for name in ("heddle-fpga", "numpy", "safetensors", "tokenizers"):
        checks.append((name, functools.partial(importlib.metadata.version, name)))
    for name in backends():
        checks.append((f"card {name}", functools.partial(_identity, name)))
    failed, rows = [], []
    for name, check in checks:
        try:
            rows.append((name, "ok", check()))
        except NoCard as error:     # which is not a fault of the installation
            rows.append((name, "none", str(error)))
        # Whatever is wrong with one part, the others are looked at too.
        except Exception as error:
            rows.append((name, "fails", " ".join(str(error).split()) or type(error).__name__))
            failed.append(name)
    OUT.print(common.table(("", "", ""), rows, right=3))
    if failed:
        raise RunError(f"{', '.join(failed)}: see above")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(cards)
    app.command()(doctor)
