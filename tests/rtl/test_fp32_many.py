# SPDX-License-Identifier: Apache-2.0
"""The FP32 pipelines against cardsim.numerics, very many operands, in Verilator."""

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Mux, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from cardsim import numerics as nx
from rtl_gen.emit import Leaf
from rtl_gen.fp32 import Add, AddUnsigned, Convert, Exp, Gelu, Max, Mul, Pipe, Rcp
from tests.rtl.fp32_bench import CORNERS, is_nonfinite
from tests.rtl.verilated import Model

OPERANDS = data.StructLayout({
    "a": 32, "b": 32, "n": signed(64), "places": 4, "e": signed(10), "form": 1, "fill": 17})
UNITS = ("add", "mul", "max", "convert", "exp", "gelu", "rcp", "sum")
RESULTS = data.StructLayout(
    dict.fromkeys(UNITS, 32) | {"flags": len(UNITS), "fill": 32 - len(UNITS)})


class Together(wiring.Component):
    """All pipelines side by side as one stream, held up together."""

    i: stream.Interface
    o: stream.Interface

    def __init__(self):
        super().__init__({"i": In(stream.Signature(OPERANDS)), "o": Out(stream.Signature(RESULTS))})

    def elaborate(self, platform):
        m = Module()
        p = self.i.p
        # Long integers: the top, the bottom or any other 64 bits of 80.
        long = Mux(p.places == 15, Cat(p.n, p.b[:16]), p.n << p.places)
        feeds = {
            "add": (Add(), {"a": p.a, "b": p.b}), "mul": (Mul(), {"a": p.a, "b": p.b}),
            "max": (Max(), {"a": p.a, "b": p.b}), "convert": (Convert(80), {"n": long, "e": p.e}),
            "exp": (Exp(), {"a": p.a}), "gelu": (Gelu((0, 1)), {"a": p.a, "form": p.form}),
            "rcp": (Rcp(), {"a": p.a}),
            "sum": (AddUnsigned(), {"a": p.a, "b": p.b})}
        en = ~self.o.valid | self.o.ready
        pipe = Pipe(m, en)
        depth = max(unit.LATENCY for unit, _ in feeds.values())
        flags = []
        for name, (unit, operands) in feeds.items():
            m.submodules[name] = leaf = Leaf(unit)
            m.d.comb += [leaf.en.eq(en), *(getattr(leaf, port).eq(value)
                                           for port, value in operands.items())]
            wait = depth - unit.LATENCY
            m.d.comb += self.o.p[name].eq(pipe.delay(leaf.o, wait, name))
            flags.append(pipe.delay(leaf.nonfinite, wait, f"{name}_flag"))
        valid = pipe.delay(self.i.valid, depth - 1, "valid")
        with m.If(en):
            m.d.sync += self.o.valid.eq(valid)
        m.d.comb += [self.o.p.flags.eq(Cat(flags)), self.i.ready.eq(en)]
        return m


