# SPDX-License-Identifier: Apache-2.0
"""Memory behind an AXI4 port in Amaranth's simulator, which checks the protocol of its master."""

import collections
import dataclasses
import random

#: Signals of a master that must hold while a request waits, by the channel's valid.
HELD = {"ar": ("arid", "araddr", "arlen", "arsize", "arburst"),
        "aw": ("awid", "awaddr", "awlen", "awsize", "awburst"),
        "w": ("wdata", "wstrb", "wlast")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Burst:
    """One burst as it was asked for."""

    cycle: int
    address: int
    beats: int


class AxiMemory:
    """Answers in order, like one channel of memory with one ID.

    Parameters
    ----------
    port : AXI4 master interface
    beat_bytes : int
    content : bytearray
        What lies from byte address ``base`` on; writes change it.
    stall : float
        Probability of not being ready, or of not answering, in a cycle; on each AXI channel alone.
    latency : int
        Cycles from a request to its answer, at least.
    bad : range
        Byte addresses whose bursts are answered with an error.
    """

    def __init__(self, port, *, beat_bytes: int, content: bytearray, base: int = 0,
                 stall: float = 0.0, latency: int = 10, seed: str = "", bad: range = range(0)):
        self.port, self.beat_bytes, self.content, self.base = port, beat_bytes, content, base
        self.stall, self.latency, self.seed, self.bad = stall, latency, seed, bad
        self._clear()

    def _clear(self) -> None:
        self.cycle = 0
        self.reads: list[Burst] = []
        self.writes: list[Burst] = []
        #: Cycles in which a beat was handed over.
        self.read_cycles: list[int] = []
        self.most_under_way = 0

    def _check_burst(self, kind: str, now: dict[str, int]) -> Burst:
        address, beats = now[f"{kind}addr"], now[f"{kind}len"] + 1
        end = address + beats * self.beat_bytes
        assert now[f"{kind}burst"] == 1, "bursts must be INCR"
        assert 1 << now[f"{kind}size"] == self.beat_bytes, "bursts must be of whole beats"
        assert address % self.beat_bytes == 0, f"{address:#x} is within a beat"
        assert address >> 12 == end - 1 >> 12, f"{beats} beats from {address:#x} cross 4 KiB"
        assert 0 <= address - self.base <= end - self.base <= len(self.content), f"{address:#x}"
        return Burst(cycle=self.cycle, address=address, beats=beats)

    def _bad(self, burst: Burst) -> bool:
        return burst.address in self.bad

    async def bench(self, ctx) -> None:
        """The monitor to run beside a test."""
        self._clear()
        port, rng = self.port, random.Random(f"{self.seed} memory")
        names = ("arvalid", "arready", "rvalid", "rready", "awvalid", "awready", "wvalid", "wready",
                 "bvalid", "bready", *(name for held in HELD.values() for name in held))
        asked: collections.deque[list] = collections.deque()       # [burst, beats sent]
        promised: collections.deque[Burst] = collections.deque()   # written bursts without all data
        due: collections.deque[tuple[int, Burst]] = collections.deque()
        gone, offered = 0, dict.fromkeys(("r", "b"), False)
        before: dict[str, tuple[int, ...]] = {}
        while True:
            go = lambda: rng.random() >= self.stall    # noqa: E731
            ctx.set(port.arready, go())
            ctx.set(port.awready, go())
            ctx.set(port.wready, bool(promised) and go())
            due_read = asked and asked[0][0].cycle + self.latency <= self.cycle
            if not offered["r"] and due_read and go():
                burst, sent = asked[0]
                start = burst.address + sent * self.beat_bytes - self.base
                ctx.set(port.rdata, int.from_bytes(
                    self.content[start:start + self.beat_bytes], "little"))
                ctx.set(port.rlast, sent + 1 == burst.beats)
                ctx.set(port.rresp, 2 if self._bad(burst) else 0)
                offered["r"] = True
            ctx.set(port.rvalid, offered["r"])
            if not offered["b"] and due and due[0][0] + self.latency <= self.cycle and go():
                ctx.set(port.bresp, 3 if self._bad(due[0][1]) else 0)
                offered["b"] = True
            ctx.set(port.bvalid, offered["b"])

            _, _, *values = await ctx.tick().sample(*(getattr(port, name) for name in names))
            now = dict(zip(names, values, strict=True))
            for kind, held in HELD.items():
                bits = tuple(now[name] for name in held)
                if kind in before:
                    assert now[f"{kind}valid"], f"{kind}valid fell before it was answered"
                    assert bits == before.pop(kind), f"{kind} changed while it waited"
                if now[f"{kind}valid"] and not now[f"{kind}ready"]:
                    before[kind] = bits
            if now["rvalid"] and now["rready"]:
                offered["r"] = False
                self.read_cycles.append(self.cycle)
                asked[0][1] += 1
                if asked[0][1] == asked[0][0].beats:
                    asked.popleft()
            if now["bvalid"] and now["bready"]:
                offered["b"] = False
                due.popleft()
            if now["arvalid"] and now["arready"]:
                burst = self._check_burst("ar", now)
                self.reads.append(burst)
                asked.append([burst, 0])
                self.most_under_way = max(self.most_under_way, len(asked))
            if now["wvalid"] and now["wready"]:
                burst = promised[0]
                start = burst.address + gone * self.beat_bytes - self.base
                self.content[start:start + self.beat_bytes] = now["wdata"].to_bytes(
                    self.beat_bytes, "little")
                gone += 1
                assert now["wstrb"] == (1 << self.beat_bytes) - 1
                assert now["wlast"] == (gone == burst.beats), "wlast must be the last beat's"
                if gone == burst.beats:
                    due.append((self.cycle, promised.popleft()))
                    gone = 0
            if now["awvalid"] and now["awready"]:
                burst = self._check_burst("aw", now)
                self.writes.append(burst)
                promised.append(burst)
            self.cycle += 1
