# SPDX-License-Identifier: Apache-2.0
"""Boards without a vendor's shell: SDRAM, a serial line to the host, and a card between them."""

from .board import Board
from .sdram import Chip

__all__ = ["Board", "Chip"]
