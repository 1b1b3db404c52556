# SPDX-License-Identifier: Apache-2.0
"""One FP32 number as an integer in one or two signed bytes."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

#: Largest quantised magnitudes with one and two digits.
LIMIT, LIMIT_WIDE = 127, 32639
#: Places by which the mantissa of a number within ``LIMIT_WIDE`` is shifted right at least.
LEAST = 9


class Rounding(wiring.Component):
    """``rint(y · 2^-exponent)``, limited, as digits: shifts and one carry chain.

    Members
    -------
    bits : ``In(32)``
        y, finite and not subnormal.
    exponent : ``In(signed(8))``
    wide : ``In(1)``
        Two digits.
    low, high : ``Out(signed(8))``
        Digits of the number that came :data:`LATENCY` cycles before: 256 · high + low.
    """

    LATENCY = 3
    leaf_name = "rounding"

    def __init__(self) -> None:
        super().__init__({
            "bits": In(32), "exponent": In(signed(8)), "wide": In(1),
            "low": Out(signed(8)), "high": Out(signed(8))})

    def elaborate(self, platform):
        m = Module()

        # 1: how far to shift right, beyond the LEAST places.
        places = Signal(signed(11))
        m.d.comb += places.eq(self.exponent - self.bits[23:31] + (127 + 23 - LEAST))
        zero_1, places_1, huge_1, wide_1, sign_1 = (
            Signal(size, name=name, reset_less=True) for name, size in (
                ("zero_1", 1), ("places_1", 4), ("huge_1", 1), ("wide_1", 1), ("sign_1", 1)))
        mantissa_1 = Signal(24, reset_less=True)
        m.d.sync += [
            zero_1.eq((places > 15) | ~self.bits[23:31].any()), places_1.eq(places[:4]),
            huge_1.eq((places < 0) & self.bits[23:31].any()),
            wide_1.eq(self.wide), sign_1.eq(self.bits[31]),
            mantissa_1.eq(Cat(self.bits[:23], 1))]

        # 2: the whole part, the bit below it, and whether there is more.
        shifted, lost = mantissa_1, 0
        for k in reversed(range(4)):
            lower = Signal(name=f"lost_{k}")
            value = Signal(24, name=f"shifted_{k}")
            m.d.comb += [
                lower.eq(lost | (places_1[k] & shifted[:1 << k].any())),
                value.eq(Mux(places_1[k], shifted >> (1 << k), shifted))]
            shifted, lost = value, lower
        whole_2 = Signal(15, reset_less=True)
        up_2, huge_2, wide_2, sign_2 = (
            Signal(name=name, reset_less=True) for name in ("up_2", "huge_2", "wide_2", "sign_2"))
        sticky = lost | shifted[:LEAST - 1].any()
        m.d.sync += [
            whole_2.eq(Mux(zero_1, 0, shifted[LEAST:])),
            up_2.eq(~zero_1 & shifted[LEAST - 1] & (sticky | shifted[LEAST])),
            huge_2.eq(huge_1), wide_2.eq(wide_1), sign_2.eq(sign_1)]

        # 3: plus or minus (whole + up) in one sum; 128 more has the high digit as its upper byte.
        limit = Signal(15)
        m.d.comb += limit.eq(Mux(wide_2, LIMIT_WIDE, LIMIT))
        over = Signal()
        m.d.comb += over.eq(huge_2 | (whole_2 > limit) | ((whole_2 == limit) & up_2))
        signed_whole = Cat(whole_2 ^ sign_2.replicate(15), sign_2)
        value, above = Signal(16), Signal(16)
        m.d.comb += [
            value.eq(signed_whole + (sign_2 ^ up_2)),
            above.eq(signed_whole + 128 + (sign_2 ^ up_2))]
        m.d.sync += [
            self.low.eq(Mux(over, Mux(sign_2, -LIMIT, LIMIT), value[:8].as_signed())),
            self.high.eq(Mux(over, Mux(wide_2, Mux(sign_2, -LIMIT, LIMIT), 0),
                             above[8:].as_signed()))]
        return m
