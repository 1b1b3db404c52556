# SPDX-License-Identifier: Apache-2.0
"""Memory behind AXI4 ports, which checks the protocol of the master."""

import collections
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cocotb
from cocotb.triggers import RisingEdge

#: No burst crosses a multiple of this many bytes.
PAGE = 4096
OKAY, EXOKAY, SLVERR, DECERR = range(4)
#: Fields of a request, which hold until it is taken.
REQUESTS = {"ar": ("araddr", "arlen", "arsize", "arburst", "arid"),
            "aw": ("awaddr", "awlen", "awsize", "awburst", "awid"),
            "w": ("wdata", "wstrb", "wlast")}


def pauses(seed: str, stall: float) -> Iterator[bool]:
    """Whether one side of a port holds back, cycle by cycle."""
    rng = random.Random(seed)
    return (rng.random() < stall for _ in itertools.count())


def hold_back(slave: Any, stall: float) -> None:
    """Hold back every channel of a slave, or of a master, of cocotbext-axi at random."""
    for half, names in ((slave.read_if, ("ar", "r")), (slave.write_if, ("aw", "w", "b"))):
        for name in names if stall else ():
            getattr(half, f"{name}_channel").set_pause_generator(pauses(f"{name} {stall}", stall))


def watch_requests(dut: Any, beat_bytes: int) -> None:
    """Check the requests of the port ``m_axi``, from now on.

    They stay until they are taken; bursts are of whole beats, within 4 KiB.
    """
    for kind in REQUESTS:
        cocotb.start_soon(_requests(dut, kind, beat_bytes))


async def _requests(dut: Any, kind: str, beat_bytes: int) -> None:
    valid, ready = (getattr(dut, f"m_axi_{kind}{part}") for part in ("valid", "ready"))
    fields = [getattr(dut, f"m_axi_{name}") for name in REQUESTS[kind]]
    held: list[int] | None = None
    while True:
        await RisingEdge(dut.aclk)
        if not dut.aresetn.value:
            held = None
            continue
        offered = [int(field.value) for field in fields] if valid.value else None
        assert held is None or offered == held, f"{kind} changed its mind: {held}, then {offered}"
        held = None if ready.value else offered
        if offered is None:
            continue
        if kind == "w":
            assert offered[1] == (1 << beat_bytes) - 1, f"wstrb must be ones, not {offered[1]:#x}"
            continue
        address, beats = offered[0], offered[1] + 1
        assert offered[2:4] == [beat_bytes.bit_length() - 1, 1], f"{kind}: size or type of burst"
        assert address % beat_bytes == 0, f"{kind}: {address:#x} must be the address of a beat"
        assert address // PAGE == (address + beats * beat_bytes - 1) // PAGE, \
            f"{kind}: {beats} beats from {address:#x} must not cross 4 KiB"


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
