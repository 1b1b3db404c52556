# SPDX-License-Identifier: Apache-2.0
"""The scratchpad and the scale memory against plain Python memories."""

import dataclasses
import random

import pytest

from rtl_gen.emit import convert
from rtl_gen.spec.config import TINY
from rtl_gen.vector import Scales, Scratchpad
from tests.rtl.bench import plain, simulate

CONFIG = dataclasses.replace(TINY, scratch_words=16, kv_scales=16)
LANES = CONFIG.vector_lanes
#: By cards of the ring: who writes, by number of the port, the most urgent first.
URGENCY = {1: (0, 1, 2), 2: (0, 1, 3, 2)}


@pytest.mark.parametrize(("load", "cards"), [(0.2, 1), (0.7, 1), (0.2, 2), (0.4, 2)])
def test_scratchpad_holds_what_was_written(load, cards):
    dut = Scratchpad(dataclasses.replace(CONFIG, cards=cards))
    writers = len(URGENCY[cards])
    assert (len(dut.read), len(dut.write)) == (writers + 2, writers)

    async def bench(ctx):
        rng = random.Random(f"scratchpad {load}")
        content = {}
        offers = [None] * writers         # a write stays on offer until it is taken
        shown = [None] * len(dut.read)
        taken = [0] * writers
        for _ in range(600):
            for k, port in enumerate(dut.write):
                if offers[k] is None and rng.random() < load:
                    offers[k] = rng.randrange(16), [rng.getrandbits(32) for _ in range(LANES)]
                    ctx.set(port.payload, {"addr": offers[k][0], "data": offers[k][1]})
                ctx.set(port.valid, offers[k] is not None)
            reads = [rng.randrange(16) if rng.random() < load else None for _ in dut.read]
            for port, address in zip(dut.read, reads, strict=True):
                ctx.set(port.en, address is not None)
                ctx.set(port.addr, rng.randrange(16) if address is None else address)
            ready = [ctx.get(port.ready) for port in dut.write]
            await ctx.tick()
            for k, address in enumerate(reads):
                if address in content or address is not None:
                    shown[k] = content.get(address, [0] * LANES)
            first = next((k for k in URGENCY[cards] if offers[k]), None)
            granted = [k for k in range(writers) if offers[k] and ready[k]]
            assert granted == ([] if first is None else [first])
            if first is not None:
                content[offers[first][0]] = offers[first][1]
                offers[first] = None
                taken[first] += 1
            for port, expected in zip(dut.read, shown, strict=True):
                assert expected is None or plain(ctx.get(port.data)) == expected
        assert sum(count > 5 for count in taken) >= 2
        assert taken[URGENCY[cards][-1]]

    simulate(dut, bench, timeout=2000)


@pytest.mark.parametrize("load", [0.15, 0.6])
def test_scales_are_read_by_row_and_by_lane(load):
    dut = Scales(CONFIG)

    async def bench(ctx):
        rng = random.Random(f"scales {load}")
        content = [[[0] * LANES for _ in range(16)] for _ in "kv"]
        shown = [None, None]
        asked, answers = [], 0
        cache = row = None
        for _ in range(1000):
            for port in (dut.k_read, dut.v_read):
                ctx.set(port.en, int(rng.random() < load / 2))
                ctx.set(port.addr, rng.randrange(16))
            cache = rng.random() < load and (
                rng.randrange(16), rng.randrange(LANES), rng.randrange(2), rng.getrandbits(16))
            ctx.set(dut.cache.valid, bool(cache))
            if cache:
                names = ("addr", "lane", "kind", "scale")
                ctx.set(dut.cache.payload, dict(zip(names, cache, strict=True)))
            load_valid = ctx.get(dut.load.valid)
            if not load_valid and rng.random() < load:
                ctx.set(dut.load.payload, {
                    "addr": rng.randrange(16), "data": [rng.getrandbits(32) for _ in range(LANES)]})
                ctx.set(dut.load.valid, 1)
            if row is None and rng.random() < load:
                row = rng.randrange(16), rng.randrange(LANES)
                ctx.set(dut.row_read.payload, {"addr": row[0], "lane": row[1]})
            ctx.set(dut.row_read.valid, row is not None)
            ctx.set(dut.row.ready, int(rng.random() < 0.5))

            enabled = [(ctx.get(port.en), ctx.get(port.addr)) for port in (dut.k_read, dut.v_read)]
            accepted = row is not None and ctx.get(dut.row_read.ready)
            assert not (accepted and any(en for en, _ in enabled))
            loaded = plain(ctx.get(dut.load.payload)) if (
                ctx.get(dut.load.valid) and ctx.get(dut.load.ready)) else None
            assert ctx.get(dut.cache.ready)
            assert not (loaded and cache)
            answer = ctx.get(dut.row.payload) if (
                ctx.get(dut.row.valid) and ctx.get(dut.row.ready)) else None
            await ctx.tick()
            if answer is not None:
                assert answer == asked.pop(0)
                answers += 1
            for kind, (en, address) in enumerate(enabled):
                if en:
                    shown[kind] = list(content[kind][address])
            if accepted:
                asked.append(content[0][row[0]][row[1]] | content[1][row[0]][row[1]] << 16)
                row = None
            if cache:
                content[cache[2]][cache[0]][cache[1]] = cache[3]
            if loaded:
                ctx.set(dut.load.valid, 0)
                for kind in range(2):
                    content[kind][loaded["addr"]] = [
                        v >> 16 * kind & 0xFFFF for v in loaded["data"]]
            for port, expected in zip((dut.k_read, dut.v_read), shown, strict=True):
                assert expected is None or plain(ctx.get(port.data)) == expected
        assert answers > 20

    simulate(dut, bench, timeout=3000)


@pytest.mark.parametrize(("words", "asks"), [(4096, True), (2048, False)])
def test_copies_that_fill_blocks_of_ultraram_ask_for_it(words, asks):
    config = dataclasses.replace(CONFIG, scratch_words=words)
    texts = convert(Scratchpad(config), "scratchpad")
    copies = [text for text in texts.values() if f"content [0:{words - 1}]" in text]
    assert len(copies) == 1
    assert ('ram_style = "ultra"' in copies[0]) == asks
