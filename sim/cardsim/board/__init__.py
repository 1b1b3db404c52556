# SPDX-License-Identifier: Apache-2.0
"""A board simulated at its pins: the generated Verilog, an SDRAM, and a serial line as a
pseudo-terminal, which the driver of the real board opens."""

from .process import BoardProcess

__all__ = ["BoardProcess"]
