# SPDX-License-Identifier: Apache-2.0
"""cardsim.numerics against exact fractions, vectors worked out by hand, and error bounds."""

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest

from cardsim import numerics as nx
from rtl_gen.spec import tables

NAN, INF = 0x7FC00000, 0x7F800000
#: Both signs of: zero, subnormals, the smallest normal and its neighbours, one and its neighbours,
#: powers of two around the ends of the range, the largest, infinity, NaNs.
CORNERS = [sign | magnitude for sign in (0, 1 << 31) for magnitude in (
    0, 1, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, 0x1000000, 0x3F7FFFFF, 0x3F800000, 0x3F800001,
    0x40490FDB, 0x4B000000, 0x4B800001, 0x7E800000, 0x7E800001, 0x7F000000, 0x7F7FFFFF, INF,
    NAN, 0x7F800001, 0x7FFFFFFF)]


def is_nan(bits):
    return bits & 0x7FFFFFFF > INF


def is_inf(bits):
    return bits & 0x7FFFFFFF == INF


def exact(bits):
    """The value that an operation reads from a finite pattern."""
    exponent, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    if exponent == 0:
        return Fraction(0)
    value = Fraction(fraction | 1 << 23) * Fraction(2) ** (exponent - 150)
    return -value if bits >> 31 else value


def rounded(value, negative_zero=False):
    """Bits of an exact value: tiny is zero, ties go to even, large is infinite."""
    sign = (1 << 31) * (value < 0 or (value == 0 and negative_zero))
    value = abs(value)
    if value < Fraction(2) ** -126:
        return sign
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > value
    mantissa = round(value / Fraction(2) ** (exponent - 23))      # Python rounds ties to even
    if mantissa == 1 << 24:
        mantissa, exponent = mantissa >> 1, exponent + 1
    return sign | (INF if exponent > 127 else (exponent + 127 << 23) + (mantissa - (1 << 23)))


def golden_add(a, b):
    if is_nan(a) or is_nan(b) or (is_inf(a) and is_inf(b) and a != b):
        return NAN
    if is_inf(a) or is_inf(b):
        return a if is_inf(a) else b
    total = exact(a) + exact(b)
    both_negative = a >> 31 and b >> 31
    return rounded(total, negative_zero=total == 0 and bool(both_negative))


def golden_mul(a, b):
    sign = (a ^ b) & 1 << 31
    if is_nan(a) or is_nan(b):
        return NAN
    if is_inf(a) or is_inf(b):
        return NAN if 0 in (exact(a) if not is_inf(a) else 1, exact(b) if not is_inf(b) else 1) \
            else sign | INF
    return rounded(exact(a) * exact(b), negative_zero=bool(sign))


def golden_rcp(a):
    if is_nan(a):
        return NAN
    sign = a & 1 << 31
    if is_inf(a):
        return sign
    return sign | INF if exact(a) == 0 else rounded(1 / exact(a), negative_zero=bool(sign))


