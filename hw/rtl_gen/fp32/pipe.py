# SPDX-License-Identifier: Apache-2.0
"""Registers of a pipeline."""

from amaranth.hdl import Const, Module, Signal, Value, ValueCastable


class Pipe:
    """Makes the registers of a pipeline: all hold while ``en`` is 0.

    Parameters
    ----------
    m : the module that the registers go into
    en : whether the pipeline moves; None: always
    """

    def __init__(self, m: Module, en: Value | None = None) -> None:
        self._m, self._en = m, en

    @property
    def enable(self) -> Value:
        """That of all registers."""
        return Const(1, 1) if self._en is None else self._en

    def __call__(self, value: Value, name: str, *, reset_less: bool = True) -> Signal:
        """``value`` one cycle later.

        Numbers need no reset, which lets the synthesis use shift registers; flags that say whether
        a number is there do (``reset_less=False``).
        """
        shape = value.shape() if isinstance(value, ValueCastable) else Value.cast(value).shape()
        register = Signal(shape, name=name, reset_less=reset_less)
        if self._en is None:
            self._m.d.sync += register.eq(value)
        else:
            with self._m.If(self._en):
                self._m.d.sync += register.eq(value)
        return register

    def delay(self, value: Value, cycles: int, name: str, *, reset_less: bool = True) -> Value:
        """``value`` so many cycles later."""
        for k in range(cycles):
            value = self(value, f"{name}_{k + 1}", reset_less=reset_less)
        return value
