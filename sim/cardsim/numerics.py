# SPDX-License-Identifier: Apache-2.0
"""The card's arithmetic in NumPy, bit for bit: docs/numerics.md, written apart from the gateware.

Every function takes and returns FP32 arrays (or what ``numpy.float32`` accepts), broadcasts as
NumPy does and touches no argument.  Nothing raises a floating point warning.  Whether a NaN or an
infinity was read or made is for the caller to see, with :func:`nonfinite`.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rtl_gen.spec import tables

F32 = np.float32
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[Any]

#: The one NaN that results hold.
NAN = np.uint32(0x7FC00000).view(F32)
INF = F32(np.inf)
#: The smallest normal number; whatever is below it is zero.
SMALLEST = np.uint32(0x00800000).view(F32)
LARGEST = np.uint32(0x7F7FFFFF).view(F32)
ZERO, ONE = F32(0), F32(1)

#: Above the first, exp is infinite; below the second, zero.
EXP_HIGH, EXP_LOW = (np.uint32(bits).view(F32) for bits in (0x42B17217, 0xC2AEAC4F))
_EXP = np.array(tables.EXP, np.int64).T.copy()
_GELU = np.array(tables.GELU, np.int64).transpose(0, 2, 1).copy()
_RSQRT = np.array(tables.RSQRT, np.int64)

#: Largest quantised magnitude by number of digits.
LIMIT = {1: 127, 2: 32639}
#: How far an exponent may lie above its base.
REACH = 31

_quiet = np.errstate(all="ignore")


def scalar(x: npt.ArrayLike) -> np.float32:
    """A single value as a NumPy scalar."""
    value: Any = np.asarray(x, F32)[()]
    return F32(value)


def bits(x: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """The 32 bits of each element."""
    return np.asarray(x, F32).view(np.uint32)


def from_bits(x: npt.ArrayLike) -> Floats:
    """FP32 numbers from their 32 bits."""
    return np.asarray(x, np.uint32).view(F32)


def nonfinite(*arrays: npt.ArrayLike) -> bool:
    """Whether any element is a NaN or an infinity: what the sticky bit ``NONFINITE`` reports."""
    return not all(np.isfinite(array).all() for array in arrays)


def flush(x: npt.ArrayLike) -> Floats:
    """Operands as read: subnormals are zeros of their sign, any NaN is the one NaN."""
    x = np.asarray(x, F32)
    # A product with 0 or 1: exact, and keeps signs.  A signalling NaN is one of many.
    with np.errstate(invalid="ignore"):
        read = x * (np.abs(x) >= SMALLEST)
    return np.where(read != read, NAN, read)


def _canonical(x: Floats) -> Floats:
    return np.where(x != x, NAN, x)


def key(x: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Unsigned numbers in the total order of the elements: −NaN < −∞ < … < −0 < +0 < … < NaN."""
    raw = bits(x)
    return raw ^ np.where(raw >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))


