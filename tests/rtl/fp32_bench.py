# SPDX-License-Identifier: Apache-2.0
"""Stimulus and bench of the FP32 units."""

import itertools
import random

import numpy as np
from amaranth.sim import Simulator

PERIOD = 1e-8

#: Both signs of zeros, subnormals, the ends of the range, ones, powers of two, infinities and NaNs.
CORNERS = tuple(sign | magnitude for sign in (0, 1 << 31) for magnitude in (
    0x0000_0000, 0x0000_0001, 0x007F_FFFF, 0x0080_0000, 0x0080_0001, 0x00FF_FFFF, 0x0100_0000,
    0x3380_0000, 0x3F7F_FFFF, 0x3F80_0000, 0x3F80_0001, 0x3FFF_FFFF, 0x4000_0000, 0x4B7F_FFFF,
    0x4B80_0000, 0x7E80_0000, 0x7E80_0001, 0x7F00_0000, 0x7F7F_FFFE, 0x7F7F_FFFF, 0x7F80_0000,
    0x7F80_0001, 0x7FC0_0000, 0x7FFF_FFFF))


def random_bits(rng: random.Random, near: int | None = None) -> int:
    """A bit pattern with any, few or many ones; its exponent may be close to another's."""
    fraction = rng.getrandbits(23)
    match rng.randrange(4):
        case 0:
            fraction &= rng.getrandbits(23) & rng.getrandbits(23)
        case 1:
            fraction |= rng.getrandbits(23) | rng.getrandbits(23)
    exponent = rng.choice([rng.randrange(256), rng.randrange(112, 143), rng.randrange(5),
                           rng.randrange(250, 256)])
    if near is not None and rng.random() < 0.7:
        exponent = min(255, max(0, (near >> 23 & 255) + rng.randrange(-28, 29)))
    return rng.getrandbits(1) << 31 | exponent << 23 | fraction


def pairs(seed: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Operand pairs: all corners with all corners, cancellation, and random ones."""
    rng = random.Random(seed)
    cases = list(itertools.product(CORNERS, CORNERS))
    for _ in range(count):
        a = random_bits(rng)
        b = random_bits(rng, near=a)
        match rng.randrange(8):
            case 0:     # differ in the last places only, mostly with opposite signs
                b = a ^ 1 << 31 ^ rng.getrandbits(rng.randrange(1, 5))
            case 1:     # products around the smallest normal and the largest number
                total = rng.choice([126, 127, 128, 380, 381, 382])
                b = b & 0x807F_FFFF | min(255, max(0, total - (a >> 23 & 255))) << 23
        cases.append((a, b))
    return tuple(np.array(column, np.uint32) for column in zip(*cases, strict=True))


def singles(seed: str, count: int) -> np.ndarray:
    rng = random.Random(seed)
    return np.array([*CORNERS, *(random_bits(rng) for _ in range(count))], np.uint32)


def pipeline(dut, latency: int, inputs: list[dict], *, stall: float = 0.0, seed: str = "") -> list:
    """Results (o, nonfinite) of a unit with ``en``, one vector an enabled cycle.

    While ``en`` is 0 the inputs are noise and the results must stay.
    """
    results = []

    async def bench(ctx):
        rng = random.Random(seed)
        moved = 0
        while len(results) < len(inputs):
            while rng.random() < stall:
                ctx.set(dut.en, 0)
                for name, value in rng.choice(inputs).items():
                    ctx.set(getattr(dut, name), value)
                before = ctx.get(dut.o), ctx.get(dut.nonfinite)
                await ctx.tick()
                assert (ctx.get(dut.o), ctx.get(dut.nonfinite)) == before
            ctx.set(dut.en, 1)
            for name, value in inputs[min(moved, len(inputs) - 1)].items():
                ctx.set(getattr(dut, name), value)
            await ctx.tick()
            moved += 1
            if moved >= latency:
                results.append((ctx.get(dut.o), ctx.get(dut.nonfinite)))

    sim = Simulator(dut)
    sim.add_clock(PERIOD)
    sim.add_testbench(bench)
    sim.run()
    return results


def is_nonfinite(*columns: np.ndarray) -> np.ndarray:
    """Per element: whether any of the bit patterns is an infinity or NaN."""
    seen = np.zeros(columns[0].shape, bool)
    for column in columns:
        seen |= (column >> 23 & 255) == 255
    return seen


def check(results: list, expected: np.ndarray, flags: np.ndarray, inputs: list[dict]) -> None:
    """Compare with the bits expected, and say which operands differ first."""
    for k, (found, bits, flag) in enumerate(zip(results, expected, flags, strict=True)):
        assert found == (int(bits), int(flag)), (
            f"case {k}: {[hex(v) if isinstance(v, int) else v for v in inputs[k].values()]} gives "
            f"{found[0]:#010x} {found[1]}, not {int(bits):#010x} {int(flag)}")
