# SPDX-License-Identifier: Apache-2.0
"""Integer times a power of two, as FP32."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .bits import BIAS, leading_zeros, let, nonfinite, pack
from .pipe import Pipe

#: Bits that are shifted together at first.
_GROUP_BITS = 4
_GROUP = 1 << _GROUP_BITS


class Convert(wiring.Component):
    """``cvt(n, e)``: the integer n times 2^e, rounded once, every cycle.

    Parameters
    ----------
    width : bits of n, two's complement, at least 28

    Members
    -------
    en : ``In(1)``
        All registers hold while it is 0.
    n : ``In(signed(width))``
    e : ``In(signed(10))``
    o : ``Out(32)``
        The result of what came :data:`LATENCY` cycles before.
    nonfinite : ``Out(1)``
        With ``o``: it is an infinity.
    """

    LATENCY = 4

    def __init__(self, width: int) -> None:
        if not 28 <= width <= 256:
            raise ValueError(f"width must be in 28..256, not {width!r}")
        self.width = width
        self.leaf_name = f"fp_convert_{width}"
        super().__init__({
            "en": In(1), "n": In(signed(width)), "e": In(signed(10)),
            "o": Out(32), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        pipe = Pipe(m, self.en)

        # 1: the magnitude; -2^(width - 1) has one, too.
        negative = self.n < 0
        magnitude = Signal(unsigned(self.width))
        m.d.comb += magnitude.eq(Mux(negative, -self.n, self.n))
        magnitude_1 = pipe(magnitude, "magnitude_1")
        sign_3 = pipe.delay(negative, 3, "sign")
        e_1 = pipe(self.e, "e_1")

        # 2: where its highest one is.
        zeros_2 = pipe(leading_zeros(m, magnitude_1), "zeros_2")
        magnitude_2 = pipe(magnitude_1, "magnitude_2")
        exponent_2 = pipe(e_1 + (BIAS + self.width - 1), "exponent_2")

        # 3: normalise.
        normal, rest = self._normalise(m, magnitude_2, zeros_2)
        mantissa_3 = pipe(normal[-24:], "mantissa_3")
        guard_3 = pipe(normal[-25], "guard_3")
        sticky_3 = pipe(normal[:-25].any() | rest, "sticky_3")
        zero_3 = pipe(zeros_2 == self.width, "zero_3")
        exponent = Signal(signed(12))
        m.d.comb += exponent.eq(exponent_2 - zeros_2)
        exponent_3 = pipe(exponent, "exponent_3")

        # 4: round.
        m.d.comb += self.o.eq(pipe(pack(
            sign=sign_3, exponent=exponent_3, mantissa=mantissa_3, guard=guard_3, sticky=sticky_3,
            zero=zero_3, infinite=Const(0, 1), nan=Const(0, 1)), "result"))
        m.d.comb += self.nonfinite.eq(nonfinite(self.o))

        return m

    def _normalise(self, m, value, zeros):
        """The upper bits of ``value << zeros``, 25 at least, and whether any of the others is set.

        Whole groups of bits first: after that few bits can still become upper ones.
        """
        if self.width <= 25 + _GROUP:
            return let(m, (value << zeros)[:self.width], "shifted"), Const(0, 1)
        groups = -(-self.width // _GROUP)
        padded = Cat(Const(0, groups * _GROUP - self.width), value)     # the highest one stays
        near = min(groups, -(-(25 + _GROUP - 1) // _GROUP))
        # By groups of leading zeros: the bits that may become upper ones, and the rest.
        any_of = [let(m, padded.word_select(k, _GROUP).any(), f"any_{k}") for k in range(groups)]
        choices, rests = [], []
        for skipped in range(groups):
            top = Cat(Const(0, _GROUP * max(0, near + skipped - groups)),
                      padded[max(0, groups - skipped - near) * _GROUP:(groups - skipped) * _GROUP])
            choices.append(top)
            rests.append(Cat(any_of[:max(0, groups - skipped - near)]).any())
        coarse, fine = zeros[_GROUP_BITS:], zeros[:_GROUP_BITS]
        upper = let(m, Array(choices)[coarse], "upper")
        shifted = let(m, (upper << fine)[:len(upper)], "shifted")
        return shifted, Array(rests)[coarse]
