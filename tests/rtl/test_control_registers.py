# SPDX-License-Identifier: Apache-2.0
"""The control port: every register, AXI4-Lite with the host in any order, start and done."""

import random

import pytest

from rtl_gen.control.registers import SLVERR, Registers
from rtl_gen.spec import registers as spec
from rtl_gen.spec.config import TINY
from tests.rtl.bench import simulate

CTRL, GIE, IER, ISR = (spec.CONTROL[name] for name in ("ap_ctrl", "gie", "ier", "isr"))
START, DONE, IDLE, READY = 1, 2, 4, 8


class Host:
    """AXI4-Lite master: address and data in any order, answers taken when it likes."""

    def __init__(self, bus, seed, stall):
        self.bus, self.rng, self.stall = bus, random.Random(seed), stall

    async def _pause(self, ctx):
        while self.rng.random() < self.stall:
            await ctx.tick()

    async def write(self, ctx, address, data, strobe=0xF):
        bus, todo = self.bus, ["aw", "w"]
        self.rng.shuffle(todo)
        together = self.rng.random() < 0.5
        ctx.set(bus.awaddr, address)
        ctx.set(bus.wdata, data)
        ctx.set(bus.wstrb, strobe)
        if together:
            ctx.set(bus.awvalid, 1)
            ctx.set(bus.wvalid, 1)
        while todo:
            if not together:
                await self._pause(ctx)
                ctx.set(getattr(bus, f"{todo[0]}valid"), 1)
            _, _, aw, w = await ctx.tick().sample(
                bus.awvalid & bus.awready, bus.wvalid & bus.wready)
            for name, taken in (("aw", aw), ("w", w)):
                if taken:
                    todo.remove(name)
                    ctx.set(getattr(bus, f"{name}valid"), 0)
        await self._pause(ctx)
        ctx.set(bus.bready, 1)
        response, = await ctx.tick().sample(bus.bresp).until(bus.bvalid)
        ctx.set(bus.bready, 0)
        return response

    async def read(self, ctx, address):
        bus = self.bus
        ctx.set(bus.araddr, address)
        ctx.set(bus.arvalid, 1)
        await ctx.tick().until(bus.arready)
        ctx.set(bus.arvalid, 0)
        await self._pause(ctx)
        ctx.set(bus.rready, 1)
        data, response = await ctx.tick().sample(bus.rdata, bus.rresp).until(bus.rvalid)
        ctx.set(bus.rready, 0)
        return data, response


async def finish(ctx, dut):
    ctx.set(dut.finish, 1)
    await ctx.tick()
    ctx.set(dut.finish, 0)


async def started(ctx, dut, starts):
    held, reads = 0, 0
    while True:
        _, _, start, now, taken, index, word, status = await ctx.tick().sample(
            dut.start, dut.held, dut.bus.arvalid & dut.bus.arready, dut.index, dut.word, dut.status)
        starts[0] += start
        reads += taken
        held += now
        assert held <= reads
        assert now or word == status[index]


def run(script, stall):
    dut, starts = Registers(TINY), [0]
    host = Host(dut.bus, f"registers {stall}", stall)

    async def bench(ctx):
        starts[0] = 0
        await script(ctx, dut, host, starts)

    async def watch(ctx):
        await started(ctx, dut, starts)

    simulate(dut, bench, timeout=20_000, wave="registers", monitors=[watch])


stalls = pytest.mark.parametrize("stall", [0.0, 0.6])


