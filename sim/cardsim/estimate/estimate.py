# SPDX-License-Identifier: Apache-2.0
"""Figures of a workload on a card that need not exist."""

from typing import Any

from heddle.bench import Workload
from heddle.choose import Machine
from heddle.measure import Bench
from heddle.options import Options
from heddle.shape import Shape
from rtl_gen.spec.config import CardConfig

from ..rtl.timing import LinkTiming, Timing
from .card import EstimatedCard
from .link import Ring

#: Fields of a bench that say nothing of an estimate.
_OTHERS = ("token_ids", "text", "equal_to_sim", "simulation_seconds", "simulated_cycles_per_second",
           "write_beats", "link")


def estimate(config: CardConfig, shape: Shape, workload: Workload, *,
             options: Options | None = None, timing: Timing | None = None,
             link: LinkTiming | None = None) -> dict[str, Any]:
    """What ``heddle bench`` would measure, without simulating the card.

    Parameters
    ----------
    config : CardConfig
        Any, not only one that has a name.
    shape : Shape
    workload : Workload
    options : Options, optional
        Of the compiler: activations, cache, pattern.
    timing : Timing, optional
        Of the HBM model, with the clock.
    link : LinkTiming, optional
        Of the links of a ring.

    Returns
    -------
    dict
        The fields of ``heddle bench --json`` on cost, and ``milliseconds`` of the whole workload.

    Raises
    ------
    heddle.errors.UserError
        The model or the workload does not fit the card.
    """
    ring = Ring(config.cards)
    cards = [EstimatedCard(config, timing, link, ring, card) for card in range(config.cards)]
    link = link or LinkTiming()
    machine = Machine(clock_mhz=cards[0].clock_mhz, channel_gbps=cards[0].channel_gbps,
                      link_latency_ns=link.latency_ns, link_gbps=link.gbps)
    bench = Bench(cards=f"estimate:{config.name}", shape=shape, workload=workload,
                  options=options or Options(), machine=machine)
    found = {name: value for name, value in bench.cost(cards).items() if name not in _OTHERS}
    return {**found, "milliseconds": found["cycles_total"] / (1000 * cards[0].clock_mhz)}
