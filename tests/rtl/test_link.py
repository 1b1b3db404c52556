# SPDX-License-Identifier: Apache-2.0
"""Two ends of a link and a way between them that delays, loses and corrupts frames."""

import functools
import random

import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl_gen.link import Link, layouts
from rtl_gen.spec import link as spec
from rtl_gen.spec.link import Failure, State
from tests.rtl.bench import simulate
from tests.rtl.verilated import Model

BEAT = 16
SIZES = {"beat_bytes": BEAT, "depth": 32, "frame_beats": 4, "timeout": 120, "keepalive": 40,
         "silence": 600}
LATENCY = 12
#: Links of whole cards: by the cycles that a beat is under way at 100 and 200 MHz.
SHAPES = {"tiny": SIZES | {"latency": 20}, "u280": {
    "beat_bytes": 64, "depth": 512, "frame_beats": 8, "timeout": 1024, "keepalive": 256,
    "silence": 4096, "latency": 108}}


class Pair(wiring.Component):
    """Two ends; the bench is the way between them."""

    def __init__(self, **sizes):
        self.ends = [Link(**SIZES | sizes) for _ in range(2)]
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules += self.ends
        return m


def identity(end, **fields):
    """Who an end is, in a ring of two."""
    return {"session": 7, "contract": 0x12345678, "configuration": 0x9ABCDEF0, "card": end,
            "cards": 2, "neighbour": 1 - end, "side": 1 - end, **fields}


class Way:
    """One direction: a delay, which may be cut, and which may hold up the source."""

    def __init__(self, source, target):
        self.source, self.target, self.cut, self.held = source, target, False, False

    def bench(self):
        async def bench(ctx):
            line = [None] * LATENCY
            while True:
                ctx.set(self.source.ready, not self.held)
                _, _, valid, payload = await ctx.tick().sample(
                    self.source.valid & self.source.ready, self.source.payload)
                line.append(payload if valid and not self.cut else None)
                arrives = line.pop(0)
                ctx.set(self.target.valid, arrives is not None)
                if arrives is not None:
                    ctx.set(self.target.payload, arrives)
        return bench


def joined():
    """Two ends and the ways between them."""
    pair = Pair()
    return pair, [Way(pair.ends[k].tx, pair.ends[1 - k].rx) for k in range(2)]


async def up(ctx, pair):
    """Wait until both ends are."""
    while any(ctx.get(end.state) != State.UP for end in pair.ends):
        await ctx.tick()


class Noise(wiring.Component):
    """A delay line that loses and corrupts beats, and holds up the sender, by chance."""

    def __init__(self, *, beat_bytes, latency):
        self.beat_bytes, self.latency = beat_bytes, latency
        beat = stream.Signature(layouts.beat(beat_bytes))
        super().__init__({"i": In(beat), "o": Out(beat), "seed": In(64), "begin": In(1),
                          **{name: In(17) for name in ("corrupt", "lose", "hold")}})

    def elaborate(self, platform):
        m = Module()
        noise, size = Signal(64), 8 * self.beat_bytes
        steps = noise
        for shift in (13, -7, 17):      # xorshift64
            steps = steps ^ ((steps << shift)[:64] if shift > 0 else steps >> -shift)
        m.d.sync += noise.eq(Mux(self.begin, self.seed, steps))
        bit = Mux(noise[:17] < self.corrupt, 1 << noise[48:48 + size.bit_length()], 0)
        beats = [self.i.p.as_value() ^ bit[:size + 1]]
        valid = [self.i.valid & self.i.ready & (noise[16:32] >= self.lose)]
        m.d.comb += self.i.ready.eq(noise[32:48] >= self.hold)
        for k in range(self.latency):
            later, there = Signal(size + 1, name=f"beat_{k}"), Signal(name=f"valid_{k}")
            m.d.sync += [later.eq(beats[-1]), there.eq(valid[-1])]
            beats.append(later)
            valid.append(there)
        m.d.comb += [self.o.p.as_value().eq(beats[-1]), self.o.valid.eq(valid[-1])]
        return m


