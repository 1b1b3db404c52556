# SPDX-License-Identifier: Apache-2.0
"""The FP32 pipelines against cardsim.numerics, bit for bit, with and without stalls."""

import gc
import random

import numpy as np
import pytest
from amaranth.hdl import Fragment

from cardsim import numerics as nx
from rtl_gen.fp32 import (
    Add,
    AddUnsigned,
    Convert,
    Exp,
    Gelu,
    Max,
    MaxTree,
    Mul,
    Rcp,
    Rsqrt,
    Tree,
    UnsignedTree,
)
from rtl_gen.spec import tables
from tests.rtl.fp32_bench import check, is_nonfinite, pairs, pipeline, random_bits, singles

# Components that only show their latency or refuse their parameters are not elaborated.
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")

STALLS = pytest.mark.parametrize(("stall", "count"), [(0.0, 600), (0.6, 100)])


@STALLS
@pytest.mark.parametrize(("unit", "reference"), [
    (Add, nx.add), (Mul, nx.mul), (Max, nx.maximum)], ids=["add", "mul", "max"])
def test_two_operands(unit, reference, stall, count):
    seed = f"{unit.__name__} {stall}"
    a, b = pairs(seed, count)
    expected = nx.bits(reference(nx.from_bits(a), nx.from_bits(b)))
    inputs = [{"a": int(x), "b": int(y)} for x, y in zip(a, b, strict=True)]
    results = pipeline(unit(), unit.LATENCY, inputs, stall=stall, seed=seed)
    check(results, expected, is_nonfinite(a, b, expected), inputs)


@STALLS
def test_sum_of_numbers_without_sign(stall, count):
    seed = f"unsigned {stall}"
    a, b = (column & np.uint32(0x7FFF_FFFF) for column in pairs(seed, count))
    expected = nx.bits(nx.add(nx.from_bits(a), nx.from_bits(b)))
    inputs = [{"a": int(x), "b": int(y)} for x, y in zip(a, b, strict=True)]
    results = pipeline(AddUnsigned(), AddUnsigned.LATENCY, inputs, stall=stall, seed=seed)
    check(results, expected, is_nonfinite(a, b, expected), inputs)


def integers(rng, width, count):
    """Integers of every size, ties among them, with exponents that reach both ends of the range."""
    top = 1 << width - 1
    cases = [(n, e) for n in (0, 1, -1, top - 1, -top, 1 - top, -top + (1 << width - 20))
             for e in (-512, -229, -228, -206, -205, -150, -127, -126, 0, 47, 48, 49, 128, 511)]
    for _ in range(count):
        size = rng.randrange(1, width)
        n = rng.getrandbits(size) | 1 << size - 1
        if rng.random() < 0.5 and size > 25:    # a tie, or one off it
            n = n >> size - 25 << size - 25 | 1 << size - 25
            n += rng.choice([0, 0, 1, -1])
        near = rng.choice([-126, 128]) - size + rng.randrange(-2, 3)
        e = rng.choice([near, rng.randrange(-40, 40), rng.randrange(-512, 512)])
        cases.append((rng.choice([n, -n]), max(-512, min(511, e))))
    return cases


