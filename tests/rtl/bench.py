# SPDX-License-Identifier: Apache-2.0
"""Drivers and monitors of streams in Amaranth's simulator."""

import contextlib
import os
import random

from amaranth import Value
from amaranth.lib import data
from amaranth.sim import Simulator

from tests.conftest import BUILD

PERIOD = 1e-8


def again() -> str:
    """The command that repeats the running test."""
    case = os.environ.get("PYTEST_CURRENT_TEST", "").removesuffix(" (call)")
    return f".venv/bin/python -m pytest {case!r}"


def simulate(dut, *benches, timeout: int, monitors=(), wave: str | None = None) -> None:
    """Run ``benches`` to the end, within ``timeout`` cycles; ``monitors`` run beside them.

    A failure names the command to repeat it, and runs once more, recording ``wave`` below
    ``build/waves``.
    """
    async def watchdog(ctx):
        await ctx.delay(timeout * PERIOD)
        raise TimeoutError(f"no end after {timeout} cycles")

    sim = Simulator(dut)
    sim.add_clock(PERIOD)
    for bench in benches:
        sim.add_testbench(bench)
    for bench in (*monitors, watchdog):
        sim.add_testbench(bench, background=True)
    try:
        sim.run()
    except Exception as error:
        error.add_note(f"repeat with: {again()}")
        if wave is not None:
            path = BUILD / "waves" / f"{wave}.vcd"
            path.parent.mkdir(parents=True, exist_ok=True)
            sim.reset()
            with contextlib.suppress(Exception), sim.write_vcd(str(path)):
                sim.run()
            error.add_note(f"waveform: {path}")
        raise


async def put(ctx, port, payload) -> None:
    """Offer one payload until it is taken."""
    ctx.set(port.payload, payload)
    ctx.set(port.valid, 1)
    await ctx.tick().until(port.ready)
    ctx.set(port.valid, 0)


async def get(ctx, port):
    """Take one payload."""
    ctx.set(port.ready, 1)
    payload, = await ctx.tick().sample(port.payload).until(port.valid)
    ctx.set(port.ready, 0)
    return payload


def feed(port, payloads, *, stall: float = 0.0, seed: str = ""):
    """Bench: offers ``payloads`` one after another, with pauses of probability ``stall``."""
    async def bench(ctx):
        rng = random.Random(f"{seed} feed")     # made here: a rerun for waves sees the same stalls
        for payload in payloads:
            while rng.random() < stall:
                await ctx.tick()
            await put(ctx, port, payload)
    return bench


def collect(port, count: int, into: list, *, stall: float = 0.0, seed: str = ""):
    """Bench: takes ``count`` payloads, with pauses of probability ``stall``."""
    async def bench(ctx):
        rng = random.Random(f"{seed} collect")
        into.clear()
        while len(into) < count:
            while rng.random() < stall:
                await ctx.tick()
            into.append(await get(ctx, port))
    return bench


def sink(port, into: list, *, stall: float = 0.0, seed: str = ""):
    """Monitor: takes payloads to the end of the run."""
    async def bench(ctx):
        rng = random.Random(f"{seed} sink")
        into.clear()
        while True:
            ctx.set(port.ready, rng.random() >= stall)
            _, _, valid, ready, payload = await ctx.tick().sample(
                port.valid, port.ready, port.payload)
            if valid and ready:
                into.append(payload)
    return bench


def obeys_stream_rules(port):
    """Monitor: once valid, neither ``valid`` nor the payload may change until it is taken."""
    async def bench(ctx):
        held = None
        while True:
            _, _, valid, ready, bits = await ctx.tick().sample(
                port.valid, port.ready, Value.cast(port.payload))
            if held is not None:
                assert valid, "valid fell before the payload was taken"
                assert bits == held, f"the payload changed from {held:#x} to {bits:#x}"
            held = bits if valid and not ready else None
    return bench


def plain(value):
    """A sampled payload as integers, lists and dictionaries."""
    if isinstance(value, data.Const):
        shape = value.shape()
        if isinstance(shape, data.ArrayLayout):
            return [plain(value[k]) for k in range(shape.length)]
        return {name: plain(value[name]) for name, _ in shape}
    return value