class Lossy(wiring.Component):
    """Two ends and noise between them; both begin by themselves, some cycles apart."""

    def __init__(self, *, latency, **sizes):
        self.latency, self.sizes = latency, sizes
        message = stream.Signature(layouts.beat(sizes["beat_bytes"]))
        super().__init__({
            **{f"i{k}": In(message) for k in range(2)}, **{f"o{k}": Out(message) for k in range(2)},
            "seed0": In(64), "seed1": In(64), "apart": In(16),
            **{name: In(17) for name in ("corrupt", "lose", "hold")},
            "repeats": Out(1), "asked": Out(1), "bad": Out(1), "idle": Out(1)})

    def elaborate(self, platform):
        m = Module()
        time = Signal(17)
        m.d.sync += time.eq(Mux(time.all(), time, time + 1))
        ends = [Link(**self.sizes) for _ in range(2)]
        for k, end in enumerate(ends):
            m.submodules[f"end{k}"] = end
            m.submodules[f"noise{k}"] = noise = Noise(
                beat_bytes=self.sizes["beat_bytes"], latency=self.latency)
            connect(m, end.tx, noise.i)
            other = ends[1 - k]
            m.d.comb += [
                other.rx.valid.eq(noise.o.valid), other.rx.payload.eq(noise.o.payload),
                noise.seed.eq(getattr(self, f"seed{k}")), noise.begin.eq(time == 0),
                *(getattr(noise, name).eq(getattr(self, name))
                  for name in ("corrupt", "lose", "hold")),
                end.start.eq(time == 2 + k * self.apart), end.me.eq(end.me.shape().const(
                    identity(k)))]
            connect(m, flipped(getattr(self, f"i{k}")), end.i)
            connect(m, end.o, flipped(getattr(self, f"o{k}")))
        m.d.comb += [
            self.repeats.eq(Cat(end.counters.repeats != 0 for end in ends).any()),
            self.asked.eq(Cat(end.counters.repeats > end.counters.timeouts for end in ends).any()),
            self.bad.eq(Cat(end.counters.bad != 0 for end in ends).any()),
            self.idle.eq(Cat(end.idle for end in ends).all() & (time > 1000))]
        return m


def begin(pair, identities, *, apart=0):
    """Bench: start a session at both ends, ``apart`` cycles one after the other."""
    async def bench(ctx):
        for end, who in zip(pair.ends, identities, strict=True):
            ctx.set(end.me, who)
            ctx.set(end.start, 1)
            await ctx.tick()
            ctx.set(end.start, 0)
            for _ in range(apart):
                await ctx.tick()
    return bench


def messages(rng, count, beat_bytes, lengths=(1, 1, 2, 3, 4, 5, 9, 13, 40)):
    """Beats of random messages: data, and above it whether it is the last."""
    size = 8 * beat_bytes
    beats = []
    for _ in range(count):
        length = rng.choice(lengths)
        beats += [rng.getrandbits(size) | (k == length - 1) << size for k in range(length)]
    return beats


@functools.cache
def model(shape, build_root):
    dut = Lossy(**SHAPES[shape])
    return Model(dut, f"link_{shape}", build_root, optimise="-O0")


def run(build_root, shape, name, *, count=200, stall=0.0, cycles=200_000, apart=5, corrupt=0.0,
        lose=0.0, hold=0.0, **kind):
    """Send messages both ways; what the model gave."""
    rng = random.Random(name)
    beat_bytes = SHAPES[shape]["beat_bytes"]
    sent = [messages(rng, count, beat_bytes, **kind) for _ in range(2)]
    chances = {key: round(65536 * value) for key, value in (
        ("corrupt", corrupt), ("lose", lose), ("hold", hold))}
    found = model(shape, build_root).run(
        {f"i{k}": sent[k] for k in range(2)}, {f"o{k}": len(sent[1 - k]) for k in range(2)},
        stall=stall, seed=name, cycles=cycles, extra=2 * SHAPES[shape]["timeout"], apart=apart,
        seed0=rng.getrandbits(64) | 1, seed1=rng.getrandbits(64) | 1, **chances)
    for k in range(2):
        assert found.outputs[f"o{k}"] == sent[1 - k]
    return found


@pytest.mark.cosim
@pytest.mark.xdist_group("link")
@pytest.mark.parametrize("hold", [0, 0.3])
@pytest.mark.parametrize("stall", [0, 0.5, 0.9])
@pytest.mark.parametrize("shape", SHAPES)
def test_messages_arrive_in_order(build_root, shape, stall, hold):
    found = run(build_root, shape, f"link {shape} {stall} {hold}", stall=stall, hold=hold)
    assert found.high["repeats"] == found.high["bad"] == 0
    assert found.high["idle"]


