# SPDX-License-Identifier: Apache-2.0
"""Values some cycles later."""

from amaranth import Module, Signal


def delay(m: Module, value, cycles: int):
    """``value`` so many cycles later; a shift register without reset."""
    for _ in range(cycles):
        later = Signal.like(value, name="later", reset_less=True)
        m.d.sync += later.eq(value)
        value = later
    return value
