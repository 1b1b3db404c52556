# SPDX-License-Identifier: Apache-2.0
"""Sum and maximum of several FP32 numbers, in the order of ``tree``: neighbours first."""

from functools import reduce
from operator import or_

from amaranth.hdl import Module, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..emit import Leaf
from .add import Add
from .add_unsigned import AddUnsigned
from .bits import nonfinite
from .maximum import Max
from .pipe import Pipe


class _Tree(wiring.Component):
    """A balanced tree of two-operand units; subclasses say which, and what they flag.

    Parameters
    ----------
    lanes : operands, a power of two; the sum of one is itself, in no cycle

    Members
    -------
    en : ``In(1)``
        All registers hold while it is 0.
    i : ``In(ArrayLayout(32, lanes))``
    o : ``Out(32)``
        The result of what came :attr:`LATENCY` cycles before.
    nonfinite : ``Out(1)``
        With ``o``: an operand or the result of any node is an infinity or NaN.
    """

    UNIT: type

    def __init__(self, lanes: int) -> None:
        if lanes < 1 or lanes & lanes - 1:
            raise ValueError(f"lanes must be a power of two, not {lanes!r}")
        self.lanes = lanes
        self.leaf_name = f"{self.UNIT.leaf_name}_tree_{lanes}"
        super().__init__({
            "en": In(1), "i": In(data.ArrayLayout(32, lanes)), "o": Out(32), "nonfinite": Out(1)})

    @property
    def LATENCY(self) -> int:
        return self.UNIT.LATENCY * (self.lanes.bit_length() - 1)

    def _nonfinite(self, m: Module, root) -> Value:
        raise NotImplementedError

    def _values(self) -> list[Value]:
        """The leaves of the tree."""
        return [self.i[k] for k in range(self.lanes)]

    def elaborate(self, platform):
        m = Module()
        values = self._values()
        level, unit = 0, None
        while len(values) > 1:
            pairs = zip(values[::2], values[1::2], strict=True)
            values = []
            for k, (a, b) in enumerate(pairs):
                m.submodules[f"node_{level}_{k}"] = unit = Leaf(self.UNIT())
                m.d.comb += [unit.en.eq(self.en), unit.a.eq(a), unit.b.eq(b)]
                values.append(unit.o)
            level += 1
        m.d.comb += [
            self.o.eq(values[0]),
            self.nonfinite.eq(self._nonfinite(m, unit) if unit else nonfinite(self.i[0]))]
        return m


class Tree(_Tree):
    """``tree(v)``: the sum of ``lanes`` numbers, every cycle."""

    UNIT = Add

    def _nonfinite(self, m, root):
        # A sum that reads an infinity or NaN is one itself: the root tells of all.
        return root.nonfinite


class UnsignedTree(Tree):
    """The same of numbers that are +0 or above, in fewer cycles."""

    UNIT = AddUnsigned


class MaxTree(_Tree):
    """The maximum of ``lanes`` numbers, every cycle; of one, itself after a :class:`Max`."""

    UNIT = Max

    @staticmethod
    def latency(lanes: int) -> int:
        """:attr:`LATENCY` of a tree of so many lanes."""
        return Max.LATENCY * max(1, lanes.bit_length() - 1)

    @property
    def LATENCY(self) -> int:
        return self.latency(self.lanes)

    def _values(self):
        return super()._values() * (2 if self.lanes == 1 else 1)

    def _nonfinite(self, m, root):
        # -∞ does not reach the root.
        seen = reduce(or_, (nonfinite(self.i[k]) for k in range(self.lanes)))
        return Pipe(m, self.en).delay(seen, self.LATENCY, "seen")