@pytest.mark.cosim
@pytest.mark.xdist_group("link")
@pytest.mark.parametrize(("corrupt", "lose"), [(0.01, 0), (0, 0.01), (0.02, 0.02)])
@pytest.mark.parametrize("stall", [0, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_lost_is_sent_again(build_root, shape, corrupt, lose, stall):
    name = f"lossy link {shape} {corrupt} {lose} {stall}"
    found = run(build_root, shape, name, corrupt=corrupt, lose=lose, stall=stall, hold=0.1)
    assert found.high["repeats"]
    assert found.high["asked"]      # not by timeouts alone
    assert found.high["bad"]


@pytest.mark.cosim
@pytest.mark.xdist_group("link")
def test_numbers_wrap(build_root):
    """More beats than a number counts, with errors."""
    found = run(build_root, "tiny", "long link", count=10_000, cycles=2_000_000, corrupt=0.002)
    assert len(found.outputs["o0"]) > 1 << spec.NUMBER_BITS
    assert found.high["repeats"]


@pytest.mark.cosim
@pytest.mark.xdist_group("link")
def test_pace(build_root):
    """Messages that fill their frames fill the link: trailers are the only gaps."""
    frame = SHAPES["u280"]["frame_beats"]
    found = run(build_root, "u280", "pace", count=100, lengths=(5 * frame,))
    for name in ("o0", "o1"):
        when = found.cycles[name]
        assert when[3000] - when[1000] == 2000 * (frame + 1) // frame


@pytest.mark.parametrize("beats", [1, 3, SIZES["frame_beats"]])
def test_latency(beats):
    """As the page says, from a link that is idle."""
    pair, ways = joined()
    first, second = pair.ends

    async def measure(ctx):
        await up(ctx, pair)
        for _ in range(SIZES["keepalive"] // 2):
            await ctx.tick()
        times, taken = {}, 0
        for cycle in range(200):
            ctx.set(first.i.valid, taken < beats)
            ctx.set(first.i.p.last, taken == beats - 1)
            _, _, take, *seen = await ctx.tick().sample(
                first.i.valid & first.i.ready, first.tx.valid & first.tx.p.last,
                second.rx.valid & second.rx.p.last, second.o.valid)
            for name, value in zip(("i", "tx", "rx", "o"), (take, *seen), strict=True):
                if value:
                    times.setdefault(name, cycle)
            taken += take
        assert times["i"] == 0
        assert times["tx"] == 2 * beats + Link.SEND_LATENCY
        assert times["o"] - times["rx"] == Link.RECEIVE_LATENCY
    simulate(pair, begin(pair, [identity(0), identity(1)]), measure, timeout=1000,
             monitors=[way.bench() for way in ways], wave="latency")


@pytest.mark.parametrize(("fields", "failure"), [
    ({"contract": 1}, Failure.CONTRACT), ({"configuration": 1}, Failure.CONFIGURATION),
    ({"card": 3}, Failure.NEIGHBOUR), ({"cards": 4}, Failure.NEIGHBOUR)])
def test_another_neighbour_is_refused(fields, failure):
    """The end that is right sees what is wrong; the other one learns that it stopped."""
    pair, ways = joined()

    async def refused(ctx):
        while any(ctx.get(end.state) != State.FAILED for end in pair.ends):
            await ctx.tick()
        assert ctx.get(pair.ends[0].failure) == failure
        assert not ctx.get(pair.ends[0].o.valid)
    simulate(pair, begin(pair, [identity(0), identity(1, **fields)]), refused, timeout=1000,
             monitors=[way.bench() for way in ways], wave="refused")


def test_a_cut_is_noticed_in_time():
    pair, ways = joined()

    async def cut(ctx):
        await up(ctx, pair)
        for _ in range(2 * SIZES["silence"]):       # idle, and stays up
            await ctx.tick()
        for way in ways:
            way.cut = True
        for _ in range(SIZES["silence"] + LATENCY + 4):
            await ctx.tick()
        for end in pair.ends:
            assert ctx.get(end.state) == State.FAILED
            assert ctx.get(end.failure) == Failure.SILENT
    simulate(pair, begin(pair, [identity(0), identity(1)]), cut, timeout=4000,
             monitors=[way.bench() for way in ways], wave="cut")


def test_a_card_that_stops_tells_its_neighbour():
    pair, ways = joined()

    async def stop(ctx):
        await up(ctx, pair)
        ctx.set(pair.ends[0].stop, {"valid": 1, "about": 0xCAFE})
        for _ in range(LATENCY + 20):
            await ctx.tick()
        assert ctx.get(pair.ends[1].state) == State.FAILED
        assert ctx.get(pair.ends[1].failure) == Failure.STOPPED
        assert ctx.get(pair.ends[1].about) == 0xCAFE
    simulate(pair, begin(pair, [identity(0), identity(1)]), stop, timeout=1000,
             monitors=[way.bench() for way in ways], wave="stop")


@pytest.mark.parametrize("fails", [False, True])
def test_a_frame_that_was_held_up_is_of_the_session_before(fails):
    """Its trailer is made when the next session was asked for, and its link may have failed."""
    pair, ways = joined()
    first, second = pair.ends

    async def restart(ctx):
        await up(ctx, pair)
        ctx.set(first.i.valid, 1)
        await ctx.tick().until(first.tx.valid & ~first.tx.p.last)
        ways[0].held = True
        if fails:
            ways[1].cut = True
            await ctx.tick().until((first.state == State.FAILED) & (second.state == State.FAILED))
            ways[1].cut = False
        ctx.set(first.i.valid, 0)
        await begin(pair, [identity(0, session=8), identity(1, session=8)])(ctx)
        for _ in range(2 * LATENCY):
            await ctx.tick()
        ways[0].held = False
        for _ in range(SIZES["silence"]):
            await ctx.tick()
            assert all(ctx.get(end.state) != State.FAILED for end in pair.ends)
            assert not ctx.get(second.o.valid)
        assert all(ctx.get(end.state) == State.UP for end in pair.ends)
    simulate(pair, begin(pair, [identity(0), identity(1)]), restart, timeout=4000,
             monitors=[way.bench() for way in ways], wave="held_up")
