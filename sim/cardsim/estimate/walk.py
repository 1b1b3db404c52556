# SPDX-License-Identifier: Apache-2.0
"""From the instructions of a command, in program order, to the cycles of each and of all."""

import dataclasses
import heapq
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from heddle.trace import Step
from rtl_gen.spec import isa
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.formats import PATTERNS, stream_beats
from rtl_gen.spec.isa import COUNTERS, Queue, Register
from rtl_gen.spec.registers import COMMAND
from rtl_gen.spec.rules import Values

from ..rtl.timing import LinkTiming, Timing
from . import kernels
from .latencies import Latencies
from .link import Links, Ring
from .softmax import Softmax
from .vector import Entry, Vector

#: Longest burst of a channel, in beats.
_BURST = 64


@dataclasses.dataclass(slots=True)
class Times:
    """Cycles of one instruction, from the command's first."""

    step: Step
    dispatched: int
    offered: int = 0
    taken: int = 0
    done: int = 0
    engine: tuple[int, int] = (0, 0)
    loaded: int = 0
    #: Of the vector unit: `done` may be known only later.
    entry: Entry | None = None


@dataclasses.dataclass(kw_only=True)
class Count:
    """What the status record would count."""

    #: Decode steps: what STEP has gained.
    steps: int = 0
    cycles: int = 0
    read_beats: int = 0
    write_beats: int = 0
    engine_beats: int = 0
    engine_cycles: int = 0
    stall_weights: int = 0
    stall_epilogue: int = 0
    stall_dependency: int = 0
    stall_idle: int = 0
    #: Not estimated.
    stall_link: int = 0
    idle_link: int = 0
    instructions: int = 0


