# SPDX-License-Identifier: Apache-2.0
"""Memory behind AXI4 ports, which checks the protocol of the master."""

import collections
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import cocotb
from cocotb.triggers import RisingEdge

#: No burst crosses a multiple of this many bytes.
PAGE = 4096
OKAY, EXOKAY, SLVERR, DECERR = range(4)


class Burst(NamedTuple):
    """Beats that were asked for, by byte address."""

    address: int
    beats: int


class Reads:
    """The read half of a memory with one ID: answers in order.

    While a request waits, neither it nor its valid may change; bursts must be INCR, of whole
    aligned beats, within a page and within the memory, all with one ID.

    Parameters
    ----------
    dut : handle
    port : str
        Prefix of the port, as in ``m_axi``.
    content : bytes
        What lies from byte address ``base`` on.
    beat_bytes : int
    latency : int
        Cycles from a request to its first beat, at least.
    stall : float
        Chance of not being ready, or of not answering, in a cycle.
    late : bool
        Ready only for requests that wait already.
    response : callable
        Response code of the beat at a byte address.

    Attributes
    ----------
    bursts : list of Burst
        All that was asked for.
    most : int
        Bursts that were under way together.
    beats : int
        Beats that were handed over.
    """

    def __init__(self, dut: Any, port: str, *, content: bytes, base: int, beat_bytes: int,
                 latency: int, stall: float, late: bool, seed: str,
                 response: Callable[[int], int] = lambda address: OKAY) -> None:
        self.dut, self.content, self.base, self.beat_bytes = dut, content, base, beat_bytes
        self.latency, self.stall, self.late, self.response = latency, stall, late, response
        self.bursts: list[Burst] = []
        self.most = self.beats = 0
        self._rng = random.Random(f"{seed} memory")
        self._ports = {name: getattr(dut, f"{port}_{name}") for name in (
            "arvalid", "arready", "arid", "araddr", "arlen", "arsize", "arburst",
            "rvalid", "rready", "rid", "rdata", "rresp", "rlast")}
        self._ports["arready"].value = self._ports["rvalid"].value = 0
        #: Bursts that are not complete, with the cycle from which they may be answered.
        self._under_way: collections.deque[tuple[int, Burst]] = collections.deque()
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        """Clock by clock; what is read after an edge are the values from before it."""
        ports, rng = self._ports, self._rng
        held: tuple[int, ...] | None = None
        cycle = sent = 0
        while True:
            await RisingEdge(self.dut.aclk)
            cycle += 1
            if not self.dut.aresetn.value:
                held, sent = None, 0
                self._under_way.clear()
                ports["arready"].value = ports["rvalid"].value = 0
                continue
            asked = None
            if ports["arvalid"].value:
                asked = tuple(int(ports[name].value) for name in (
                    "arid", "araddr", "arlen", "arsize", "arburst"))
            assert held is None or asked == held, f"a request changed: {held}, then {asked}"
            held = asked
            if asked and ports["arready"].value:
                held = None
                self._under_way.append((cycle + self.latency, self._check(*asked)))
                self.most = max(self.most, len(self._under_way))
            ports["arready"].value = rng.random() >= self.stall and (
                held is not None if self.late else True)
            if ports["rvalid"].value:
                if not ports["rready"].value:
                    continue
                self.beats, sent = self.beats + 1, sent + 1
                if sent == self._under_way[0][1].beats:
                    self._under_way.popleft()
                    sent = 0
            self._offer(cycle, sent)

    def _check(self, number: int, address: int, length: int, size: int, burst: int) -> Burst:
        """The burst of a request, or what is wrong with it."""
        beats = length + 1
        last = address + beats * self.beat_bytes - 1
        assert number == 0, f"all bursts must have ID 0, not {number}"
        assert burst == 1, "bursts must be INCR"
        assert 1 << size == self.beat_bytes, "bursts must be of whole beats"
        assert address % self.beat_bytes == 0, f"{address:#x} is within a beat"
        assert address // PAGE == last // PAGE, f"{beats} beats from {address:#x} cross 4 KiB"
        outside = address < self.base or last >= self.base + len(self.content)
        assert not outside, f"{beats} beats from {address:#x} are outside of the memory"
        self.bursts.append(Burst(address, beats))
        return self.bursts[-1]

    def _offer(self, cycle: int, sent: int) -> None:
        """Show the next beat, or noise."""
        ports, rng = self._ports, self._rng
        due = self._under_way and self._under_way[0][0] <= cycle and rng.random() >= self.stall
        ports["rvalid"].value = bool(due)
        if due:
            burst = self._under_way[0][1]
            address = burst.address + sent * self.beat_bytes
            start = address - self.base
            ports["rdata"].value = int.from_bytes(
                self.content[start:start + self.beat_bytes], "little")
            ports["rresp"].value = self.response(address)
            ports["rlast"].value = sent + 1 == burst.beats
            ports["rid"].value = 0
        else:
            for name in ("rdata", "rresp", "rlast", "rid"):
                ports[name].value = rng.getrandbits(len(ports[name]))
