# SPDX-License-Identifier: Apache-2.0
"""Bytes on the serial line, from and to a sender and a receiver with a clock of their own."""

import random

import pytest

from rtl_gen.boards.uart import Receiver, Transmitter
from tests.rtl.bench import feed, simulate

CLOCK = 25e6


def levels(data: bytes, *, bad_stops: frozenset[int] = frozenset(), pauses: random.Random) -> list:
    """(level, bits) of the line: some bytes follow each other at once, some do not."""
    found = [(1, 3)]
    for number, byte in enumerate(data):
        bits = [0, *(byte >> k & 1 for k in range(8)), number not in bad_stops]
        found += [(int(bit), 1) for bit in bits]
        if number in bad_stops or pauses.random() < 0.5:
            found.append((1, pauses.choice((1.0, 1.3, 7.0))))
    return [*found, (1, 12)]


@pytest.mark.parametrize("skew", [0.975, 1.0, 1.025])
@pytest.mark.parametrize("baud", [CLOCK / 4, 3e6, 1e6])
def test_bytes_come_whatever_the_senders_clock(baud, skew):
    if baud == CLOCK / 4 and skew != 1.0:
        skew = 1 + (skew - 1) / 3       # the middle of such bits is known to half of them
    rng = random.Random(f"uart {baud} {skew}")
    data, bad = rng.randbytes(60), frozenset({7, 30})
    dut = Receiver(clock_hz=CLOCK, baud=baud)
    came = []

    async def send(ctx):
        end, now = 0.0, 0
        for level, bits in levels(data, bad_stops=bad, pauses=rng):
            ctx.set(dut.line, level)
            end += bits * CLOCK / (baud * skew)
            while now < end:
                _, _, found = await ctx.tick().sample(dut.o)
                if found.valid:
                    came.append((found.byte, found.error))
                now += 1

    simulate(dut, send, timeout=100_000, wave="uart")
    assert came == [(byte, int(number in bad)) for number, byte in enumerate(data)]


def test_a_spike_is_no_byte():
    dut, came = Receiver(clock_hz=CLOCK, baud=1e6), []

    async def send(ctx):
        for level, cycles in ((1, 40), (0, 8), (1, 400), (0, 3), (1, 400)):
            ctx.set(dut.line, level)
            for _ in range(cycles):
                _, _, found = await ctx.tick().sample(dut.o)
                came.append(found.valid)

    simulate(dut, send, timeout=10_000)
    assert not any(came)


@pytest.mark.parametrize("stall", [0.0, 0.99])
@pytest.mark.parametrize("baud", [CLOCK / 4, 3e6])
def test_bytes_go_with_bits_of_the_right_length(baud, stall):
    rng = random.Random(f"transmit {baud} {stall}")
    data = list(rng.randbytes(30))
    dut = Transmitter(clock_hz=CLOCK, baud=baud)
    bit, came = CLOCK / baud, []

    async def receive(ctx):
        now, ends = 0, []
        while len(came) < len(data):
            _, _, level = await ctx.tick().sample(dut.line)
            now += 1
            if level:
                continue
            start, bits = now, []
            for k in range(10):
                while now < start + (k + 0.5) * bit:
                    _, _, level = await ctx.tick().sample(dut.line)
                    now += 1
                bits.append(level)
            assert (bits[0], bits[9]) == (0, 1)
            came.append(sum(value << k for k, value in enumerate(bits[1:9])))
            ends.append(start)
        if not stall:       # without a pause: a frame is ten bits
            assert abs((ends[-1] - ends[0]) - 10 * bit * (len(data) - 1)) <= 2

    simulate(dut, feed(dut.i, data, stall=stall, seed="uart"), receive, timeout=300_000)
    assert came == data


def test_a_baud_rate_that_is_too_high_is_refused():
    with pytest.raises(ValueError, match=r"baud must be at most a 4th of the clock \(6.25e\+06\)"):
        Receiver(clock_hz=CLOCK, baud=8e6)
