# SPDX-License-Identifier: Apache-2.0
"""Combinational pieces that the FP32 units share."""

import dataclasses

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

#: Bit pattern of every NaN result.
NAN = 0x7FC0_0000
#: Bit pattern of +∞.
INFINITY = 0x7F80_0000
#: Largest biased exponent: infinities and NaN.
TOP = 255
#: Bias of the exponent.
BIAS = 127


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What an FP32 bit pattern means; a subnormal is a zero."""

    sign: Value
    #: Biased exponent, 8 bits.
    exponent: Value
    #: 24 bits with the leading one; only meaningful for a finite number, 0 for a zero.
    mantissa: Value
    zero: Value
    infinite: Value
    nan: Value


def unpack(bits: Value, *, flushed: bool = False) -> Parts:
    """The parts of an unsigned(32) bit pattern.

    With ``flushed`` nobody cares for the fraction of a subnormal.
    """
    exponent, fraction = bits[23:31], bits[:23]
    normal, top, rest = exponent.any(), exponent.all(), fraction.any()
    return Parts(
        sign=bits[31], exponent=exponent, zero=~normal, infinite=top & ~rest, nan=top & rest,
        mantissa=Cat(fraction if flushed else Mux(normal, fraction, 0), normal))


def nonfinite(bits: Value) -> Value:
    """Whether a bit pattern is an infinity or NaN."""
    return bits[23:31].all()


def key(bits: Value) -> Value:
    """Unsigned(32) whose order is the total order of FP32 numbers."""
    return Mux(bits[31], ~bits, Cat(bits[:31], Const(1, 1)))


def clean(bits: Value) -> Value:
    """The pattern as an operation reads it: a subnormal is a zero, NaN is :data:`NAN`.

    The `key` of :data:`NAN` is above that of every number.
    """
    parts = unpack(bits)
    magnitude = Mux(parts.zero, 0, bits[:31])
    return Mux(parts.nan, NAN, Cat(magnitude, parts.sign))


def let(m: Module, value: Value, name: str) -> Signal:
    """``value`` as a signal: an expression that is used twice would be built twice."""
    signal = Signal(value.shape(), name=name)
    m.d.comb += signal.eq(value)
    return signal


def leading_zeros(m: Module, value: Value) -> Value:
    """Zeros above the highest one of ``value``: 0..len(value), by a balanced tree."""
    width = 1 << len(value).bit_length()
    # Ones below the value end the count at its length.
    return _count(m, Cat(Const(-1, width - len(value)), value))[1]


def _count(m: Module, value: Value) -> tuple[Value, Value]:
    """(all zero, leading zeros if not) of a power-of-two number of bits."""
    if len(value) == 2:
        return ~value.any(), ~value[1]
    half = len(value) // 2
    low_zero, low = _count(m, value[:half])
    high_zero, high = _count(m, value[half:])
    count = Cat(Mux(high_zero, low, high), high_zero)
    return (let(m, high_zero & low_zero, f"empty_{len(value)}"),
            let(m, count, f"zeros_{len(value)}"))


def shift_sticky(m: Module, value: Value, amount: Value) -> Value:
    """``value >> amount``, its lowest bit or-ed with every bit shifted out."""
    lost = Const(0, 1)
    for k in reversed(range(len(amount))):
        places = 1 << k
        lost = let(m, lost | (amount[k] & value[:places].any()), f"lost_{k}")
        value = let(m, Mux(amount[k], value >> places, value)[:len(value)], f"shifted_{k}")
    return Cat(value[0] | lost, value[1:])


def pack(*, sign: Value, exponent: Value, mantissa: Value, guard: Value, sticky: Value,
         zero: Value, infinite: Value, nan: Value) -> Value:
    """Round a normalised number to nearest even and assemble it: unsigned(32).

    Parameters
    ----------
    sign : also that of a zero or infinity
    exponent : signed biased exponent; below 1 the number is too small before rounding: zero
    mantissa : 24 bits, the highest one set
    guard, sticky : first bit below the mantissa; whether any of the rest is set
    zero, infinite, nan : override the number, in rising priority
    """
    up = guard & (sticky | mantissa[0])
    # A carry out of the fraction goes where it belongs, up to infinity.
    magnitude = (Cat(mantissa[:23], exponent[:8]) + up)[:31]
    tiny = zero | (exponent < 1)
    large = infinite | (exponent >= TOP)
    # A tiny exponent is not large, so the order of these two only matters for the overrides.
    finite = Mux(large & ~zero, INFINITY, Mux(tiny, 0, magnitude))
    return Mux(nan, NAN, Cat(finite[:31], sign))
