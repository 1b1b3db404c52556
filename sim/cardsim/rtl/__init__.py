# SPDX-License-Identifier: Apache-2.0
"""The Verilated card: the generated Verilog with its HBM model, compiled, in a child process.

The cards of a ring share a process, in which links join them.
"""

from .card import RtlCard, open_cards
from .timing import LinkTiming, Timing

__all__ = ["LinkTiming", "RtlCard", "Timing", "open_cards"]
