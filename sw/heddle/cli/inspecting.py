# SPDX-License-Identifier: Apache-2.0
"""``heddle cards``: what there is."""

import dataclasses

import typer

from rtl_gen.spec import config as configs
from rtl_gen.spec import contract

from ..card import backends
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


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(cards)