@stalls
def test_addresses_are_kept_and_unknown_ones_refused(stall):
    async def script(ctx, dut, host, starts):
        rng = random.Random("addresses")
        kept = [spec.CONTROL["command_low"], spec.CONTROL["command_high"]]
        kept += [spec.CHANNEL_BASE + 4 * k for k in range(2 * TINY.channels)]
        values = {address: rng.randrange(1 << 32) for address in kept}
        for address, value in values.items():
            assert await host.write(ctx, address, value) == 0
        for address, value in values.items():
            assert await host.read(ctx, address) == (value, 0)
        low, high = values[kept[0]], values[kept[1]]
        assert ctx.get(dut.command) == high << 32 | low
        for channel in range(TINY.channels):
            place = spec.CHANNEL_BASE + 8 * channel
            assert ctx.get(dut.base[channel]) == values[place + 4] << 32 | values[place]
        # Bytes by their strobes.
        assert await host.write(ctx, kept[3], 0x11223344, strobe=0b0101) == 0
        mixed = values[kept[3]] & 0xFF00FF00 | 0x00220044
        assert await host.read(ctx, kept[3]) == (mixed, 0)

        status = [rng.randrange(1 << 32) for _ in spec.STATUS]
        ctx.set(dut.status, status)
        places = [spec.STATUS_BASE + 4 * k for k in range(len(spec.STATUS))]
        for place, value in zip(places, status, strict=True):
            # Somebody else has his words beside the host, but for the cycle of the host's.
            index = rng.randrange(len(status))
            ctx.set(dut.index, index)
            assert (ctx.get(dut.held), ctx.get(dut.word)) == (0, status[index])
            assert await host.read(ctx, place) == (value, 0)
            assert await host.write(ctx, place, 0) == SLVERR
        reserved = range(spec.CONTROL["command_high"] + 4, spec.CHANNEL_BASE, 4)
        for address in reserved:
            assert await host.write(ctx, address, 0xFFFFFFFF) == 0
            assert (await host.read(ctx, address))[1] == SLVERR
        assert await host.read(ctx, kept[1]) == (values[kept[1]], 0)
        assert await host.read(ctx, kept[2]) == (values[kept[2]], 0)
        known = {CTRL, GIE, IER, ISR, *kept, *places, *reserved}
        unknown = [*rng.sample([a for a in range(0, 4096) if a not in known], 40),
                   spec.CHANNEL_BASE + 8 * TINY.channels, spec.STATUS_BASE + 4 * len(spec.STATUS)]
        for address in unknown:
            assert await host.write(ctx, address, 1) == SLVERR
            assert (await host.read(ctx, address))[1] == SLVERR
        assert starts[0] == 0

    run(script, stall)


@stalls
def test_start_and_done_are_those_of_a_vitis_kernel(stall):
    async def script(ctx, dut, host, starts):
        assert await host.read(ctx, CTRL) == (IDLE, 0)
        for _ in range(3):
            before = starts[0]
            assert await host.write(ctx, CTRL, START) == 0
            assert await host.read(ctx, CTRL) == (START, 0)
            # While it runs: no second start, and its addresses stay.
            assert await host.write(ctx, CTRL, START) == 0
            assert await host.write(ctx, spec.CHANNEL_BASE, 5) == SLVERR
            assert await host.read(ctx, spec.CHANNEL_BASE) == (0, 0)
            assert starts[0] == before + 1
            await finish(ctx, dut)
            assert await host.read(ctx, CTRL) == (DONE | IDLE | READY, 0)
            assert await host.read(ctx, CTRL) == (IDLE, 0)

    run(script, stall)


def test_a_read_in_the_cycle_of_the_end_does_not_lose_it():
    async def script(ctx, dut, host, starts):
        for delay in range(6):
            await host.write(ctx, CTRL, START)
            ctx.set(dut.bus.araddr, CTRL)
            ctx.set(dut.bus.arvalid, 1)
            ctx.set(dut.bus.rready, 1)
            seen = 0
            for cycle in range(40):
                ctx.set(dut.finish, cycle == delay)
                _, _, taken, valid, data = await ctx.tick().sample(
                    dut.bus.arready, dut.bus.rvalid, dut.bus.rdata)
                seen += bool(valid and data & DONE)
                if cycle > 30 and taken:
                    ctx.set(dut.bus.arvalid, 0)
            assert seen == 1
            ctx.set(dut.bus.rready, 0)

    run(script, 0.0)


@stalls
def test_interrupt_is_raised_by_done_and_toggled_away(stall):
    async def script(ctx, dut, host, starts):
        for gie, ier in ((0, 0), (0, 1), (1, 0), (1, 1)):
            await host.write(ctx, GIE, gie)
            await host.write(ctx, IER, ier)
            assert [(await host.read(ctx, a))[0] for a in (GIE, IER, ISR)] == [gie, ier, 0]
            await host.write(ctx, CTRL, START)
            await finish(ctx, dut)
            await ctx.tick()
            assert ctx.get(dut.interrupt) == (gie & ier)
            assert await host.read(ctx, ISR) == (ier, 0)
            if ier:
                await host.write(ctx, ISR, 1)
            assert ctx.get(dut.interrupt) == 0
            assert await host.read(ctx, ISR) == (0, 0)

    run(script, stall)
