# SPDX-License-Identifier: Apache-2.0
"""A channel's bursts as beats of the SDRAM: several ports behind one arbiter and a memory."""

import random

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl_gen.boards.port import DECERR, Arbiter, Port
from rtl_gen.boards.sdram import Sdram
from rtl_gen.common import axi
from tests.rtl.bench import simulate

BEAT, BITS, PORTS = 16, 6, 2
SIZES = {"beat_bytes": BEAT, "address_bits": BITS}


class Ports(wiring.Component):
    """Ports, their arbiter, and the memory's side of it."""

    def __init__(self) -> None:
        self.arbiter = Arbiter(ways=2 * PORTS, **SIZES)
        members = self.arbiter.signature.members
        super().__init__({"axi": In(axi.full(BEAT)).array(PORTS), "o": members["o"],
                          "read": members["read"], "reading": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.arbiter = arbiter = self.arbiter
        connect(m, arbiter.o, flipped(self.o))
        m.d.comb += [arbiter.read.eq(self.read), self.reading.eq(arbiter.reading)]
        for k in range(PORTS):
            m.submodules[f"port_{k}"] = port = Port(**SIZES)
            connect(m, flipped(self.axi[k]), port.axi)
            connect(m, port.read, arbiter.i[2 * k])
            connect(m, port.write, arbiter.i[2 * k + 1])
            m.d.comb += port.came.eq(arbiter.came[2 * k])
        return m


def memory(dut, content: dict[int, int], rng_seed: str, order: list):
    """Background bench: takes beats when it likes, and answers reads in their order, later."""
    async def run(ctx):
        rng, waiting, now = random.Random(rng_seed), [], 0
        while True:
            ctx.set(dut.o.ready, rng.random() < 0.4)
            answer = waiting.pop(0)[1] if waiting and waiting[0][0] <= now else None
            ctx.set(dut.read, {"valid": answer is not None, "data": answer or 0})
            _, _, valid, ready, beat = await ctx.tick().sample(dut.o.valid, dut.o.ready, dut.o.p)
            now += 1
            if valid and ready:
                order.append(beat.address)
                if beat.write:
                    content[beat.address] = beat.data
                else:
                    waiting.append((now + 12, content.get(beat.address, 0)))
    return run


def master(dut, k: int, seed: str, log: list, *, bursts: int, stall: float):
    """Bench: writes bursts and reads them back, in this port's half, some of them beyond memory."""
    bus, half = dut.axi[k], (1 << BITS) // PORTS

    async def burst(ctx, rng):
        beyond = rng.random() < 0.2
        length = rng.choice((1, 2, 7, 16))
        first = k * half + rng.randrange(half - length)
        address = first * BEAT + (beyond << rng.choice((BITS + 4, 40, 63)))
        data = [rng.getrandbits(8 * BEAT) for _ in range(length)]

        async def pause():
            while rng.random() < stall:
                await ctx.tick()

        ctx.set(bus.awaddr, address)
        ctx.set(bus.awlen, length - 1)
        ctx.set(bus.awvalid, 1)
        await ctx.tick().until(bus.awready)
        ctx.set(bus.awvalid, 0)
        for number, beat in enumerate(data):
            await pause()
            ctx.set(bus.wdata, beat)
            ctx.set(bus.wlast, number == length - 1)
            ctx.set(bus.wvalid, 1)
            await ctx.tick().until(bus.wready)
            ctx.set(bus.wvalid, 0)
        await pause()
        ctx.set(bus.bready, 1)
        response, = await ctx.tick().sample(bus.bresp).until(bus.bvalid)
        ctx.set(bus.bready, 0)
        assert response == (DECERR if beyond else axi.OKAY)
        ctx.set(bus.araddr, address)
        ctx.set(bus.arlen, length - 1)
        ctx.set(bus.arvalid, 1)
        await ctx.tick().until(bus.arready)
        ctx.set(bus.arvalid, 0)
        found, answers = [], []
        for number in range(length):
            await pause()
            ctx.set(bus.rready, 1)
            beat, last, answer = await ctx.tick().sample(
                bus.rdata, bus.rlast, bus.rresp).until(bus.rvalid)
            ctx.set(bus.rready, 0)
            assert last == (number == length - 1)
            found.append(beat)
            answers.append(answer)
        assert answers == [DECERR if beyond else axi.OKAY] * length
        if not beyond:
            assert found == data
        log.append((beyond, first, data))

    async def run(ctx):
        rng = random.Random(f"{seed} {k}")
        log.clear()
        for _ in range(bursts):
            await burst(ctx, rng)
    return run


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_bursts_of_two_ports_reach_memory_and_nothing_beyond_is_written(stall):
    dut, content, order = Ports(), {}, []
    logs = [[] for _ in range(PORTS)]
    simulate(dut, *(master(dut, k, f"port {stall}", logs[k], bursts=40, stall=stall)
                    for k in range(PORTS)),
             monitors=(memory(dut, content, "memory", order),), timeout=60_000, wave="board_port")
    written = {first + k: beat for log in logs for beyond, first, data in log if not beyond
               for k, beat in enumerate(data)}
    assert content == written
    assert any(beyond for log in logs for beyond, *_ in log)


def test_reads_that_wait_take_turns():
    """Neither of two long bursts goes before the other."""
    dut, content, order = Ports(), {}, []

    async def read(ctx):
        for k in range(PORTS):
            ctx.set(dut.axi[k].araddr, k * 32 * BEAT)
            ctx.set(dut.axi[k].arlen, 15)
            ctx.set(dut.axi[k].arvalid, 1)
            ctx.set(dut.axi[k].rready, 1)
        await ctx.tick()
        for k in range(PORTS):
            ctx.set(dut.axi[k].arvalid, 0)
        while len(order) < 32:
            await ctx.tick()

    simulate(dut, read, monitors=(memory(dut, content, "turns", order),), timeout=5_000)
    ports = [address >> 5 for address in order]
    assert abs(sum(ports[:16]) - 8) <= 4
    assert ports.count(0) == ports.count(1) == 16


def test_a_request_has_the_fields_of_the_controllers():
    assert Arbiter(ways=1, **SIZES).o.p.shape() == Sdram.request(BITS, BEAT)
