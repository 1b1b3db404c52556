# SPDX-License-Identifier: Apache-2.0
"""The functional card: every instruction, bit for bit, in NumPy and in program order."""

from rtl_gen.spec.config import CardConfig

from .card import FunctionalCard
from .ring import Ring


def open_cards(config: CardConfig) -> list[FunctionalCard]:
    """Open the functional cards of a ring (entry point ``sim`` of the group ``heddle.cards``)."""
    ring = Ring(config.cards)
    return [FunctionalCard(config, ring, index) for index in range(config.cards)]


__all__ = ["FunctionalCard", "open_cards"]
