# SPDX-License-Identifier: Apache-2.0
"""What a run cost, from the counters of the status records."""

from collections.abc import Mapping
from typing import Any

from rtl_gen.spec.config import CardConfig

from .card import parse_cards
from .model import Model

#: Stalls by cause: what the engine waited for.
STALLS = ("weights", "dependency", "epilogue", "idle")


def costs(model: Model) -> dict[str, Any]:
    """Figures for JSON, by the names that docs/cli.md explains.

    Those that come from cycles are None on cards that count none.
    """
    runtime, spec = model.runtime, parse_cards(model.cards)
    config, totals = runtime.layout.config, runtime.totals
    return {"backend": spec.backend, "config": config.name, "cards": spec.count,
            "clock_mhz": config.clock_mhz, "steps": totals.steps,
            **cycle_figures(config, totals.counters, totals.steps, config.clock_mhz,
                            1 + runtime.layout.options.digits)}


def cycle_figures(config: CardConfig, counters: Mapping[str, int], tokens: int, clock_mhz: float,
                  columns: float) -> dict[str, Any]:
    """What comes from a card's counters; None throughout on a card that counts no cycles.

    Parameters
    ----------
    config : CardConfig
    counters : mapping
        By their names in the status record.
    tokens : int
        Tokens that came of it.
    clock_mhz : float
    columns : float
        Columns that each weight meets, on average.
    """
    cycles = counters.get("cycles", 0)
    if not cycles or not tokens:
        return dict.fromkeys(("cycles_total", "cycles_per_token", "tokens_per_second_card",
                              "hbm_bytes_per_token", "hbm_read_utilisation", "mac_utilisation",
                              "stall_cycles"))
    per_token = cycles / tokens
    return {
        "cycles_total": cycles, "cycles_per_token": per_token,
        "tokens_per_second_card": clock_mhz * 1e6 / per_token,
        "hbm_bytes_per_token": counters["read_beats"] * config.beat_bytes / tokens,
        "hbm_read_utilisation": counters["read_beats"] / (cycles * config.channels),
        # Columns that an entry meets, over all columns in all cycles.
        "mac_utilisation": counters["engine_beats"] * columns / (cycles * config.tokens),
        "stall_cycles": {cause: counters[f"stall_{cause}"] for cause in STALLS}}