@_quiet
def add(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    # Sums below the normal range are multiples of 2^-149 and therefore not rounded: flushing the
    # IEEE result is flushing before rounding.
    return flush(flush(a) + flush(b))


@_quiet
def sub(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    return add(a, np.negative(b, dtype=F32))


@_quiet
def mul(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    # 48 bits and exponents from -252: exact in FP64, so that the magnitude is seen before rounding.
    exact = flush(a).astype(np.float64) * flush(b).astype(np.float64)
    return _canonical((exact * (np.abs(exact) >= SMALLEST)).astype(F32))


def madd(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> Floats:
    """a·b + c in two roundings."""
    return add(mul(a, b), c)


@_quiet
def maximum(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """The larger in the order of :func:`key`; NaN if either is NaN."""
    a, b = np.broadcast_arrays(flush(a), flush(b))
    return np.where((a != a) | (b != b), NAN, np.where(key(a) >= key(b), a, b))


@_quiet
def rcp(a: npt.ArrayLike) -> Floats:
    a = flush(a)
    # 1/a is below 2^-126, before rounding, exactly if |a| > 2^126.
    return _canonical(np.where(np.abs(a) > F32(2.0**126), np.copysign(ZERO, a), ONE / a))


@_quiet
def sqrt(a: npt.ArrayLike) -> Floats:
    return _canonical(np.sqrt(flush(a)))


def rsqrt(a: npt.ArrayLike) -> Floats:
    return rcp(sqrt(a))


def rsqrt_near(a: npt.ArrayLike) -> Floats:
    """The reciprocal square root of the norm, from a table: relative error below 2^-23."""
    a = flush(a)
    raw = np.asarray(bits(a), np.int64)
    e, fraction = raw >> 23 & 255, raw & (1 << 23) - 1
    c0, c1, c2 = np.moveaxis(_RSQRT[(~e & 1) << 7 | fraction >> 16], -1, 0)
    u = (fraction & 0xFFFF) - (1 << 15)
    p = c0 + ((c1 + (c2 * u >> 16)) * u >> 16)
    # A mantissa of 2^24 carries into the exponent.
    found = from_bits(((125 - (e - 127 >> 1) << 23) + (p + 8 >> 4)).astype(np.uint32))
    found = np.where(np.isinf(a), ZERO, found)
    found = np.where(a == 0, np.copysign(F32(np.inf), a), found)
    return _canonical(np.where((a < 0) | np.isnan(a), F32(np.nan), found))


@_quiet
def cvt(n: npt.ArrayLike, e: npt.ArrayLike) -> Floats:
    """n·2^e, rounded once.

    Parameters
    ----------
    n : integers
        An integer array, or an object array of Python integers of any size.
    e : int or integer array
    """
    n, e = np.asarray(n), np.asarray(e, np.int64)
    if n.dtype == object:
        n, e = _shorten(n, e)
    n = n.astype(np.int64, copy=False)
    if n.size and max(abs(int(n.max())), abs(int(n.min()))) >= 1 << 53:
        # FP64 holds 53 bits.  Of longer numbers the bits far below FP32's last one collapse into
        # one sticky bit: on which side of a tie the number lies stays visible.
        long = (n >= 1 << 53) | (n <= -(1 << 53))
        n, e = np.where(long, n >> 11 | ((n & 0x7FF) != 0), n), e + np.where(long, 11, 0)
    # The largest sizes are 2^53 and the smallest 1, far inside FP64 for all exponents in use.
    exact = np.ldexp(n.astype(np.float64), np.clip(e, -900, 900).astype(np.int32))
    return np.asarray(exact * (np.abs(exact) >= SMALLEST)).astype(F32)


def _shorten(n: Ints, e: Ints) -> tuple[Ints, Ints]:
    """Python integers as 62-bit ones whose last bit is sticky, and their exponents."""
    n, e = np.broadcast_arrays(n, e)
    short, exponent = np.empty(n.shape, np.int64), np.empty(n.shape, np.int64)
    for where, value in np.ndenumerate(n):
        places = max(0, int(value).bit_length() - 61)
        short[where] = (value >> places) | ((value & (1 << places) - 1) != 0)
        exponent[where] = e[where] + places
    return short, exponent


@_quiet
def exp(x: npt.ArrayLike) -> Floats:
    x = flush(x)
    high, low = x > EXP_HIGH, x < EXP_LOW
    inside = np.where(high | low | (x != x), ZERO, x)
    xi = np.floor(inside.astype(np.float64) * 2.0**26).astype(np.int64)
    # (xi * L) >> 32 without its 66 bits: upper and lower halves of xi apart.
    scale = np.int64(tables.EXP_LOG2E)
    t = ((xi >> 16) * scale + ((xi & 0xFFFF) * scale >> 16)) >> 16
    n, f = t >> 26, t & (1 << 26) - 1
    c0, c1, c2 = _EXP[:, f >> 19]
    u = f & (1 << 19) - 1
    p = c0 + ((c1 + (c2 * u >> 19)) * u >> 19)
    # 2^24 needs no case of its own: the carry runs into the exponent field.
    packed = ((n + 127) << 23) + (((p + 16) >> 5) - (1 << 23))
    n = n + ((p + 16) >> 29)
    value = np.where(n < -126, ZERO, np.where(n > 127, INF, from_bits(packed & 0x7FFFFFFF)))
    return np.where(x != x, NAN, np.where(high, INF, np.where(low, ZERO, value)))


@_quiet
def gelu(x: npt.ArrayLike, form: int) -> Floats:
    """GELU; form 0 is the tanh form, 1 the erf form."""
    x = flush(x)
    magnitude = np.abs(x)
    inside = magnitude < 8
    z = np.floor(np.where(inside, magnitude, ZERO).astype(np.float64) * 2.0**24).astype(np.int64)
    c0, c1, c2 = _GELU[form][:, z >> 18]
    u = (z & (1 << 18) - 1) - (1 << 17)
    p = np.clip(c0 + ((c1 + (c2 * u >> 18)) * u >> 18), 0, 1 << 28)
    p = np.where(x < 0, (1 << 28) - p, p)
    value = mul(x, cvt(p, -28))
    return np.where(x != x, NAN, np.where(inside, value, np.where(x > 0, x, F32(-0.0))))


# ---- Sums: one order, whatever the hardware overlaps. ----

@_quiet
def tree(v: npt.ArrayLike) -> Floats:
    """Sum over the last axis (a power of two long): neighbours first."""
    v = flush(v)
    while v.shape[-1] > 1:
        v = flush(v[..., ::2] + v[..., 1::2])
    return v[..., 0]


@_quiet
def chain(t: npt.ArrayLike) -> Floats:
    """Sum over the last axis from +0, one element after another."""
    t = flush(t)
    t = np.concatenate([np.zeros((*t.shape[:-1], 1), F32), t], -1)
    partial = np.add.accumulate(t, axis=-1)
    if ((np.abs(partial) < SMALLEST) & (partial != 0)).any():
        total = t[..., 0]
        for k in range(1, t.shape[-1]):
            total = add(total, t[..., k])
        return total
    return _canonical(partial[..., -1])


def word_sum(words: npt.ArrayLike) -> Floats:
    """Sum of words: over the last axis as a tree, over the one before in order."""
    return chain(tree(words))


# ---- Quantised activations, K and V. ----

class Quantised(NamedTuple):
    """A quantised slice."""

    q: npt.NDArray[np.int32]
    exponent: int
    #: The slice was too large for its base: sticky bit ``RANGE``.
    out_of_range: bool


def _limited(y: npt.ArrayLike) -> Floats:
    """NaN and infinities as the largest finite number of their sign (NaN is positive)."""
    y = flush(y)
    return np.where(np.isfinite(y), y, np.copysign(LARGEST, y))


def quantise(y: npt.ArrayLike, digits: int, base: int) -> Quantised:
    """Quantise one slice to ``digits`` signed bytes with the least exponent from ``base`` up."""
    y = _limited(y).astype(np.float64)
    limit = LIMIT[digits]
    fraction, exponent = np.frexp(np.abs(y).max())
    # With both limits odd, rint(a) <= limit means a < limit + 1/2: the tie goes to the even side.
    # amax = fraction * 2^exponent, and (limit + 1/2) has `width` bits before the point.
    width = limit.bit_length()
    least = int(exponent) - width + bool(np.ldexp(fraction, width) >= limit + 0.5)
    e = base if not fraction else min(max(least, base), base + REACH)
    q = np.clip(np.rint(np.ldexp(y, -e)), -limit, limit).astype(np.int32)
    return Quantised(q, e, bool(fraction) and least > base + REACH)


def split_digits(q: npt.ArrayLike) -> tuple[Ints, Ints]:
    """(low, high) signed bytes with q = 256·high + low."""
    q = np.asarray(q)
    low = ((q + 128) & 0xFF) - 128
    return low, (q - low) >> 8


@_quiet
def round_up_bf16(a: npt.ArrayLike) -> Floats:
    """The next BF16 number that is not smaller in magnitude."""
    raw = bits(a)
    return from_bits((raw + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000))


@_quiet
def kv_quantise(y: npt.ArrayLike, wide: bool) -> tuple[npt.NDArray[np.int32], np.float32]:
    """Quantise one head of K or V.

    Parameters
    ----------
    y : FP32 array
        The elements of the head.
    wide : bool
        16 bits instead of 8.

    Returns
    -------
    (q, scale) : int32 array, float32
        The scale is a BF16 number.
    """
    y = _limited(y)
    limit = LIMIT[2 if wide else 1]
    scale = scalar(round_up_bf16(mul(np.abs(y).max(), F32(1 / limit))))
    if not scale:
        return np.zeros(y.shape, np.int32), F32(0)
    q = np.rint(mul(y, rcp(scale)).astype(np.float64))
    return np.clip(q, -limit, limit).astype(np.int32), scale


# ---- LayerNorm. ----

class NormWords(NamedTuple):
    """By word of a vector: the sum of its elements, and that of their squares [W]."""

    sums: Floats
    squares: Floats


def norm_words(words: npt.ArrayLike) -> NormWords:
    """What the norm needs of the words [W, V]."""
    return NormWords(tree(words), tree(mul(words, words)))


def norm_finish(words: NormWords, lanes: int, inv: npt.ArrayLike,
                eps: npt.ArrayLike) -> tuple[np.float32, np.float32]:
    """(mean, reciprocal deviation) of a vector from the sums of all its words.

    Parameters
    ----------
    words : NormWords
    lanes : int
        V: so many sums are added up at a time, as the elements of a word are.
    inv, eps : float32
        1/elements, and what is added to the variance.
    """
    def total(sums: Floats) -> Floats:
        padded = np.zeros(-(-len(sums) // lanes) * lanes, F32)
        padded[:len(sums)] = sums
        return word_sum(padded.reshape(-1, lanes))

    mean = mul(total(words.sums), inv)
    variance = sub(mul(total(words.squares), inv), mul(mean, mean))
    variance = np.where(np.signbit(variance), ZERO, variance)
    return scalar(mean), scalar(rsqrt_near(add(variance, eps)))


class LayerNorm(NamedTuple):
    """LayerNorm of one vector in one piece, and what it was made with."""

    y: Floats
    mean: np.float32
    variance: np.float32
    rstd: np.float32


def layer_norm(words: npt.ArrayLike, inv: npt.ArrayLike, eps: npt.ArrayLike,
               gamma: npt.ArrayLike, beta: npt.ArrayLike) -> LayerNorm:
    """LayerNorm of the vector ``words`` [W, V], as the streaming unit does it.

    Parameters
    ----------
    words, gamma, beta : FP32 arrays [W, V]
    inv, eps : float32
        1/elements, and what is added to the variance.
    """
    mean = mul(word_sum(words), inv)
    d = sub(words, mean)
    variance = mul(word_sum(mul(d, d)), inv)
    rstd = rsqrt(add(variance, eps))
    y = add(mul(mul(d, rstd), gamma), beta)
    return LayerNorm(y, scalar(mean), scalar(variance), scalar(rstd))


# ---- Softmax. ----

class Softmax(NamedTuple):
    """Numerators p, their sum, and the reciprocal of the sum."""

    p: Floats
    total: np.float32
    r: np.float32


def greatest(x: npt.ArrayLike) -> np.float32:
    """Maximum of all elements in the order of :func:`key`; NaN if one is NaN."""
    x = flush(x).ravel()
    return scalar(NAN if (x != x).any() else x[np.argmax(key(x))])


def softmax(scores: npt.ArrayLike, length: int) -> Softmax:
    """Softmax of the first ``length`` of the scores in words [W, V]; the others get +0."""
    scores = np.asarray(scores, F32)
    words, lanes = scores.shape
    valid = np.arange(words * lanes).reshape(words, lanes) < length
    p = np.where(valid, exp(sub(scores, greatest(scores[valid]))), ZERO)
    total = word_sum(p)
    return Softmax(p, scalar(total), scalar(rcp(total)))


# ---- Sampling. ----

class LogSumExp:
    """Running maximum m and sum s of exp(x − m), word by word.

    ``nonfinite`` tells whether a logit, the maximum or the sum was a NaN or an infinity.

    >>> run = LogSumExp()
    >>> run.update(np.zeros((2, 4), np.float32), 7)
    >>> float(run.m), float(run.s)
    (0.0, 7.0)
    """

    def __init__(self) -> None:
        self.m: np.float32 | None = None
        self.s = F32(0)
        self.nonfinite = False

    def update(self, words: npt.ArrayLike, count: int) -> None:
        """Take the first ``count`` logits of ``words`` [W, V]; words without any are skipped."""
        words = np.asarray(words, F32)
        lanes = words.shape[1]
        for start, word in zip(range(0, count, lanes), words, strict=False):
            valid = np.arange(lanes) < count - start
            w = greatest(word[valid])
            m = w if self.m is None else scalar(maximum(self.m, w))
            t = tree(np.where(valid, exp(sub(word, m)), ZERO))
            self.s = scalar(t if self.m is None else madd(self.s, exp(sub(self.m, m)), t))
            self.nonfinite |= nonfinite(word[valid], m, self.s)
            self.m = m


def order(logits: npt.ArrayLike, tokens: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Indices that sort candidates: larger logits first, equal keys by smaller token number."""
    return np.lexsort((np.asarray(tokens), ~key(logits)))
