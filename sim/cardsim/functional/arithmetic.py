# SPDX-License-Identifier: Apache-2.0
"""Two ways through one calculation: exactly as defined, and as fast as NumPy can.

A handler is written once, over an arithmetic that it is given.  :class:`Checked` is
``cardsim.numerics`` and notices every NaN and infinity.  :data:`RAW` is bare NumPy, which differs
from the definition only where a NaN, an infinity or a subnormal number occurs.  The handler proves
that none did, from the size of its operands (*tame* numbers, see :func:`tame`) and of its result;
where it cannot, it starts again with :class:`Checked`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from cardsim import numerics as nx
from rtl_gen.spec import tables

F32 = np.float32
Floats = npt.NDArray[np.float32]

#: A number is tame if it is zero or between these in magnitude.  Tame numbers are multiples of
#: 2^-123, so that their sums and differences are never subnormal.
LOW, HIGH = 2.0**-100, 2.0**100


def tame(x: Floats) -> bool:
    """Whether all elements are tame."""
    magnitude = np.abs(x)
    if not np.maximum.reduce(magnitude, axis=None) <= HIGH:     # also if it is a NaN
        return False
    if np.minimum.reduce(magnitude, axis=None) >= LOW:
        return True
    return bool(magnitude[magnitude != 0].min(initial=HIGH) >= LOW)


def tame_scalar(x: Any) -> bool:
    """:func:`tame` for one number."""
    return bool(x == 0 or LOW <= abs(x) <= HIGH)


class Checked:
    """The defined arithmetic; ``nonfinite`` tells whether a NaN or infinity was read or made."""

    def __init__(self) -> None:
        self.nonfinite = False

    def see(self, *arrays: Any) -> None:
        """Look for NaNs and infinities."""
        if not self.nonfinite:
            self.nonfinite = nx.nonfinite(*arrays)

    def _through(self, function: Any, *operands: Any) -> Any:
        result = function(*operands)
        self.see(*operands, result)
        return result

    def add(self, a: Any, b: Any) -> Any:
        return self._through(nx.add, a, b)

    def sub(self, a: Any, b: Any) -> Any:
        return self._through(nx.sub, a, b)

    def mul(self, a: Any, b: Any) -> Any:
        return self._through(nx.mul, a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        return self._through(nx.maximum, a, b)

    def rcp(self, a: Any) -> Any:
        return self._through(nx.rcp, a)

    def rsqrt(self, a: Any) -> Any:
        self.see(nx.sqrt(a))
        return self._through(nx.rsqrt, a)

    def rsqrt_near(self, a: Any) -> Any:
        return self._through(nx.rsqrt_near, a)

    def exp(self, a: Any) -> Any:
        return self._through(nx.exp, a)

    def gelu(self, a: Any, form: int) -> Any:
        self.see(a)
        return nx.gelu(a, form)

    def tree(self, words: Any) -> Any:
        return self._through(nx.tree, words)

    def word_sum(self, words: Any) -> Any:
        # An infinity in between stays one or becomes a NaN.
        return self._through(nx.word_sum, words)


class Raw:
    """The same names, bare.  Operands must be tame; results are not looked at."""

    add, sub, mul, maximum = np.add, np.subtract, np.multiply, np.maximum

    @staticmethod
    def rcp(a: Any) -> Any:
        return F32(1) / a

    @staticmethod
    def rsqrt(a: Any) -> Any:
        return F32(1) / np.sqrt(a)

    rsqrt_near = staticmethod(nx.rsqrt_near)

    @staticmethod
    def exp(x: Any) -> Any:
        """:func:`cardsim.numerics.exp` in fewer steps, of finite numbers up to 88."""
        near = bool(np.minimum.reduce(x, axis=None) > -21
                    and np.maximum.reduce(x, axis=None) < 21)
        if not near:
            x = np.maximum(x, F32(-100))
        xi = np.floor(x * F32(2.0**26)).astype(np.int64)
        # The product needs 66 bits, near zero 63.
        t = xi * _LOG2E >> 32 if near else \
            (((xi & 0xFFFF) * _LOG2E >> 16) + (xi >> 16) * _LOG2E) >> 16
        u = t & (1 << 19) - 1
        row = _EXP[t >> 19 & 127]
        p = ((row[..., 2] * u >> 19) + row[..., 1]) * u >> 19
        p += row[..., 0]
        # Exponent and mantissa side by side: a mantissa of 2^24 carries into the exponent.
        p += 16 + (126 << 28)
        packed = (p >> 5) + (t >> 26 << 23)
        if not near:
            packed[packed < 1 << 23] = 0        # below EXP_LOW no exponent is left
        return packed.astype(np.uint32).view(F32)

    @staticmethod
    def gelu(x: Any, form: int) -> Any:
        """:func:`cardsim.numerics.gelu` in fewer steps."""
        magnitude = np.abs(x)
        if not np.maximum.reduce(magnitude, axis=None) < 8:
            return nx.gelu(x, form)
        z = (magnitude * F32(2.0**24)).astype(np.int32)
        u = (z & (1 << 18) - 1) - (1 << 17)
        # 2^12, 2^22 and 2^28 bound the three table columns: products need 64 bits.
        row = _GELU[form][z >> 18]
        p = ((row[..., 2] * u >> 18) + row[..., 1]) * u >> 18
        p += row[..., 0]
        np.maximum(p, 0, out=p)
        np.minimum(p, 1 << 28, out=p)
        p = np.where(x < 0, (1 << 28) - p, p)
        return x * (p * 2.0**-28).astype(F32)

    @staticmethod
    def tree(words: Floats) -> Any:
        while words.shape[-1] > 1:
            words = words[..., ::2] + words[..., 1::2]
        return words[..., 0]

    @staticmethod
    def word_sum(words: Floats) -> Any:
        # From +0: never -0.
        return np.add.accumulate(Raw.tree(words), axis=-1)[..., -1] + F32(0)


_LOG2E = np.int64(tables.EXP_LOG2E)
_EXP = np.array(tables.EXP, np.int64)
_GELU = np.array(tables.GELU, np.int64)

RAW = Raw()
