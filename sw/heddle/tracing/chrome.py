# SPDX-License-Identifier: Apache-2.0
"""A timeline in Chrome's trace event format, which Perfetto (https://ui.perfetto.dev) shows.

Tracks of slices: dispatch, the queues (the matmul queue as engine, epilogue and softmax) and the
engine's waits.  Tracks of counters: what every channel and the engine did in each sample.
"""

import gzip
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rtl_gen.spec import isa
from rtl_gen.spec.isa import Queue

from ..listing import line
from .account import FULL, LATE, READ, WRITE, State, states, stretches
from .recorder import Recording
from .timeline import Instruction, Timeline

#: Cycles of a sample of the counters.
SAMPLE = 64
_CARD, _MEMORY = 1, 2
#: Tracks of slices, from the top down.
TRACKS = ("dispatch", "memory", "engine", "engine waits", "epilogue", "softmax", "vector")


def slices(timeline: Timeline) -> Iterator[tuple[str, Instruction, int, int]]:
    """(track, instruction, first cycle, cycle after the last) of every slice.

    Parts that work on several instructions at once have the slice of one begin when that of the
    one before ends: slices of a track never overlap.  Every executed instruction has one slice on
    dispatch (control instructions), memory, engine or vector; products with results have another.
    """
    before = -1
    for found in timeline.instructions:
        if found.queue == Queue.CONTROL:
            yield "dispatch", found, before + 1, found.dispatched + 1
        before = found.dispatched
    for found in timeline.products:
        yield "engine", found, *found.engine
    for track, queue in (("memory", Queue.MEMORY), ("vector", Queue.VECTOR)):
        end = 0
        for found in timeline.of(queue):
            yield track, found, max(found.taken, end), found.done + 1
            end = found.done + 1
    ends = {"epilogue": 0, "softmax": 0}
    for found in timeline.products:
        if found.loaded is not None:
            track = "softmax" if found.step.values["dest"] else "epilogue"
            yield track, found, max(found.loaded, ends[track]), found.done + 1
            ends[track] = found.done + 1


def events(timeline: Timeline, recording: Recording, names: Sequence[str], notes: dict[int, str],
           clock_mhz: float, sample: int = SAMPLE) -> Iterator[dict[str, Any]]:
    """The trace events; times are microseconds, whole nanoseconds.

    Parameters
    ----------
    timeline : Timeline
    recording : Recording
        That it was made from.
    names : sequence of str
        What every instruction of the program is for.
    notes : dict
        By instruction, what begins there.
    clock_mhz : float
    sample : int
        Cycles of a sample.
    """
    def time(cycle: int) -> float:
        return round(1000 * cycle / clock_mhz) / 1000

    yield from _tracks(timeline.config.channels)
    lines = [line(isa.encode(name, **fields)) for name, fields in recording.program]
    sections = _sections(notes, len(recording.program))
    for track, found, start, stop in slices(timeline):
        pc = found.step.pc
        about = {"pc": pc, "instruction": lines[pc], "section": sections[pc],
                 "operands": _operands(found), "dispatched": found.dispatched}
        if found.queue != Queue.CONTROL:
            about |= {"offered": found.offered, "taken": found.taken, "done": found.done,
                      "beats": found.beats}
        yield {"ph": "X", "pid": _CARD, "tid": TRACKS.index(track), "name": names[pc],
               "cat": track, "ts": time(start), "dur": round(time(stop) - time(start), 3),
               "args": about}
    for stretch in stretches(timeline, names):
        yield {"ph": "X", "pid": _CARD, "tid": TRACKS.index("engine waits"), "cat": "engine waits",
               "name": f"{stretch.wait.cause}: {stretch.wait.on}", "ts": time(stretch.start),
               "dur": round(time(stretch.stop) - time(stretch.start), 3),
               "args": {"product": stretch.wait.what}}
    yield from _counters(timeline, time, sample)


def write(path: pathlib.Path, found: Iterator[dict[str, Any]], about: dict[str, Any]) -> None:
    """Write a trace, compressed if its name ends in ``.gz``; ``about`` is shown as its metadata."""
    text = json.dumps({"displayTimeUnit": "ns", "otherData": about,
                       "traceEvents": list(found)}, separators=(",", ":")).encode()
    # No time in the header: equal runs give equal files.
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def _tracks(channels: int) -> Iterator[dict[str, Any]]:
    def name(kind: str, pid: int, tid: int, **args: str | int) -> dict[str, Any]:
        return {"ph": "M", "pid": pid, "tid": tid, "name": kind, "args": args}

    yield name("process_name", _CARD, 0, name="card")
    yield name("process_name", _MEMORY, 0, name=f"HBM, {channels} channels")
    for number, track in enumerate(TRACKS):
        yield name("thread_name", _CARD, number, name=track)
        yield name("thread_sort_index", _CARD, number, sort_index=number)


def _sections(notes: dict[int, str], count: int) -> list[str]:
    """By instruction, the last note before it."""
    found = [""]
    for number in range(count):
        found.append(notes.get(number, found[-1]))
    return found[1:]


def _operands(found: Instruction) -> dict[str, int]:
    """Fields that came from registers."""
    return {name: found.step.values[name] for name in ("address", "rows", "beats")
            if f"{name}_reg" in found.step.values}


def _counters(timeline: Timeline, time: Any, sample: int) -> Iterator[dict[str, Any]]:
    """Sums over samples: beats and cycles."""
    starts = np.arange(0, timeline.cycles, sample)
    if not len(starts):
        return
    activity, state = timeline.log["channels"], states(timeline)

    def sums(column: Any) -> list[Any]:
        return np.add.reduceat(column.astype(np.int32), starts, axis=0).tolist()  # type: ignore[no-any-return]

    engine = {member.name.lower(): sums(state == member) for member in State}
    memory = {name: sums((activity & bit != 0).sum(1))
              for name, bit in (("read", READ), ("written", WRITE), ("late", LATE), ("full", FULL))}
    channels = {name: sums(activity & bit != 0)
                for name, bit in (("read", READ), ("written", WRITE), ("late", LATE))}
    for number, start in enumerate(starts.tolist()):
        for pid, name, found in ((_CARD, "engine, cycles", engine),
                                 (_MEMORY, "all channels, beats and cycles", memory)):
            yield {"ph": "C", "pid": pid, "name": name, "ts": time(start),
                   "args": {kind: column[number] for kind, column in found.items()}}
        for channel in range(timeline.config.channels):
            yield {"ph": "C", "pid": _MEMORY, "name": f"channel {channel:02}", "ts": time(start),
                   "args": {kind: column[number][channel] for kind, column in channels.items()}}
