# SPDX-License-Identifier: Apache-2.0
"""A reset in the middle of anything leaves the engine idle and right."""

import dataclasses

import numpy as np
import pytest
from amaranth import ResetInserter, Signal

from rtl_gen.matmul.engine import Engine
from rtl_gen.spec.config import TINY
from tests.rtl.bench import get, put, simulate
from tests.rtl.engine_program import Program

CONFIG = dataclasses.replace(
    TINY, channels=2, vector_lanes=2, tokens=2, plane_windows=16, heads=1, acc_rows=16)


@pytest.mark.parametrize("after", [3, 11, 19])
def test_reset(after):
    """One instruction is cut off after so many cycles; the next one gives what it must."""
    restart, engine = Signal(), Engine(CONFIG)
    program = Program(CONFIG, f"reset {after}")
    for merge in (2, 1):
        program.matmul(rows=4, beats=2, merge=merge, act=4 * merge, pos=2, columns=2, first=1,
                       last=1)
    cut, whole = program.jobs
    names = [f"plane_{k}" for k in range(2)]
    inputs, rows = program.inputs(), program.expected()["rows"]
    wanted = rows[len(rows) // 2:]
    found = []

    async def channels(ctx):
        """Entries of the instruction that runs, whenever the engine takes them."""
        job, at = cut, 0
        while True:
            swap = at % 2
            for c in range(CONFIG.channels):
                for k in range(2):
                    number = min(at + k, job.weights.shape[1] - 1)
                    weights = job.weights[c, number].astype(np.int8).tobytes()
                    index = sum(int(i) << 4 * s for s, i in enumerate(job.index[c, number]))
                    ctx.set(engine.entries[c][k ^ swap], int.from_bytes(weights, "little")
                            | index << 8 * CONFIG.beat_bytes)
                ctx.set(engine.swap[c], swap)
                ctx.set(engine.some[c], (1 << min(2, job.weights.shape[1] - at)) - 1)
            _, _, take, again = await ctx.tick().sample(engine.take[0], restart)
            at += take
            if again:
                job, at = whole, 0
                assert ctx.get(engine.entries_used) == 0

    async def bench(ctx):
        layouts = {name: program.payload(name) for name in (*names, "fresh", "job")}
        for port in engine.write:
            ctx.set(port.ready, 1)
        ctx.set(engine.epilogue_job.ready, 1)
        for number in range(2):
            for name, port in (*zip(names, engine.planes, strict=True), ("fresh", engine.fresh)):
                for payload in inputs[name]:
                    what = layouts[name].from_bits(payload).what.as_value()
                    await put(ctx, port, port.payload.shape().from_bits(what.value))
            job = layouts["job"].from_bits(inputs["job"][number]).job
            await put(ctx, engine.job, job)
            if number == 0:
                await ctx.tick().repeat(after)
                ctx.set(restart, 1)
                await ctx.tick()
                ctx.set(restart, 0)
        while len(found) < len(wanted):
            row = await get(ctx, engine.rows)
            found.append(row.as_value().value)

    simulate(ResetInserter(restart)(engine), bench, monitors=[channels], timeout=3000)
    assert found == wanted
