# SPDX-License-Identifier: Apache-2.0
"""The functional card: every instruction, bit for bit, in NumPy and in program order."""

from rtl_gen.spec.config import CardConfig

from .card import FunctionalCard


def open_card(config: CardConfig, index: int) -> FunctionalCard:
    """Open one functional card (entry point ``sim`` of the group ``heddle.cards``).

    Parameters
    ----------
    config : CardConfig
    index : int
        Number of the card among those opened together; functional cards do not differ.
    """
    return FunctionalCard(config)


__all__ = ["FunctionalCard", "open_card"]