@STALLS
@pytest.mark.parametrize("width", [30, 80])
def test_convert(width, stall, count):
    seed = f"convert {width} {stall}"
    cases = integers(random.Random(seed), width, count // 2)
    n, e = zip(*cases, strict=True)
    expected = nx.bits(nx.cvt(np.array(n, object), np.array(e)))
    inputs = [{"n": int(x), "e": int(y)} for x, y in cases]
    results = pipeline(Convert(width), Convert.LATENCY, inputs, stall=stall, seed=seed)
    check(results, expected, is_nonfinite(expected), inputs)


def around(*values, reach=3):
    """Bit patterns of both signs close to numbers."""
    bits = [int(nx.bits(np.float32(value))) for value in values]
    return [sign | bit + k for bit in bits for k in range(-reach, reach + 1)
            for sign in (0, 1 << 31) if bit + k >= 0]


@STALLS
def test_rcp(stall, count):
    seed = f"rcp {stall}"
    a = singles(seed, count)
    expected = nx.bits(nx.rcp(nx.from_bits(a)))
    inputs = [{"a": int(x)} for x in a]
    results = pipeline(Rcp(), Rcp.LATENCY, inputs, stall=stall, seed=seed)
    check(results, expected, is_nonfinite(a, expected), inputs)


@STALLS
def test_rsqrt(stall, count):
    seed = f"rsqrt {stall}"
    a = np.concatenate([singles(seed, count), np.array(around(1, 2, 4, 0, np.inf), np.uint32)])
    expected = nx.bits(nx.rsqrt_near(nx.from_bits(a)))
    inputs = [{"a": int(x)} for x in a]
    results = pipeline(Rsqrt(), Rsqrt.LATENCY, inputs, stall=stall, seed=seed)
    check(results, expected, is_nonfinite(a, expected), inputs)


def exp_arguments(seed, count):
    rng = random.Random(seed)
    log2 = float(np.log(2))
    return [
        *(int(x) for x in singles(seed, count // 3)),
        *around(88.72283, 87.33654, 88.0, 128.0, 2.0**-26, 2.0**-27, 2.0**-60, log2, 2 * log2),
        # Both ends of every interval of the table, below and above zero.
        *around(*(k / 128 * log2 for k in range(1, 129)), reach=1),
        *around(*((k / 128 - 5) * log2 for k in range(129)), reach=0),
        *(int(nx.bits(np.float32(rng.uniform(-90, 90)))) for _ in range(count // 2)),
    ]


@STALLS
def test_exp(stall, count):
    seed = f"exp {stall}"
    a = np.array(exp_arguments(seed, count), np.uint32)
    expected = nx.bits(nx.exp(nx.from_bits(a)))
    inputs = [{"a": int(x)} for x in a]
    results = pipeline(Exp(), Exp.LATENCY, inputs, stall=stall, seed=seed)
    check(results, expected, is_nonfinite(a, expected), inputs)
    assert len(np.unique(expected[~is_nonfinite(a, expected)])) > len(a) // 3


def gelu_arguments(seed, count):
    rng = random.Random(seed)
    return [
        *(int(x) for x in singles(seed, count // 4)),
        *around(8.0, 2.0**-24, 2.0**-25, 1e-30, reach=2),
        # Both ends and the middle of every interval of the table.
        *around(*(k / 128 for k in range(1, 1024, 1 if count > 500 else 4)), reach=0),
        *(int(nx.bits(np.float32(rng.uniform(-8.1, 8.1)))) for _ in range(count // 2)),
    ]


@STALLS
@pytest.mark.parametrize("forms", [(0,), (1,), (0, 1)])
def test_gelu(forms, stall, count):
    seed = f"gelu {forms} {stall}"
    rng = random.Random(seed)
    a = np.array(gelu_arguments(seed, count // len(forms)), np.uint32)
    form = np.array([rng.choice(forms) for _ in a])
    both = np.stack([nx.bits(nx.gelu(nx.from_bits(a), k)) for k in (0, 1)])
    expected = both[form, np.arange(len(a))]
    # A unit of one form does not look at the port.
    port = form if len(forms) == 2 else 1 - form
    inputs = [{"a": int(x), "form": int(k)} for x, k in zip(a, port, strict=True)]
    results = pipeline(Gelu(forms), Gelu.LATENCY, inputs, stall=stall, seed=seed)
    check(results, expected, is_nonfinite(a, expected), inputs)
    assert (both[0] != both[1]).any()


@pytest.mark.parametrize(("unit", "lanes"), [
    (MaxTree, 1),
    *((unit, lanes) for unit in (Tree, UnsignedTree, MaxTree) for lanes in (2, 4, 16))])
def test_trees(unit, lanes):
    seed = f"{unit.__name__} {lanes}"
    rng = random.Random(seed)
    words = [[random_bits(rng, near=127 << 23) & ~(rng.random() < 0.9 and 0x4000_0000)
              for _ in range(lanes)] for _ in range(200)]
    words += [[0x8000_0000] * lanes, [0xFF80_0000] * (lanes - 1) + [0x3F80_0000]]
    if unit is UnsignedTree:
        words = [[element & 0x7FFF_FFFF for element in word] for word in words]
    v = np.array(words, np.uint32)
    expected = nx.bits([nx.greatest(word) for word in nx.from_bits(v)] if unit is MaxTree
                       else nx.tree(nx.from_bits(v)))
    inputs = [{"i": word} for word in words]
    dut = unit(lanes)
    results = pipeline(dut, dut.LATENCY, inputs, stall=0.3, seed=seed)
    check(results, expected, is_nonfinite(*v.T, expected), inputs)
    assert not is_nonfinite(expected).all()


def test_latencies_are_the_published_ones():
    assert (Add.LATENCY, Mul.LATENCY, Max.LATENCY, Convert.LATENCY) == (5, 4, 1, 4)
    assert (Exp.LATENCY, Gelu.LATENCY, Rcp.LATENCY) == (11, 15, 27)
    assert AddUnsigned.LATENCY == 3
    trees = Tree(8), UnsignedTree(8), MaxTree(8), Tree(1), MaxTree(1)
    assert tuple(tree.LATENCY for tree in trees) == (15, 9, 3, 0, 1)
    for tree in trees:
        Fragment.get(tree, None)        # one that is never elaborated warns


def test_exp_tables_fit_their_registers():
    """The polynomial stays below 2: the unit keeps no bit above its fraction."""
    for c0, c1, c2 in tables.EXP:
        u = (1 << 19) - 1
        assert c0 + ((c1 + (c2 * u >> 19)) * u >> 19) < 1 << 29


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Convert(27), "width must be in 28..256, not 27"),
    (lambda: Gelu((1, 0)), r"forms must be \(0,\), \(1,\) or \(0, 1\), not \(1, 0\)"),
    (lambda: Tree(6), "lanes must be a power of two, not 6"),
    (lambda: MaxTree(0), "lanes must be a power of two, not 0"),
])
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    gc.collect()
