# SPDX-License-Identifier: Apache-2.0
"""Delay lines."""

from amaranth import Module, Signal
from amaranth.hdl import ValueCastable


def delay(m: Module, value, cycles: int, name: str, *, reset_less: bool = True):
    """``value`` so many cycles later.

    Data need no reset, which lets the synthesis use shift registers; what says that data are there
    needs one (``reset_less=False``).
    """
    shape = value.shape() if isinstance(value, ValueCastable) else len(value)
    for k in range(cycles):
        register = Signal(shape, name=f"{name}_{k + 1}", reset_less=reset_less)
        m.d.sync += register.eq(value)
        value = register
    return value