def golden_sqrt(a):
    if is_nan(a) or (a >> 31 and (is_inf(a) or exact(a) != 0)):
        return NAN
    if is_inf(a) or exact(a) == 0:
        return a & (1 << 31 | 0xFF << 23)
    value = exact(a)
    # An integer square root with 60 bits and a sticky one: enough to round, the root is no tie.
    shift = 240
    root = math.isqrt((value.numerator << shift) // value.denominator)
    return rounded(Fraction(2 * root + 1, 2) / Fraction(2) ** (shift // 2)
                   if root * root != value * 2**shift else Fraction(root, 2 ** (shift // 2)))


def golden_max(a, b):
    if is_nan(a) or is_nan(b):
        return NAN
    a, b = (x if x >> 23 & 0xFF else x & 1 << 31 for x in (a, b))
    return max(a, b, key=lambda x: x ^ (0xFFFFFFFF if x >> 31 else 0x80000000))


def random_bits(rng):
    """Any pattern; or one with few mantissa bits, so that ties happen; near the ends too."""
    kind = rng.randrange(4)
    exponent = rng.choice([rng.randrange(256), rng.randrange(120, 136), rng.randrange(6),
                           rng.randrange(58, 68), rng.randrange(250, 255)])
    mantissa = rng.getrandbits(23)
    if kind == 1:
        mantissa &= rng.getrandbits(23) & rng.getrandbits(23) & rng.getrandbits(23)
    if kind == 2:
        mantissa |= rng.getrandbits(23) | rng.getrandbits(23) | rng.getrandbits(23)
    return rng.getrandbits(1) << 31 | exponent << 23 | mantissa


def pairs(name, count=6000):
    rng = random.Random(name)
    cases = list(itertools.product(CORNERS, CORNERS))
    for _ in range(count):
        a = random_bits(rng)
        near = (a + rng.randrange(-3, 4) ^ rng.getrandbits(1) << 31) & 0xFFFFFFFF   # cancellation
        cases.append((a, rng.choice([random_bits(rng), near])))
    return cases


def assert_bits(found, expected, cases):
    wrong = np.flatnonzero(nx.bits(found) != np.array(expected, np.uint32))
    assert not len(wrong), [
        (*(f"{x:#010x}" for x in np.atleast_1d(cases[k])), "gives", f"{nx.bits(found)[k]:#010x}",
         "not", f"{expected[k]:#010x}") for k in wrong[:5]]


@pytest.mark.parametrize(("function", "golden"), [
    (nx.add, golden_add), (nx.mul, golden_mul), (nx.maximum, golden_max),
    (nx.sub, lambda a, b: golden_add(a, b ^ 1 << 31)),
], ids=["add", "mul", "max", "sub"])
def test_two_operands_equal_exact_arithmetic(function, golden, request):
    cases = pairs(request.node.name)
    a, b = nx.from_bits(np.array(cases, np.uint32).T)
    assert_bits(function(a, b), [golden(*case) for case in cases], cases)


@pytest.mark.parametrize(("function", "golden"), [
    (nx.rcp, golden_rcp), (nx.sqrt, golden_sqrt),
    (nx.rsqrt, lambda a: golden_rcp(golden_sqrt(a))),
], ids=["rcp", "sqrt", "rsqrt"])
def test_one_operand_equals_exact_arithmetic(function, golden, request):
    cases = [a for a, _ in pairs(request.node.name, 3000)]
    assert_bits(function(nx.from_bits(cases)), [golden(a) for a in cases], cases)


def test_tiny_is_judged_before_rounding():
    below = nx.mul(nx.from_bits(0x00FFFFFF), np.float32(0.5))       # rounds up to 2^-126 in IEEE
    assert nx.bits(below) == 0
    assert nx.bits(nx.mul(-nx.from_bits(0x00FFFFFF), np.float32(0.5))) == 1 << 31
    assert nx.bits(nx.add(nx.from_bits(0x00800001), -nx.from_bits(0x00800000))) == 0
    assert nx.bits(nx.sub(np.float32(3), np.float32(3))) == 0


def test_madd_rounds_twice():
    a = np.float32(1 + 2**-12)
    assert nx.madd(a, a, np.float32(-1)) == np.float32(2**-11)      # fused: 2^-11 + 2^-24
    assert float(a) * float(a) - 1 == 2**-11 + 2**-24


@pytest.mark.parametrize("width", [1, 8, 24, 25, 53, 54, 62, 63, 64, 79])
def test_cvt_equals_exact_arithmetic(width):
    rng = random.Random(f"cvt {width}")
    limit = 1 << width
    numbers = [0, 1, -1, limit - 1, -limit, limit // 2, limit // 2 + 1, -(limit // 2) - 1]
    for _ in range(800):
        n = rng.randrange(-limit, limit)
        places = rng.randrange(width + 1)
        tie = n >> places << places
        numbers += [n, tie, tie + rng.choice([-1, 1, 2, 1024]),
                    (n | 1) << max(0, width - 26)]
    numbers = [n for n in numbers if -limit <= n < limit]
    exponents = [rng.choice([0, -20, -150, -190, -126 - width, 127 - width, 128 - width])
                 for _ in numbers]
    expected = [rounded(Fraction(n) * Fraction(2) ** e)
                if n else 0 for n, e in zip(numbers, exponents, strict=True)]
    kinds = [object, np.int64] if width < 64 else [object]
    for kind in kinds:
        found = nx.cvt(np.array(numbers, kind), np.array(exponents))
        assert_bits(found, expected, list(zip(numbers, exponents, strict=True)))


def test_key_orders_all_patterns():
    ordered = nx.from_bits([0xFF800000, 0xFF7FFFFF, 0xBF800000, 0x80800000, 0x80000000, 0,
                            0x00800000, 0x3F800000, 0x7F7FFFFF, 0x7F800000])
    assert (np.diff(nx.key(ordered).astype(np.int64)) > 0).all()


# ---- Functions of the tables. ----

def golden_exp(bits):
    """The definition once more, in Python integers."""
    if is_nan(bits):
        return NAN
    value = math.copysign(math.inf, -(bits >> 31)) if is_inf(bits) else exact(bits)
    if bits >> 31 == 0 and value > exact(0x42B17217):
        return INF
    if value < exact(0xC2AEAC4F):
        return 0
    t = math.floor(value * 2**26) * tables.EXP_LOG2E >> 32
    n, f = t >> 26, t & 2**26 - 1
    i, u = f >> 19, f & 2**19 - 1
    c0, c1, c2 = tables.EXP[i]
    m = c0 + ((c1 + (c2 * u >> 19)) * u >> 19) + 16 >> 5
    if m == 1 << 24:
        m, n = 1 << 23, n + 1
    return 0 if n < -126 else INF if n > 127 else rounded(Fraction(m) * Fraction(2) ** (n - 23))


def golden_gelu(bits, form):
    if is_nan(bits):
        return NAN
    if is_inf(bits) or abs(exact(bits)) >= 8:
        return 1 << 31 if bits >> 31 else bits
    z = math.floor(abs(exact(bits)) * 2**24)
    i, u = z >> 18, (z & 2**18 - 1) - 2**17
    c0, c1, c2 = tables.GELU[form][i]
    p = min(max(c0 + ((c1 + (c2 * u >> 18)) * u >> 18), 0), 1 << 28)
    if exact(bits) < 0:
        p = 2**28 - p
    return golden_mul(bits, rounded(Fraction(p) / 2**28))


def table_cases(name, limit):
    rng = random.Random(name)
    edges = [0x42B17217, 0x42B17218, 0xC2AEAC4F, 0xC2AEAC50, 0x41000000, 0xC1000000, 0x40FFFFFF,
             0xC0FFFFFF]
    return [*CORNERS, *edges, *(random_bits(rng) for _ in range(1500)),
            *(int(nx.bits(rng.uniform(-limit, limit))) for _ in range(3000))]


def test_exp_equals_its_definition():
    cases = table_cases("exp", 90)
    assert_bits(nx.exp(nx.from_bits(cases)), [golden_exp(a) for a in cases], cases)


@pytest.mark.parametrize("form", [0, 1])
def test_gelu_equals_its_definition(form):
    cases = table_cases(f"gelu {form}", 8.5)
    assert_bits(nx.gelu(nx.from_bits(cases), form), [golden_gelu(a, form) for a in cases], cases)


def test_exp_is_within_its_bound():
    x = np.linspace(-87.3, 88.7, 400_001).astype(np.float32)
    true = np.exp(x.astype(np.float64))
    assert np.abs(nx.exp(x) / true - 1).max() < 2.0**-22


@pytest.mark.parametrize("form", [0, 1])
def test_gelu_is_within_its_bound(form):
    x = np.linspace(-9, 9, 300_001).astype(np.float32)
    y = x.astype(np.float64)
    if form == 0:
        true = 0.5 * y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    else:
        true = 0.5 * y * (1 + np.array([math.erf(v / math.sqrt(2)) for v in y]))
    assert (np.abs(nx.gelu(x, form) - true) / np.maximum(1, np.abs(y))).max() < 2.0**-22


# ---- Sums. ----

def golden_tree(word):
    """Neighbours first, on exact additions."""
    level = list(word)
    while len(level) > 1:
        level = [golden_add(*level[k:k + 2]) for k in range(0, len(level), 2)]
    return level[0]


def golden_sum(words):
    """Word after word from +0."""
    total = 0
    for word in words:
        total = golden_add(total, golden_tree(word))
    return total


@pytest.mark.parametrize("scale", ["wide", "tiny", "negative zero", "special"])
@pytest.mark.parametrize("lanes", [2, 4, 16])
def test_sums_have_one_order(lanes, scale):
    rng = random.Random(f"{lanes} {scale}")
    draw = {"wide": lambda: rng.gauss(0, 1) * 2.0 ** rng.randrange(-20, 20),
            "tiny": lambda: rng.choice([-1, 1]) * rng.uniform(1, 4) * 2.0**-126,
            "negative zero": lambda: -0.0,
            "special": lambda: rng.choice([1.0, 2.0, 3.0, rng.choice([math.inf, math.nan])])}[scale]
    for words in (1, 2, 7, 30):
        x = np.array([[draw() for _ in range(lanes)] for _ in range(words)], np.float32)
        assert int(nx.bits(nx.word_sum(x))) == golden_sum(nx.bits(x).tolist())


def test_a_sum_depends_on_the_order():
    """Otherwise the test above shows little."""
    x = np.array([[1e8, 1], [-1e8, 1]], np.float32)
    assert nx.word_sum(x) == 0
    assert nx.word_sum(x.T) == 2


# ---- Quantisation. ----

@pytest.mark.parametrize(("value", "digits", "exponent", "q"), [
    (127.0, 1, 0, 127), (127.49, 1, 0, 127), (127.5, 1, 1, 64), (128.0, 1, 1, 64),
    (1.0, 1, -6, 64), (32639.0, 2, 0, 32639), (32639.25, 2, 0, 32639), (32639.5, 2, 1, 16320),
    (-127.49, 1, 0, -127), (-32768.0, 2, 1, -16384),
])
def test_the_exponent_is_the_least_that_fits(value, digits, exponent, q):
    found = nx.quantise(np.array([value, 0], np.float32), digits, -30)
    assert (found.exponent, found.q[0], found.out_of_range) == (exponent, q, False)


@pytest.mark.parametrize("digits", [1, 2])
def test_quantise_equals_its_definition(digits):
    rng = np.random.default_rng(digits)
    limit = nx.LIMIT[digits]
    for _ in range(300):
        y = (rng.normal(size=8) * 2.0 ** rng.integers(-60, 60)).astype(np.float32)
        base = int(rng.integers(-70, 40))
        exact_y = [Fraction(float(v)) for v in y]
        amax = max(map(abs, exact_y))
        e = next((e for e in range(base, base + 32) if round(amax / Fraction(2) ** e) <= limit),
                 None)
        expected_e = base + 31 if e is None else e
        q = [max(-limit, min(limit, round(v / Fraction(2) ** expected_e))) for v in exact_y]
        found = nx.quantise(y, digits, base)
        assert (found.exponent, found.out_of_range) == (expected_e, e is None)
        assert found.q.tolist() == q


def test_quantise_of_corners():
    assert nx.quantise(np.zeros(4, np.float32), 1, -5) == \
        (pytest.approx([0, 0, 0, 0]), -5, False)
    bad = nx.quantise(np.array([math.nan, -math.inf, 1], np.float32), 1, 100)
    assert (bad.q.tolist(), bad.exponent, bad.out_of_range) == ([64, -64, 0], 122, False)
    assert nx.quantise(np.array([math.inf], np.float32), 1, -5).out_of_range


def test_digits_are_signed_bytes():
    q = np.arange(-32639, 32640)
    low, high = nx.split_digits(q)
    assert (256 * high + low == q).all()
    for digit in (low, high):
        assert digit.min() >= -128
        assert digit.max() <= 127
    assert high[0] == -127
    assert high[-1] == 127


@pytest.mark.parametrize("wide", [False, True])
def test_kv_scale_is_bf16_rounded_up(wide):
    rng = np.random.default_rng(wide)
    limit = 32639 if wide else 127
    for _ in range(200):
        y = (rng.normal(size=64) * 2.0 ** rng.integers(-30, 30)).astype(np.float32)
        q, scale = nx.kv_quantise(y, wide)
        a = golden_mul(int(nx.bits(np.abs(y).max())), int(nx.bits(1 / limit)))
        expected = a + 0x10000 & 0xFFFF0000 if a & 0xFFFF else a
        assert int(nx.bits(scale)) == expected
        r = golden_rcp(expected)
        assert q.tolist() == [max(-limit, min(limit, round(exact(golden_mul(int(b), r)))))
                              for b in nx.bits(y)]
        assert np.abs(q).max() <= limit


def test_kv_of_zeros_and_of_tiny_numbers():
    for y in (np.zeros(64), np.full(64, 2.0**-125)):
        q, scale = nx.kv_quantise(y, False)
        assert (not q.any(), float(scale)) == (True, 0.0)


# ---- LayerNorm, softmax, sampling: against float64, and against hand-written compositions. ----

@pytest.mark.parametrize("shift", [0, 1, 10, 100])
def test_norm_is_close_to_float(shift):
    """The difference of two means of squares loses what the mean has more than the deviation."""
    rng = np.random.default_rng(5)
    y = ((rng.normal(size=(61, 4)) + shift) * 3).astype(np.float32)
    mean, rstd = nx.norm_finish(nx.norm_words(y), 4, np.float32(1 / 244), np.float32(1e-5))
    true = y.astype(np.float64)
    assert abs(mean / 3 - true.mean() / 3) < 1e-6 * max(1, shift)
    assert abs(rstd * math.sqrt(true.var() + 1e-5) - 1) < 1e-6 * (1 + shift**2)


def test_norm_is_composed_as_written():
    y = np.random.default_rng(6).normal(size=(7, 4)).astype(np.float32)
    raw = nx.bits(y)
    sums = [golden_tree(row.tolist()) for row in raw]
    squares = [golden_tree([golden_mul(v, v) for v in row.tolist()]) for row in raw]
    inv, eps = int(nx.bits(1 / 28)), int(nx.bits(1e-5))
    mean, power = (golden_mul(golden_sum([words[:4], [*words[4:], 0]]), inv)
                   for words in (sums, squares))
    variance = golden_add(power, golden_mul(mean, mean) ^ 1 << 31)
    assert not variance >> 31
    found = nx.norm_finish(nx.norm_words(y), 4, nx.from_bits(inv), nx.from_bits(eps))
    root = nx.rsqrt_near(nx.from_bits(golden_add(variance, eps)))
    assert [int(nx.bits(v)) for v in found] == [mean, int(nx.bits(root))]


def test_norm_of_what_does_not_vary():
    """Rounding may leave less than nothing: that counts as nothing."""
    below = 0
    for value in np.random.default_rng(7).normal(size=200).astype(np.float32):
        y = np.full((3, 4), value, np.float32)
        words, inv = nx.norm_words(y), np.float32(1 / 12)
        mean, rstd = nx.norm_finish(words, 4, inv, np.float32(1e-5))
        below += nx.mul(nx.word_sum(np.pad(words.squares, (0, 1))[None]), inv) < nx.mul(mean, mean)
        assert abs(rstd * math.sqrt(1e-5) - 1) < 0.02
    assert below


def test_every_mantissa_of_rsqrt_near():
    for octave in (127, 128):
        for part in range(16):
            a = nx.from_bits(np.arange(1 << 19, dtype=np.uint32) + (octave << 23 | part << 19))
            true = a.astype(np.float64) ** -0.5
            assert (np.abs(nx.rsqrt_near(a) / true - 1) < 2.0**-23).all()
    assert nx.rsqrt_near(np.float32(1)) == 1


def test_rsqrt_near_elsewhere():
    a = np.array([0x00800000, 0x7F7FFFFF, 0x01000000, 0x3F7FFFFF, 0x40800000], np.uint32)
    true = nx.from_bits(a).astype(np.float64) ** -0.5
    assert (np.abs(nx.rsqrt_near(nx.from_bits(a)) / true - 1) < 2.0**-23).all()
    special = [0, 1 << 31, 1, 0x80000001, 0x7F800000, 0xFF800000, 0x7F800001, 0xBF800000]
    assert [int(v) for v in nx.bits(nx.rsqrt_near(nx.from_bits(np.array(special, np.uint32))))] == [
        0x7F800000, 0xFF800000, 0x7F800000, 0xFF800000, 0, 0x7FC00000, 0x7FC00000, 0x7FC00000]


@pytest.mark.parametrize("length", [1, 3, 4, 5, 29, 32, 2001, 2048])
def test_softmax_masks_and_sums_to_one(length):
    size = 8 if length <= 32 else 512
    scores = (np.random.default_rng(length).normal(size=(size, 4)) * 5).astype(np.float32)
    scores.ravel()[length:] = np.nan
    p, total, r = nx.softmax(scores, length)
    x = scores.ravel()[:length].astype(np.float64)
    # The differences as rounded: far below the maximum that alone costs many last bits.
    true = np.exp((x - x.max()).astype(np.float32).astype(np.float64))
    assert not nx.nonfinite(p)
    assert not p.ravel()[length:].any()
    assert np.allclose(p.ravel()[:length], true, rtol=2**-21, atol=0)
    assert abs(total / true.sum() - 1) < 1e-6
    assert r == nx.rcp(total)


@pytest.mark.parametrize("count", [1, 4, 6, 40])
def test_logsumexp_is_close_to_float_and_keeps_its_order(count):
    x = (np.random.default_rng(count).normal(size=(10, 4)) * 8).astype(np.float32)
    run = nx.LogSumExp()
    run.update(x[:2], min(count, 8))
    run.update(x[2:], max(count - 8, 0))
    true = x.ravel()[:count].astype(np.float64)
    assert run.m == true.max().astype(np.float32)
    assert abs(float(run.m) + math.log(run.s) - np.log(np.exp(true).sum())) < 1e-5

    m, s = None, None
    for start in range(0, count, 4):
        word = x.ravel()[start:min(start + 4, count)]
        new = word.max() if m is None else max(m, word.max())
        t = nx.tree(np.append(nx.exp(nx.sub(word, new)), np.zeros(4 - len(word), np.float32)))
        s = t if m is None else nx.add(nx.mul(s, nx.exp(nx.sub(m, new))), t)
        m = new
    assert nx.bits(run.s) == nx.bits(s)


def test_logsumexp_notices_what_is_not_finite():
    for word, expected in (([1, 2, 3e38, -3e38], False), ([1, np.inf, 2, 3], True),
                           ([1, 2, 3, np.nan], False)):
        run = nx.LogSumExp()
        run.update(np.array([word], np.float32), 3 if np.isnan(word[3]) else 4)
        assert run.nonfinite == expected


def test_candidates_go_by_logit_then_token():
    logits = np.array([1, 5, 5, -0.0, 0.0, 5], np.float32)
    assert nx.order(logits, [7, 9, 8, 1, 2, 3]).tolist() == [5, 2, 1, 0, 4, 3]
