# SPDX-License-Identifier: Apache-2.0
"""The Verilated card: the generated Verilog with its HBM model, compiled, in a child process."""

from .card import RtlCard, open_card
from .timing import Timing

__all__ = ["RtlCard", "Timing", "open_card"]