def operands(seed, count):
    """Columns a, b, n, places, e, form; a and b close to each other, to the ends, or anything."""
    rng = np.random.default_rng(seed)
    any_bits = lambda: rng.integers(0, 1 << 32, count, np.uint32)   # noqa: E731
    corner = np.array(CORNERS, np.uint32)
    fraction = any_bits() & np.uint32(0x7FFFFF)
    fraction = np.choose(rng.integers(0, 3, count), [
        fraction, fraction & any_bits() & any_bits(),
        (fraction | any_bits()) & np.uint32(0x7FFFFF)])
    # |a| between 2^-28 and 2^7 for exp and gelu, most of the time.
    exponent = np.choose(rng.integers(0, 4, count), [
        rng.integers(0, 256, count), rng.integers(98, 135, count), rng.integers(117, 131, count),
        rng.integers(128, 135, count)])
    a = (any_bits() & np.uint32(1 << 31)) | (exponent << 23).astype(np.uint32) | fraction
    a = np.where(rng.random(count) < 0.02, rng.choice(corner, count), a)
    exponent = (a >> 23 & 255).astype(np.int64)
    near = np.clip(exponent + rng.integers(-27, 28, count), 0, 255)
    ends = np.clip(rng.choice([126, 127, 128, 380, 381, 382], count) - exponent, 0, 255)
    b_exponent = np.choose(rng.integers(0, 3, count), [near, ends, rng.integers(0, 256, count)])
    b = any_bits() & np.uint32(0x807FFFFF) | (b_exponent << 23).astype(np.uint32)
    b = np.where(rng.random(count) < 0.02, rng.choice(corner, count), b)
    b = np.where(rng.random(count) < 0.1, a ^ np.uint32(1 << 31) ^ (b & 15), b)

    size = rng.integers(0, 63, count)
    n = rng.integers(-(1 << 62), 1 << 62, count) >> size
    # Ties: nothing but zeros below the 25 highest bits, and one in the last of those.
    below = np.maximum(0, 62 - size - rng.integers(23, 27, count))
    n = np.where(rng.random(count) < 0.4, n >> below << below, n)
    n += np.where(rng.random(count) < 0.1, rng.integers(-1, 2, count), 0)
    places = rng.integers(0, 16, count)
    e = np.choose(rng.integers(0, 3, count), [
        rng.integers(-512, 512, count), rng.integers(-60, 60, count),
        rng.choice([-126, 128], count) - (62 - size) + rng.integers(-20, 4, count)])
    return a, b, n, places, np.clip(e, -512, 511), rng.integers(0, 2, count)


def long_integers(n, places, b):
    """The 80-bit integers as an exact object array."""
    top = b & 0xFFFF
    top = (top.astype(np.int64) ^ 0x8000) - 0x8000
    return np.array([(int(t) << 64 | int(v) & (1 << 64) - 1) if p == 15 else int(v) << int(p)
                     for v, p, t in zip(n, places, top, strict=True)], object)


def expected(a, b, n, places, e, form):
    """Result bits and flags of every unit."""
    x, y = nx.from_bits(a), nx.from_bits(b)
    both = np.stack([nx.bits(nx.gelu(x, k)) for k in (0, 1)])
    results = {
        "add": nx.bits(nx.add(x, y)), "mul": nx.bits(nx.mul(x, y)),
        "max": nx.bits(nx.maximum(x, y)),
        "convert": nx.bits(nx.cvt(long_integers(n, places, b), e)),
        "exp": nx.bits(nx.exp(x)), "gelu": np.choose(form, both),
        "rcp": nx.bits(nx.rcp(x)), "sum": nx.bits(nx.add(np.abs(x), np.abs(y)))}
    reads = {"add": (a, b), "mul": (a, b), "max": (a, b), "convert": (), "sum": (a, b)}
    flags = {name: is_nonfinite(*reads.get(name, (a,)), results[name]) for name in UNITS}
    return results, flags


@pytest.mark.cosim
@pytest.mark.parametrize("dsp48", [False, True], ids=["plain", "dsp48"])
@pytest.mark.parametrize(("count", "stall"), [(200_000, 0.0), (5000, 0.5)])
def test_many_operands(build_root, count, stall, dsp48):
    columns = operands(count, count)
    a, b, n, places, e, form = columns
    tail = places | (e & 1023) << 4 | form << 14
    words = np.stack([a, b, n & 0xFFFFFFFF, n >> 32 & 0xFFFFFFFF, tail], 1).astype(np.uint32)
    model = Model(Together(), "fp32_together" + "_dsp48" * dsp48, build_root, dsp48=dsp48)
    run = model.run({"i": words}, {"o": count}, stall=stall, seed=f"{count}", cycles=20 * count)
    size = len(UNITS) + 1
    found = np.frombuffer(
        b"".join(v.to_bytes(4 * size, "little") for v in run.outputs["o"]), np.uint32)
    found = found.reshape(count, size)
    results, flags = expected(*columns)
    for k, name in enumerate(UNITS):
        wrong = (found[:, k] != results[name]) | ((found[:, -1] >> k & 1) != flags[name])
        assert not wrong.any(), (
            f"{name}: {wrong.sum()} wrong, first with {[hex(int(c[wrong][0])) for c in columns]}: "
            f"{found[wrong][0, k]:#010x}, not {results[name][wrong][0]:#010x}")
    if not stall:
        assert np.ptp(run.cycles["o"]) == count - 1