class Walk:
    """One command on one card.

    Parameters
    ----------
    config : CardConfig
    timing : Timing
        Of the HBM model.
    link : LinkTiming, optional
        Of the links to neighbours.
    ring : Ring, optional
        Where the walks of the other cards are found; without it the card is its own neighbour.
    card : int
        Its number in the ring.
    given : int
        Given tokens of the command.
    keep : bool
        Keep the times of every instruction.
    """

    def __init__(self, config: CardConfig, timing: Timing, link: LinkTiming | None = None, *,
                 ring: Ring | None = None, card: int = 0, given: int = 1,
                 keep: bool = False) -> None:
        link = link or LinkTiming()
        self.config, self._of, self._keep = config, Latencies(config), keep
        self.times: list[Times] = []
        self.count = Count()
        self._state = _state(config, timing, self._of)
        self._vector, self._softmax = Vector(self._of), Softmax(self._of)
        latency = int(-(-timing.latency_ns * timing.clock(config) // 1000))
        # Record and given tokens are read before anything runs.
        start = self._of.begin + latency + self._of.words(len(COMMAND))
        if given:
            start += self._of.tokens + latency + self._of.words(given)
        self._cycle = self._fetched = start     # of the last instruction
        self._recent = [start] * self._of.judges
        self._taken: dict[Queue, list[int]] = {queue: [0] for queue in Queue}
        self._reports: dict[str, list[int | Entry]] = {}
        self._accepts: list[int] = []
        self._counters: list[list[Any]] = [[] for _ in range(COUNTERS)]
        self._unknown: list[tuple[Entry, int]] = []
        self._last = start
        # Engine and epilogue.
        self._loads: list[int] = []
        self._sequenced = 0
        self._end_issue, self._after_gelu, self._written = 0, 0, 0
        self._range = [0, 0, 0, 0, 0, 1]
        self._memory_free = 0
        clock = timing.clock(config)
        self._links = Links(self._of, link.latency_ns * clock / 1000,
                            link.gbps * 1000 / clock / config.beat_bytes, ring or Ring(1), card)
        self._exchange: dict[Queue, int] = defaultdict(int)
        self._wrote = 0

    # ---- Order ----

    def _signal(self, mask: int, when: int | Entry) -> None:
        for k in range(COUNTERS):
            if mask >> k & 1:
                if isinstance(when, Entry):
                    if when.done is None:
                        self._unknown.append((when, k))
                        continue
                    when = when.done
                heapq.heappush(self._counters[k], when)

    def _settle(self) -> None:
        self._vector.settle()
        for entry, k in self._unknown:
            heapq.heappush(self._counters[k], entry.done)
        self._unknown.clear()

    def _wait(self, mask: int) -> int:
        """When the counters of an instruction allow it to start."""
        latest = 0
        for k in range(COUNTERS):
            if mask >> k & 1:
                if any(counter == k for _, counter in self._unknown):
                    self._settle()
                latest = max(latest, heapq.heappop(self._counters[k]))
        return latest

    # ---- Dispatch ----

    def run(self, steps: Iterable[Step]) -> Count:
        """Walk through a command, to its HALT."""
        for step in steps:
            self.count.instructions += 1
            queue, v = step.queue, step.values
            of = self._of
            fetched = max(self._fetched + of.fetch, self._recent[0] + of.refetch)
            if queue == Queue.CONTROL:
                self._control(step, fetched)
                continue
            verdict = of.verdicts.get(step.name, of.verdict)
            now = max(self._cycle + of.issue, fetched + verdict + 1)
            now = max(now, self._room(step))
            if v.get("fence"):
                now = max(now, self._answered(now) + 2)
            self._go(now, fetched)
            self._start(step, now)
        return self.count

    def _go(self, now: int, fetched: int) -> None:
        self._cycle, self._fetched = now, fetched
        self._recent = [*self._recent[1:], now]

    def _control(self, step: Step, fetched: int) -> None:
        of, v = self._of, step.values
        waits = self._wait(v["wait"])
        now = max(self._cycle + of.issue,
                  fetched + (of.given if step.name == "GIVEN" else of.control))
        if v["wait"]:
            now = max(now, waits + 2)
        if step.name == "HALT":
            self._settle()
            for reports in self._reports.values():
                now = max(now, self._when(reports[-1]) + 2)
            now = max(now, self._answered(now) + 3)
            self.count.cycles = now + of.end
            used = self.count
            idle = used.cycles - used.engine_cycles - used.stall_weights - used.stall_epilogue
            used.stall_idle = idle - used.stall_dependency
        else:
            self._signal(v["signal"], now)
        if step.name == "NEXT":
            self.count.steps += 1
        elif step.name == "ADDI" and v["rd"] == v["rs"] == Register.STEP:
            self.count.steps += v["imm"]
        self._go(now, now + 1)
        if self._keep:
            self.times.append(Times(step, now))

    def _answered(self, asked: int) -> int:
        """When all writes so far are in memory, if dispatch waits for that from ``asked`` on."""
        self._settle()
        return max(int(kernels.answered(self._state, asked)), self._wrote)

    def _room(self, step: Step) -> int:
        """When there is room for an instruction."""
        of, taken = self._of, self._taken[step.queue]
        room = taken[-of.depth] + 1 if len(taken) > of.depth else 0
        reports = self._reports.get(_reporter(step), ())
        if len(reports) >= of.flight:
            room = max(room, self._when(reports[-of.flight]) + 1)
        if len(self._accepts) >= of.streams and step.name in ("LOAD", "MATMUL"):
            room = max(room, self._accepts[-of.streams] + 1)
        return room

    def _when(self, report: int | Entry) -> int:
        if isinstance(report, Entry):
            if report.done is None:
                self._settle()
            assert report.done is not None
            return report.done
        return report

    def _start(self, step: Step, now: int) -> None:
        """An instruction goes into its queue."""
        of, v, queue = self._of, step.values, step.queue
        head = max(now + of.queue, self._taken[queue][-1] + 1)
        waits = self._wait(v["wait"])
        offered = max(head, waits + of.report) + of.grant
        times = Times(step, now, offered)
        report: int | Entry
        match step.name:
            case "MATMUL":
                report = self._product(v, now, offered, head, times)
            case "LOAD" | "STORE":
                times.taken = max(offered, self._memory_free)
                report = self._load(v, now, times.taken) if step.name == "LOAD" \
                    else self._store(v, times.taken)
                self._memory_free = report
            case name if name in isa.SENDS + isa.RECEIVES:
                times.taken = max(offered, self._exchange[queue])
                report = (
                    self._links.send(isa.SENDS.index(name), v, times.taken) if name in isa.SENDS
                    else self._links.receive(isa.RECEIVES.index(name), v, times.taken))
                self._exchange[queue] = report
            case _:
                times.taken = self._vector.taken(offered)
                report = self._vector.run(step.name, v, times.taken)
                if step.name == "SAMPLE" and v["last"]:
                    self._wrote = self._when(report) + 40
        self._taken[queue].append(times.taken)
        self._reports.setdefault(_reporter(step), []).append(report)
        self._signal(v["signal"], report)
        if self._keep:
            times.done = report if isinstance(report, int) else -1
            if isinstance(report, Entry):
                times.entry = report
            self.times.append(times)

    # ---- Units ----

    def _accept(self, now: int) -> int:
        """When the channels ask for the first burst of a run, at best."""
        of = self._of
        accept = max(now + of.to_planner, self._accepts[-1] + of.interval if self._accepts else 0)
        self._accepts.append(accept)
        return accept + of.address - 1

    def _load(self, v: Values, now: int, taken: int) -> int:
        of = self._of
        if not v["rows"]:
            return taken + of.load
        accept = self._accept(now)
        words = self.config.beat_bytes // 4
        self.count.read_beats += v["rows"] * -(-v["words"] // words) * self.config.channels
        end = kernels.load(self._state, v["address"], v["rows"], v["words"], accept, taken)
        return int(end) + of.load

    def _store(self, v: Values, taken: int) -> int:
        of, words = self._of, v["words"]
        beats = -(-words * 4 // self.config.beat_bytes)
        each = 2 if v["source"] else 1
        self.count.write_beats += beats * (1 if v["source"] else self.config.channels)
        done = taken + each * words + beats + of.store
        first, left, at = v["address"], beats, 0
        while left:
            burst = min(left, kernels.WRITE_BURST)
            at += burst
            time = taken + (done - taken) * at // beats + of.write
            if v["source"]:
                kernels.write(self._state, v["pos"] % self.config.channels, first, burst, time)
            else:
                for c in range(self.config.channels):
                    kernels.write(self._state, c, first, burst, time)
            first, left = first + burst, left - burst
        return done

    def _product(self, v: Values, now: int, offered: int, head: int, times: Times) -> int:
        of, s = self._of, self._state
        taken = max(offered, self._sequenced)
        before = int(s.at[kernels.FIRE])
        pattern = PATTERNS[v["pattern"]]
        aux = int(v["scale"] == 1) + int(v["norm"] > 0) + v["bias"]
        load = self._epilogue(v, taken) if v["last"] else 0
        p = np.array((
            v["address"], v["rows"], v["beats"], pattern.units, pattern.entries, v["wide"],
            v["k_outer"], v["last"], v["two_beat"], v["columns"], v["merge"], v["pos"],
            aux if v["last"] else 0, self._accept(now), taken + of.engine, load,
            0 if v["gelu"] else self._after_gelu, 0, pattern.halved,
            self.config.k_lane(v["pos"], v["head"])), np.int64)
        o = np.zeros(7, np.int64)
        kernels.product(s, p, np.zeros((self.config.channels, 3)), o)
        first, fire, issue, for_entries, for_rows, used, steps = o.tolist()
        self._sequenced = max(taken + 1, fire - of.ahead)
        times.taken, times.engine, times.loaded = taken, (first, fire), load
        count = self.count
        count.engine_beats += used
        count.engine_cycles += steps
        count.stall_weights += for_entries
        count.stall_epilogue += for_rows
        idle = first - before - 1 - max(0, for_entries)
        count.stall_dependency += max(0, min(idle, offered - 1 - max(head, before)))
        lanes = v["columns"] if v["merge"] == 1 else self.config.channels
        entries = self.config.head_beats if v["merge"] == 1 else v["rows"]
        count.write_beats += bool(v["merge"]) * lanes * entries * (1 + v["wide"])
        count.read_beats += self.config.channels * sum(stream_beats(
            v["rows"], aux if v["last"] else 0, v["beats"] * (1 + v["wide"]), pattern,
            self.config.beat_bytes))
        if not v["last"]:
            return int(fire) + of.bank
        self._end_issue = issue
        if v["dest"]:
            return self._softmax.scores(v["dest"] - 1, v["rows"], v["columns"], issue)
        if v["gelu"]:
            self._after_gelu = issue + of.gelu + 1
        done = int(issue) + of.epilogue + (of.gelu if v["gelu"] else 0)
        self._written = max(self._written, done)
        return done

    def _epilogue(self, v: Values, taken: int) -> int:
        """When the epilogue begins with a product; see docs/units/epilogue.md."""
        of = self._of
        arrives = taken + of.epilogue_job
        if len(self._loads) >= of.epilogue_jobs:
            arrives = max(arrives, self._loads[-of.epilogue_jobs] + of.epilogue_job)
        load = max(arrives, self._end_issue)
        if self._loads:
            load = max(load, self._loads[-1] + of.epilogue_next)
        if v["divide"]:
            load = max(load, self._softmax.sums.get(v["divide"] - 1, 0) + 2)
        if v["dest"]:
            if len(self._softmax.ends) >= of.softmax_jobs:
                load = max(load, self._softmax.ends[-of.softmax_jobs] + 1)
        else:
            load = self._order(v, load)
        self._loads.append(load)
        return load

    def _order(self, v: Values, load: int) -> int:
        """A residual waits for words on their way that it may read."""
        first, first_end, stride = v["dst"], v["dst"] + v["rows"], v["dst_stride"]
        end = first_end + (v["columns"] - 1) * stride
        low, high, first_low, first_high, step, one = self._range
        least, most = min(first, first_low), max(first_end, first_high)
        if load > self._written:
            self._range = [first, end, first, first_end, stride, 1]
            return load
        apart = one and stride == step and (first >= first_high or first_end <= first_low)
        if v["residual"] and first < high and end > low and not (apart and most - least <= stride):
            self._range = [first, end, first, first_end, stride, 1]
            return self._written + 1
        self._range = [min(first, low), max(end, high), least, most, step,
                       int(one and stride == step)]
        return load


def _reporter(step: Step) -> str:
    if step.queue != Queue.MATMUL:
        return step.queue.name
    if not step.values["last"]:
        return "BANK"
    return "SOFTMAX" if step.values["dest"] else "EPILOGUE"


def _state(config: CardConfig, timing: Timing, of: Latencies) -> kernels.State:
    channels = config.channels
    memory = np.zeros((channels, 6))
    # Channels are refreshed at different times.
    memory[:, kernels.REFRESH_AT] = timing.refresh_every_ns * (np.arange(channels) % 8 + 1) / 8
    memory[:, kernels.OFFSET] = -1
    buffer = int(timing.buffer_bytes) // config.beat_bytes
    port = np.zeros((channels, 13), np.int64)

    def never(*shape: int) -> Any:
        return np.full(shape, kernels.NEVER, np.int64)
    at = np.zeros(8, np.int64)
    return kernels.State(
        timing=np.array((
            1000 / timing.clock(config), timing.peak_gbps, timing.random_ns, timing.latency_ns,
            timing.write_latency_ns, timing.turnaround_ns, timing.refresh_every_ns,
            timing.refresh_ns)),
        sizes=np.array((
            channels, config.beat_bytes, config.fifo_beats, config.aux_beats, buffer,
            min(_BURST, 4096 // config.beat_bytes), of.row), np.int64),
        memory=memory, port=port, ends=never(channels, kernels.OUTSTANDING),
        pops=never(channels, max(1, buffer)), writes=np.zeros((channels, 256, 3)),
        entries=never(config.fifo_beats), constants=never(config.aux_beats),
        rows=never(kernels.ROWS), runs=never(kernels.RUNS), at=at,
        there=np.zeros(2 * config.aux_beats + 4096, np.int64))
