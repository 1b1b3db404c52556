# SPDX-License-Identifier: Apache-2.0
"""Where cycles go: what memory moved, what it did not move and why, what the engine waited for."""

import bisect
import dataclasses
import enum
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rtl_gen.spec.isa import COUNTERS, Queue

from .timeline import Cycles, Instruction, Timeline

#: Bits of ``channels``: a beat read, written; reads under way and none offered; one not taken.
READ, WRITE, LATE, FULL = 1, 2, 4, 8


class State(enum.IntEnum):
    """What the engine does in a cycle; the first that holds, in the order of the status record."""

    FIRES = 0
    WEIGHTS = 1     #: a channel has no entry
    ROWS = 2        #: the epilogue, or a channel's writer, has no room
    DEPENDENCY = 3  #: the next product waits for its counters
    IDLE = 4        #: no product has been dispatched
    STARTING = 5    #: a product is on its way through the sequencer


@dataclasses.dataclass(frozen=True, order=True)
class Wait:
    """A reason for lost cycles."""

    #: What happened.
    cause: str
    #: The product that could not go on, or the instruction whose stream was to be read.
    what: str
    #: What that waited for.
    on: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Account:
    """The cycles of a stretch of time, per layer if it is one of whole layers.

    Both dictionaries of memory together add up to ``cycles``, and so do those of the engine.
    """

    start: int
    stop: int
    layers: int
    #: Cycles a layer.
    cycles: float
    #: Cycles of all channels in which a beat was read (or written), by what it is for.
    moved: dict[str, float]
    #: Cycles of all channels without a beat.
    lost: dict[Wait, float]
    #: Cycles in which the engine worked, by product.
    fired: dict[str, float]
    #: Cycles in which it did not.
    waited: dict[Wait, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretch:
    """Consecutive cycles in which the engine did nothing, for one reason."""

    start: int
    stop: int
    wait: Wait


def stretches(timeline: Timeline, names: Sequence[str], least: int = 4) -> list[Stretch]:
    """All waits of at least so many cycles that are not for weights."""
    if not timeline.cycles:
        return []
    why = _Reasons(timeline, names, slice(0, timeline.cycles))
    # The engine's state, its product and the epilogue's.
    new = np.flatnonzero((np.diff(why.kinds[:, :3], axis=0) != 0).any(1)) + 1
    found = []
    for start, stop in itertools.pairwise([0, *new.tolist(), timeline.cycles]):
        kind = why.kinds[start].tolist()
        if kind[0] > State.WEIGHTS and stop - start >= least:
            found.append(Stretch(start=start, stop=stop, wait=why.engine(kind)))
    return found


def states(timeline: Timeline) -> npt.NDArray[np.uint8]:
    """:class:`State` of the engine in every cycle."""
    log = timeline.log
    found = np.full(len(log), State.STARTING, np.uint8)
    for name, state in (("empty", State.IDLE), ("held", State.DEPENDENCY),
                        ("wait_rows", State.ROWS), ("wait_weights", State.WEIGHTS),
                        ("entries", State.FIRES)):
        found[log[name] != 0] = state
    return found


def account(timeline: Timeline, names: Sequence[str], start: int = 0, stop: int | None = None,
            layers: int = 1) -> Account:
    """Who had the cycles from ``start`` to ``stop`` - 1.

    Parameters
    ----------
    timeline : Timeline
    names : sequence of str
        Of the program's instructions, from :func:`~heddle.tracing.labels.labels`.
    start, stop, layers : int
        As :meth:`Timeline.layers` gives them; all of the command without them.
    """
    stop = timeline.cycles if stop is None else stop
    if not 0 <= start < stop <= timeline.cycles:
        raise ValueError(f"cycles must be within 0..{timeline.cycles}, not {start}..{stop}")
    window = slice(start, stop)
    why = _Reasons(timeline, names, window)
    activity = timeline.log["channels"][window]
    moved = _read(timeline, names, start, stop)
    moved["writes"] += int((activity & (READ | WRITE) == WRITE).sum())

    # Without a beat: memory was late; else the card took none, for the engine's reasons while
    # there was something to read, for dispatch's otherwise.
    idle = activity & (READ | WRITE) == 0
    late = idle & (activity & LATE != 0)
    given = _given(timeline)[window, None] > _read_so_far(timeline)[window]
    full = idle & ~late & ((activity & FULL != 0) | given)
    nothing = idle & ~late & ~full
    lost = why.share(late.sum(1), why.memory)
    lost.update(why.share(full.sum(1), why.buffers))
    lost.update(why.share(nothing.sum(1), why.streams))

    channels = timeline.config.channels
    return Account(
        start=start, stop=stop, layers=layers, cycles=(stop - start) / layers,
        moved=_sorted(moved, channels * layers), lost=_sorted(lost, channels * layers),
        fired=_sorted(why.share(why.state == State.FIRES, why.product), layers),
        waited=_sorted(why.share(why.state != State.FIRES, why.engine), layers))


Key = TypeVar("Key")


def _sorted(found: Mapping[Key, int], by: int) -> dict[Key, float]:
    """Shares, the largest first; those of nothing are left out."""
    return {key: found[key] / by for key in sorted(found, key=lambda key: -found[key])
            if found[key]}


class _Reasons:
    """What the parts did in every cycle of a window, and names for it.

    Cycles in which all parts did the same are named together.
    """

    def __init__(self, timeline: Timeline, names: Sequence[str], window: slice) -> None:
        self._timeline, self._names = timeline, names
        log, every = timeline.log[window], np.arange(window.start, window.stop)
        self._products = timeline.products
        self.state = states(timeline)[window]
        # The product that the engine is at, and the one that the epilogue is at.
        engine = np.searchsorted([found.engine[1] for found in self._products], every, "right")
        self._loaded = [found for found in self._products if found.loaded is not None]
        epilogue = np.searchsorted([found.loaded or 0 for found in self._loaded], every, "right")
        # The instruction that dispatch is at, and what it waits for.
        at = np.searchsorted([found.dispatched for found in timeline.instructions], every, "left")
        waits = np.where(log["fence"], 1, np.where(log["full"], 2, 0))
        #: By cycle: state, number of the engine's product and of the epilogue's, of the
        #: instruction that dispatch is at, and what it waits for.
        self.kinds = np.stack([self.state, engine, epilogue, at, waits], axis=1).astype(np.int64)
        self._kinds, self._number = np.unique(self.kinds, axis=0, return_inverse=True)
        self._number = self._number.reshape(-1)
        self._culprits = _culprits(timeline)

    def share(self, weights: npt.NDArray[Any], name: Callable[[list[int]], Key]) -> Counter[Key]:
        """Sums of ``weights``, one a cycle, by what ``name`` makes of what the parts did."""
        sums = np.bincount(self._number, weights, len(self._kinds))
        found: Counter[Key] = Counter()
        for kind in np.flatnonzero(sums):
            found[name(self._kinds[kind].tolist())] += round(sums[kind])
        return found

    def _label(self, instructions: Sequence[Instruction], number: int) -> str:
        if number >= len(instructions):
            return "the end"
        return self._names[instructions[number].step.pc]

    def product(self, kind: list[int]) -> str:
        """The product that the engine is at."""
        return self._label(self._products, kind[1])

    def engine(self, kind: list[int]) -> Wait:
        """Why the engine does nothing."""
        state, number, epilogue, _, _ = kind
        on = {State.WEIGHTS: "memory", State.STARTING: "the sequencer"}.get(State(state), "")
        if state == State.ROWS:
            on = f"epilogue of {self._label(self._loaded, max(0, epilogue - 1))}"
        elif state == State.IDLE:
            on = self._dispatch(kind)
        elif state == State.DEPENDENCY:
            culprit = self._culprits.get(number)
            on = "the product before" if culprit is None \
                else self._names[culprit.step.pc]
        return Wait(State(state).name.lower(), self.product(kind), on)

    def memory(self, kind: list[int]) -> Wait:
        """Memory does not answer."""
        return Wait("memory late", "", "")

    def buffers(self, kind: list[int]) -> Wait:
        """There is something to read and no room for it."""
        if kind[0] == State.FIRES:
            return Wait("buffers full", self.product(kind), "the engine, at work")
        why = self.engine(kind)
        return Wait(f"buffers full: {why.cause}", why.what, why.on)

    def streams(self, kind: list[int]) -> Wait:
        """Nothing that could be read has been dispatched."""
        return Wait("nothing to read", self._label(self._timeline.instructions, kind[3]),
                    self._dispatch(kind))

    def _dispatch(self, kind: list[int]) -> str:
        instructions = self._timeline.instructions
        if kind[4]:
            return ("", "a fence", "room in a queue")[kind[4]]
        if kind[3] < len(instructions) and instructions[kind[3]].queue == Queue.CONTROL \
                and instructions[kind[3]].step.values.get("wait"):
            return "its counters"
        return "dispatch, at work"


def _culprits(timeline: Timeline) -> dict[int, Instruction]:
    """By product, the instruction whose signal it waited for last."""
    signals: list[list[Instruction]] = [[] for _ in range(COUNTERS)]
    for found in timeline.instructions:
        for number in range(COUNTERS):
            if found.step.values["signal"] >> number & 1:
                signals[number].append(found)
    ends = [sorted(whose, key=lambda found: found.done) for whose in signals]
    when = [[found.done for found in whose] for whose in ends]
    culprits = {}
    for number, product in enumerate(timeline.products):
        last = [ends[k][at - 1] for k in range(COUNTERS)
                if product.step.values["wait"] >> k & 1
                and (at := bisect.bisect(when[k], product.offered))]
        if last:
            culprits[number] = max(last, key=lambda one: one.done)
    return culprits


def _given(timeline: Timeline) -> Cycles:
    """By cycle, the beats that each channel has been told to read."""
    found = np.zeros(timeline.cycles + 1, np.int64)
    for one in timeline.instructions:
        found[min(one.dispatched + 1, timeline.cycles)] += one.beats
    return np.cumsum(found)[:-1]


def _read_so_far(timeline: Timeline) -> Cycles:
    """Beats [cycle, channel] that have been read; control's, before the program, do not count."""
    read = timeline.log["channels"] & READ
    first = min((one.dispatched for one in timeline.instructions if one.beats), default=0)
    read[:first] = 0
    return np.cumsum(read, axis=0, dtype=np.int64)


def _read(timeline: Timeline, names: Sequence[str], start: int, stop: int) -> Counter[str]:
    """Beats of all channels that were read, by what they are for."""
    readers = [found for found in timeline.instructions if found.beats]
    ends = np.cumsum([found.beats for found in readers])
    total = int(ends[-1]) if readers else 0
    found: Counter[str] = Counter()
    for channel in range(timeline.config.channels):
        # Channel 0 has read the command before.
        at = np.flatnonzero(timeline.log["channels"][:, channel] & READ)
        at = at[len(at) - total:]
        beats = np.flatnonzero((at >= start) & (at < stop))
        counts = np.bincount(np.searchsorted(ends, beats, "right"), minlength=len(readers))
        for reader, count in zip(readers, counts.tolist(), strict=True):
            found[names[reader.step.pc]] += count
    found["command"] = int((timeline.log["channels"][start:stop] & READ).sum()) - found.total()
    return found
