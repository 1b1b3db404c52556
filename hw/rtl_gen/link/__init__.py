# SPDX-License-Identifier: Apache-2.0
"""Ring of cards: messages, and links between neighbours: frames, repair, flow control, hello."""

from .exchange import Exchange
from .link import Link

__all__ = ["Exchange", "Link"]
