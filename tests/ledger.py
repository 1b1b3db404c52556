# SPDX-License-Identifier: Apache-2.0
"""Instructions with what they read and write, and the waits that follow from it."""

import dataclasses

from rtl_gen.spec import isa
from rtl_gen.spec.isa import Queue

Access = tuple[str, int, int]       # space, first, end
Fields = dict[str, int]


@dataclasses.dataclass
class Step:
    """One instruction with what it reads and writes."""

    name: str
    fields: Fields
    reads: list[Access]
    writes: list[Access]

    @property
    def queue(self) -> Queue:
        return isa.FORMATS[self.name][1]


class Ledger:
    """Collects instructions; at the end gives each the waits and signals that order demands.

    One dependency counter serves each ordered pair of queues: queues run in order, so that the n-th
    wait of the one means the n-th signal of the other.
    """

    QUEUES = (Queue.MEMORY, Queue.MATMUL, Queue.VECTOR)

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def add(self, name: str, reads: list[Access] | None = None,
            writes: list[Access] | None = None, **fields: int) -> None:
        self.steps.append(Step(name, fields, reads or [], writes or []))

    @staticmethod
    def _conflict(a: Step, b: Step) -> bool:
        def meet(left: list[Access], right: list[Access]) -> bool:
            return any(x[0] == y[0] and x[1] < y[2] and y[1] < x[2] for x in left for y in right)

        if a.queue == b.queue:
            # A queue is in order; only what goes through softmax comes out later.
            planes = [access for access in a.writes if access[0] in ("planes", "softmax")]
            return a.queue == Queue.MATMUL and meet(planes, b.reads)
        return meet(a.writes, b.reads) or meet(a.reads, b.writes) or meet(a.writes, b.writes)

    def _counter(self, source: Queue, sink: Queue) -> int:
        if sink == Queue.CONTROL:
            return 9 + self.QUEUES.index(source)
        return 3 * self.QUEUES.index(source) + self.QUEUES.index(sink)

    def encode(self) -> list[int]:
        """The words; steps that read HBM behind a writer get their fence."""
        written = [access for step in self.steps for access in step.writes if access[0] == "hbm"]
        waits, signals = [0] * len(self.steps), [0] * len(self.steps)
        synced: dict[tuple[Queue, Queue], int] = {}

        def order(source: int, sink: int) -> None:
            pair = self.steps[source].queue, self.steps[sink].queue
            if source > synced.get(pair, -1):
                synced[pair] = source
                signals[source] |= 1 << self._counter(*pair)
                waits[sink] |= 1 << self._counter(*pair)

        start = 0
        for here, step in enumerate(self.steps):
            if step.name in ("NEXT", "HALT") or step.fields.pop("barrier", 0):
                # Nothing behind starts before everything in front is done.
                for queue in self.QUEUES:
                    last = [k for k in range(start, here) if self.steps[k].queue == queue]
                    if last:
                        order(last[-1], here)
                start = here
            elif step.queue in self.QUEUES:
                for queue in self.QUEUES:
                    before = [k for k in range(start, here) if self.steps[k].queue == queue
                              and self._conflict(self.steps[k], step)]
                    if before:
                        order(before[-1], here)
            if step.name in ("LOAD", "MATMUL"):
                step.fields["fence"] = int(any(
                    read[0] == "hbm" and read[1] < write[2] and write[1] < read[2]
                    for read in step.reads for write in written))
        return [isa.encode(step.name, **step.fields, wait=wait, signal=signal)
                for step, wait, signal in zip(self.steps, waits, signals, strict=True)]
