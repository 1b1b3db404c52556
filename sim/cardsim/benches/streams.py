# SPDX-License-Identifier: Apache-2.0
"""Drivers and monitors of AXI4-Stream ports for cocotb benches.

A payload is one integer: tdata, and tlast above it where the port has one.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

#: tdata and tlast.
Payload = tuple[int, int]
#: Chance that a side holds back in a cycle, from none to heavy.
STALLS = (0.0, 0.3, 0.9)
HEAVY = 0.5
#: The same of what gives and of what takes; and a taker that holds up everything.
CASES = (*((stall, stall) for stall in STALLS), (0.0, 0.9))


def idle(dut: Any) -> None:
    """Offer nothing and take nothing."""
    for handle in dut:
        name = handle._name
        if (name.startswith("s_axis") and name.endswith("_tvalid")) or \
                (name.startswith("m_axis") and name.endswith("_tready")):
            handle.value = 0


async def reset(dut: Any) -> None:
    """Start the clock, hold the unit in reset with idle streams, and release it."""
    idle(dut)
    dut.aresetn.value = 0
    Clock(dut.aclk, 2, unit="ns").start()
    for _ in range(4):
        await RisingEdge(dut.aclk)
    dut.aresetn.value = 1


def pack(fields: Sequence[Payload]) -> int:
    """(value, bits) pairs into one payload, the first in the lowest bits; negative values wrap."""
    word = shift = 0
    for value, bits in fields:
        word |= (int(value) & (1 << bits) - 1) << shift
        shift += bits
    return word


def unpack(word: int, widths: Sequence[int]) -> list[int]:
    """The inverse of :func:`pack`: unsigned fields from the lowest bits up."""
    values = []
    for bits in widths:
        values.append(word & (1 << bits) - 1)
        word >>= bits
    return values


def signed(value: int, bits: int) -> int:
    """Two's complement."""
    return value - (1 << bits) if value >> bits - 1 else value


def _port(dut: Any, name: str) -> tuple[Any, Any, Any, Any]:
    """(tdata, tvalid, tready, tlast or None) of a stream."""
    return (*(getattr(dut, f"{name}_{part}") for part in ("tdata", "tvalid", "tready")),
            getattr(dut, f"{name}_tlast", None))


async def drive(dut: Any, name: str, payloads: Sequence[Payload], stall: float,
                seed: str, go: Callable[[int], bool] = lambda index: True) -> None:
    """Send (tdata, tlast) pairs; before each, wait with chance ``stall`` per cycle.

    Payload number ``index`` is not offered before ``go(index)``.
    """
    rng = random.Random(seed)
    tdata, tvalid, tready, tlast = _port(dut, name)
    for index, (word, last) in enumerate(payloads):
        while rng.random() < stall or not go(index):
            await RisingEdge(dut.aclk)
        tdata.value = word
        tvalid.value = 1
        if tlast is not None:
            tlast.value = last
        await RisingEdge(dut.aclk)
        while not tready.value:      # a clock that the bench drives: values from before the edge
            await RisingEdge(dut.aclk)
        tvalid.value = 0


async def collect(dut: Any, name: str, count: int, stall: float, seed: str,
                  limit: int = 100_000) -> list[Payload]:
    """Take ``count`` pairs and check the stream's rules: what is offered stays until taken.

    Where stalls are heavy, only what waits already is taken: ``valid`` may not wait for ``ready``.
    """
    rng = random.Random(seed)
    tdata, tvalid, tready, tlast = _port(dut, name)
    words: list[Payload] = []
    held: Payload | None = None
    for _ in range(limit):
        if len(words) == count:
            break
        tready.value = int(rng.random() >= stall and (stall < HEAVY or held is not None))
        await RisingEdge(dut.aclk)
        offered: Payload | None = None
        if tvalid.value:
            offered = int(tdata.value), int(tlast.value) if tlast is not None else 0
        assert held is None or offered == held, f"{name} changed its mind: {held}, then {offered}"
        held = offered
        if offered is not None and tready.value:
            words.append(offered)
            held = None
    tready.value = 0
    assert len(words) == count, f"{name}: {len(words)} of {count} payloads after {limit} cycles"
    return words


async def exchange(dut: Any, sends: dict[str, Sequence[Payload]], takes: dict[str, int],
                   stall: float, seed: str, limit: int = 100_000, *, hold: float | None = None,
                   holds: Mapping[str, float] = MappingProxyType({})) -> dict[str, list[Payload]]:
    """Drive and collect several streams at once; what was collected, by name.

    Parameters
    ----------
    dut : handle
    sends : dict
        Payloads of each stream that the unit takes.
    takes : dict
        How many payloads to collect of each stream that it gives.
    stall, hold : float
        Chance that they are held back in a cycle, by the giver and by the taker; without ``hold``
        the same.
    seed : str
    limit : int
        Cycles until all must be there.
    holds : dict
        The chance of streams that differ from ``hold``.
    """
    hold = stall if hold is None else hold
    for name, payloads in sends.items():
        cocotb.start_soon(drive(dut, name, payloads, stall, f"{seed} {name}"))
    tasks = {name: cocotb.start_soon(collect(
        dut, name, count, holds.get(name, hold), f"{seed} {name}", limit))
        for name, count in takes.items()}
    return {name: await task for name, task in tasks.items()}


async def offer(dut: Any, take: Any, show: Callable[[Sequence[Any]], None],
                words: Sequence[Any], most: int, stall: float, seed: str) -> None:
    """Play a queue that shows its next words, at most ``most``, and loses ``take`` of them.

    ``show`` puts those that are there, and how many, on the unit's ports; in a cycle none comes
    with chance ``stall``.
    """
    rng = random.Random(seed)
    done = there = 0
    while done < len(words):
        if rng.random() >= stall:
            there = min(most, len(words) - done, there + rng.randint(1, most))
        show(words[done:done + there])
        await RisingEdge(dut.aclk)
        taken = int(take.value)
        assert taken <= there, f"{taken} words taken of {there}"
        done, there = done + taken, there - taken
    show([])


def watch(dut: Any, name: str) -> list[int]:
    """What the port ``name`` shows from now on in cycles in which it is not zero."""
    seen: list[int] = []
    port = getattr(dut, name)

    async def bench() -> None:
        while True:
            await RisingEdge(dut.aclk)
            if value := int(port.value):
                seen.append(value)
    cocotb.start_soon(bench())
    return seen


def transfers(dut: Any, name: str) -> list[int]:
    """tdata of all that goes through the stream ``name`` from now on, as it goes."""
    words: list[int] = []
    tdata, tvalid, tready, _ = _port(dut, name)

    async def bench() -> None:
        while True:
            await RisingEdge(dut.aclk)
            if tvalid.value and tready.value:
                words.append(int(tdata.value))
    cocotb.start_soon(bench())
    return words


def compare(got: Sequence[Any], expected: Sequence[Any], show: Callable[[Any], str] = repr) -> None:
    """Fail with the first difference."""
    assert len(got) == len(expected)
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a == b, f"payload {index} must be {show(b)}, not {show(a)}"
