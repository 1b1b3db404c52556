# SPDX-License-Identifier: Apache-2.0
"""Times of beats, steps and rows, compiled by Numba.

Every event has one time, a maximum of what it waits for and a latency; instructions come in program
order, so that what an event waits for is known when it is its turn.  All channels are followed, one
by one: they are refreshed at different times, and the lanes wait for the last of them.

Times are cycles (int64), of memory nanoseconds (float64).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]

#: Bytes of one piece that memory serves (hbm.cpp).
PIECE = 512
#: A long time ago.
NEVER = -1 << 40
# What the machine code knows of the pages of units; `latencies.py` has the rest.
#: Bursts under way of a channel, cycles between their addresses, beats of a write burst.
OUTSTANDING, INTERVAL, WRITE_BURST = 32, 2, 16
#: Finished rows between engine and epilogue.
ROWS = 32
#: From a beat taken by the splitter to its entry, and to its constants as the arbiter shows them.
ENTRY, CONSTANT = 8, 4
#: Runs that the planner may be ahead of the splitter.
RUNS = 36
#: Beats that a writer waits for, and for how many cycles without one; from a merged entry to the
#: writer, and from there to memory, besides the beats themselves.
GATHERED, QUIET, TO_WRITER, TO_MEMORY = 24, 200, 3, 6
#: From the start of a wait for writes until writers know of it; a writer's patience with a burst.
FLUSH, PATIENCE = 2, 8
#: Value beats that share their metadata, and metadata units of a beat.
SUPERGROUP, UNITS_PER_BEAT = 16, 16

#: Columns of ``memory``.
BUSY, REFRESH_AT, OFFSET, WROTE, DUE, ANSWERED = range(6)
#: Columns of ``port``.
ASK, BURST, BURST_LEFT, POP, GONE, POPS, PIECE_LEFT, PIECE_DONE = range(8)
#: And of its writer: bursts so far, sent, served; beats that wait, and when the last one came.
WRITES, SENT, SERVED, WAITING, CAME = range(8, 13)
#: Elements of ``timing``.
CYCLE, PEAK, RANDOM, LATENCY, WRITE_LATENCY, TURNAROUND, REFRESH_EVERY, REFRESH = range(8)
#: Elements of ``sizes``.
CHANNELS, BEAT, FIFO, AUX_BEATS, BUFFER, LONGEST, ROW_LATENCY = range(7)
#: Elements of ``at``, what all channels share: entries, beats of constants, rows and runs so far;
#: last step; row given to the epilogue; sum given to a lane; first constants of the next turn.
ENTRIES, CONSTANTS, ROW_COUNT, RUN_COUNT, FIRE, ROW_FREE, ISSUE, TURN = range(8)
#: Elements of a product.
(ADDRESS, N_ROWS, BEATS, UNITS, MULTIPLE, WIDE, K_OUTER, LAST, TWO_BEAT, COLUMNS, MERGE, POS, AUX,
 ACCEPT, START, LOAD, AFTER_GELU, WAIT, HALVED, LANE) = range(20)
#: Elements of its result: first and last step; last sum given to a lane; cycles that steps waited
#: for entries, and for rows; entries.
FIRST_FIRE, LAST_FIRE, LAST_ISSUE, FOR_ENTRIES, FOR_ROWS, USED, STEPS = range(7)


def _compiled(function: _Function) -> _Function:
    """Compile at the first call, and keep the machine code for the next process."""
    try:
        kept: Any = numba.njit(cache=True)(function)
    except RuntimeError:    # neither the package's folder nor the user's cache can be written
        kept = numba.njit(function)
    return cast(_Function, kept)


class State(NamedTuple):
    """What channels, engine and epilogue remember."""

    timing: _Floats
    sizes: _Ints
    #: [channels, 6], [channels, 13]
    memory: _Floats
    port: _Ints
    #: [channels, OUTSTANDING]: last beats of bursts.
    ends: _Ints
    #: [channels, beats]: when beats left memory's buffer.
    pops: _Ints
    #: [channels, n, 3]: writes that memory has not served: time, offset, bytes.
    writes: _Floats
    #: By entry: when it left its FIFO; by beat of constants, likewise; by row; by run, its first
    #: beat at the splitter.
    entries: _Ints
    constants: _Ints
    rows: _Ints
    runs: _Ints
    at: _Ints
    #: Constants of the current run: when their beats are there.
    there: _Ints


@_compiled
def _occupy(s: State, c: int, ready: float, offset: float, size: float, write: float) -> float:
    """Memory serves a piece; returns when it begins."""
    memory, timing = s.memory[c], s.timing
    while memory[REFRESH_AT] <= max(ready, memory[BUSY]):
        memory[BUSY] = max(memory[BUSY], memory[REFRESH_AT]) + timing[REFRESH]
        memory[REFRESH_AT] += timing[REFRESH_EVERY]
    transfer = size / timing[PEAK]
    start = max(ready, memory[BUSY])
    if offset != memory[OFFSET]:
        start += max(0.0, timing[RANDOM] - transfer)
    if write != memory[WROTE]:
        start += timing[TURNAROUND]
    memory[OFFSET], memory[WROTE], memory[BUSY] = offset + size, write, start + transfer
    return float(start)


@_compiled
def _send(s: State, c: int, time: int) -> None:
    """A writer sends all bursts that wait."""
    port = s.port[c]
    while port[SENT] < port[WRITES]:
        write = s.writes[c, port[SENT] % s.writes.shape[1]]
        time += int(write[2]) // s.sizes[BEAT] + 1
        write[0] = (time + TO_MEMORY) * s.timing[CYCLE]
        port[SENT] += 1
    port[WAITING] = 0


@_compiled
def _serve_writes(s: State, c: int, until: float) -> None:
    """Memory serves the writes that it begins with until then."""
    port, memory = s.port[c], s.memory[c]
    if port[WAITING] and (port[CAME] + QUIET) * s.timing[CYCLE] <= until:
        _send(s, c, port[CAME] + QUIET)
    while port[SERVED] < port[SENT]:
        write = s.writes[c, port[SERVED] % s.writes.shape[1]]
        if write[0] > max(until, memory[BUSY]):
            return
        done = 0.0
        while done < write[2]:
            size = min(float(PIECE), write[2] - done)
            _occupy(s, c, write[0], write[1] + done, size, 1.0)
            done += size
        memory[ANSWERED] = memory[BUSY] + s.timing[WRITE_LATENCY]
        port[SERVED] += 1


@_compiled
def write(s: State, c: int, address: int, beats: int, time: int) -> None:
    """Consecutive beats, of which the writer has the last at ``time``."""
    port = s.port[c]
    if port[WAITING] and port[CAME] + QUIET <= time:
        _send(s, c, port[CAME] + QUIET)
    place = s.writes[c, port[WRITES] % s.writes.shape[1]]
    place[1], place[2] = address * s.sizes[BEAT], beats * s.sizes[BEAT]
    port[WRITES] += 1
    port[WAITING] += beats
    port[CAME] = time
    if port[WAITING] >= GATHERED:
        _send(s, c, time)


@_compiled
def answered(s: State, asked: int) -> int:
    """The cycle in which the last write so far has been answered, for which somebody waits from
    ``asked`` on."""
    last = 0.0
    for c in range(s.sizes[CHANNELS]):
        port = s.port[c]
        if port[WAITING]:
            _send(s, c, min(port[CAME] + QUIET, max(asked + FLUSH, port[CAME] + PATIENCE)))
        _serve_writes(s, c, 1e18)
        last = max(last, s.memory[c, ANSWERED])
    return int(np.ceil(last / s.timing[CYCLE]))


@_compiled
def _beat(s: State, c: int, address: int, k: int, beats: int, accept: int, room: int) -> int:
    """Beat ``k`` of a run of a channel; returns when the splitter passes it on, which has a place
    for it from ``room`` on."""
    port, memory, timing = s.port[c], s.memory[c], s.timing
    beat, longest = s.sizes[BEAT], s.sizes[LONGEST]
    place = address + k
    if k == 0 or place % longest == 0:
        ask = max(port[ASK] + INTERVAL, s.ends[c, port[BURST] % OUTSTANDING] + 1)
        if k == 0:
            ask = max(ask, accept)
        port[ASK] = ask
        port[BURST_LEFT] = min(longest - place % longest, beats - k)
        port[PIECE_LEFT] = 0
    if port[PIECE_LEFT] == 0:
        size = min(PIECE // beat, port[BURST_LEFT])
        ready = port[ASK]
        last = port[POPS] + size - s.sizes[BUFFER]
        if last > 0:
            ready = max(ready, s.pops[c, (last - 1) % s.pops.shape[1]])
        start = ready * timing[CYCLE]
        _serve_writes(s, c, start)
        start = _occupy(s, c, start, float(place * beat), float(size * beat), 0.0)
        memory[DUE] = start + timing[LATENCY]
        port[PIECE_LEFT], port[PIECE_DONE] = size, 0
    due = memory[DUE] + port[PIECE_DONE] * (beat / timing[PEAK])
    pop = max(int(np.ceil(due / timing[CYCLE] - 1e-9)), port[POP] + 1, port[GONE])
    port[POP] = pop
    s.pops[c, port[POPS] % s.pops.shape[1]] = pop
    port[POPS] += 1
    port[PIECE_LEFT] -= 1
    port[PIECE_DONE] += 1
    port[BURST_LEFT] -= 1
    if port[BURST_LEFT] == 0:
        s.ends[c, port[BURST] % OUTSTANDING] = pop
        port[BURST] += 1
    gone = max(pop + 1, port[GONE] + 1, room)
    port[GONE] = gone
    return int(gone)


@_compiled
def constants(s: State, address: int, beats: int, run: int, accept: int) -> None:
    """Beats of constants at the start of a run: when all channels show their words."""
    for k in range(beats):
        number = s.at[CONSTANTS] + k
        room = s.constants[number % s.sizes[AUX_BEATS]] + 1
        last = 0
        for c in range(s.sizes[CHANNELS]):
            last = max(last, _beat(s, c, address, k, run, accept, room))
        s.there[k] = last + CONSTANT
        if k == 0:
            s.runs[s.at[RUN_COUNT] % RUNS] = last


@_compiled
def load(s: State, address: int, rows: int, words: int, accept: int, start: int) -> int:
    """A LOAD that its unit begins with at ``start``: when its last word is taken."""
    accept = max(accept, s.runs[s.at[RUN_COUNT] % RUNS])
    per_beat = s.sizes[BEAT] // 4
    per_row = -(-words // per_beat)
    constants(s, address, rows * per_row, rows * per_row, accept)
    s.at[RUN_COUNT] += 1
    # What follows in the beat of a row's last word is dropped, up to four words a cycle; what comes
    # then is known of a cycle later.
    gap = 1 + -(-(-words % per_beat) // 4)
    time = max(start, s.at[TURN] - 1) - gap
    for row in range(rows):
        time += gap
        for word in range(words):
            beat = row * per_row + word // per_beat
            time = max(time + 1, s.there[beat])
            if word % per_beat == 0:
                s.constants[(s.at[CONSTANTS] + beat) % s.sizes[AUX_BEATS]] = time
    s.at[CONSTANTS] += rows * per_row
    s.at[TURN] = time + 1 + gap
    return int(time)


@_compiled
def _flush(s: State, run: _Floats) -> None:
    """Give the merged entries of one burst of all channels to memory."""
    for c in range(s.sizes[CHANNELS]):
        if run[c, 1] > 0:
            write(s, c, int(run[c, 0]), int(run[c, 1]), int(run[c, 2]) + TO_WRITER)
            run[c, 1] = 0


@_compiled
def _merge(s: State, run: _Floats, c: int, address: int, time: int) -> None:
    """A merged entry of a channel goes back to memory."""
    if run[c, 1] > 0 and (run[c, 0] + run[c, 1] != address or run[c, 1] == WRITE_BURST):
        write(s, c, int(run[c, 0]), int(run[c, 1]), int(run[c, 2]) + TO_WRITER)
        run[c, 1] = 0
    if run[c, 1] == 0:
        run[c, 0] = address
    run[c, 1] += 1
    run[c, 2] = time


@_compiled
def product(s: State, p: _Ints, run: _Floats, o: _Ints) -> None:
    """A MATMUL: reads its stream, steps through it and finishes its rows; fills in ``o``."""
    channels, per_beat = s.sizes[CHANNELS], s.sizes[BEAT] // 4
    rows, columns, digits = p[N_ROWS], p[COLUMNS], 1 + p[WIDE]
    per_row = p[BEATS] * p[MULTIPLE]        # entries of a row, of one digit
    values = rows * p[BEATS] * digits
    full, rest = values // SUPERGROUP, values % SUPERGROUP
    metadata = full * p[UNITS] + -(-rest * p[UNITS] // UNITS_PER_BEAT)
    aux = -(-rows * p[AUX] // per_beat)
    beats = aux + metadata + values
    accept = max(p[ACCEPT], s.runs[s.at[RUN_COUNT] % RUNS])
    s.runs[s.at[RUN_COUNT] % RUNS] = NEVER
    constants(s, p[ADDRESS], aux, beats, accept)
    k, value, turn = aux, 0, 0              # beat of the run, value beat, entry of it
    fire, issue, here = s.at[FIRE], s.at[ISSUE], p[LOAD]
    first, for_entries, for_rows, steps, used = True, 0, 0, 0, 0
    row_done = 0
    outer, inner = (per_row, rows) if p[K_OUTER] else (rows, per_row)
    span = s.sizes[BEAT] if p[MERGE] == 2 else channels
    reach = 2 * span if p[MERGE] == 2 and not p[WIDE] else span
    for a in range(outer):
        b = 0
        while b < inner:
            entry, row = (a, b) if p[K_OUTER] else (b, a)
            delta = p[POS] - (entry * s.sizes[BEAT] if p[MERGE] == 2 else row * channels)
            behind = p[MERGE] != 0 and delta + columns > 0
            near, hit = behind and delta < reach, behind and delta < span
            pair = p[TWO_BEAT] and not near and (p[WIDE] or per_row - entry > 1)
            two = pair and not p[WIDE]
            for part in range(1 if pair or not p[WIDE] else 2):
                # The step's entries.
                ready = NEVER
                address = p[ADDRESS] + aux + value
                for _ in range(2 if pair else 1):
                    room = s.entries[s.at[ENTRIES] % s.sizes[FIFO]] + 1
                    if turn == 0:
                        if p[UNITS] and value % SUPERGROUP == 0:
                            left = min(SUPERGROUP, values - value)
                            for _ in range(-(-left * p[UNITS] // UNITS_PER_BEAT)):
                                for c in range(channels):
                                    _beat(s, c, p[ADDRESS], k, beats, accept, 0)
                                k += 1
                        for c in range(channels):
                            gone = _beat(s, c, p[ADDRESS], k, beats, accept, room)
                            ready = max(ready, gone)
                        if k == 0:
                            s.runs[s.at[RUN_COUNT] % RUNS] = ready
                        k += 1
                        value += 1
                    else:
                        for c in range(channels):
                            s.port[c, GONE] = max(s.port[c, GONE] + 1, room)
                            ready = max(ready, s.port[c, GONE])
                    turn = (turn + 1) % p[MULTIPLE]
                    # When it leaves is known below; nobody asks before.
                    s.at[ENTRIES] += 1
                ready += ENTRY
                last_digit = pair or not p[WIDE] or part == 1
                out = p[LAST] and last_digit and entry + 1 + two >= per_row
                # It fires.
                free = max(fire + 1, p[START])
                place = free
                if out:
                    place = max(free, s.rows[s.at[ROW_COUNT] % ROWS] + 1)
                fire = max(place, ready)
                if first:
                    o[FIRST_FIRE], first = fire, False
                    for_entries += max(0, fire - max(free, place))
                else:
                    for_entries += fire - place
                    for_rows += place - free
                # Patterns that halve their groups take another step.
                fire += p[HALVED]
                steps += 1 + p[HALVED]
                for back in range(2 if pair else 1):
                    s.entries[(s.at[ENTRIES] - 1 - back) % s.sizes[FIFO]] = fire
                    used += 1
                if hit:
                    if p[MERGE] == 2:
                        for c in range(channels):
                            _merge(s, run, c, address, fire)
                    else:
                        for token in range(columns):
                            if 0 <= delta + token < channels:
                                _merge(s, run, (p[LANE] + token) % channels, address, fire)
                if out:
                    # The row goes through the epilogue.
                    shown = max(fire + s.sizes[ROW_LATENCY], s.at[ROW_FREE] + 1)
                    if p[AUX]:
                        word = (row_done + 1) * p[AUX] - 1
                        beat = word // per_beat
                        # A word that is left is known of at once, more only a cycle later.
                        here = max(here + (1 if p[AUX] == 1 or row_done == 0 else 2), issue,
                                   s.there[beat], s.at[TURN])
                        for number in range(row_done * p[AUX] // per_beat, beat + 1):
                            if number * per_beat >= row_done * p[AUX]:
                                s.constants[(s.at[CONSTANTS] + number) % s.sizes[AUX_BEATS]] = here
                        shown = max(shown, here + 1)
                    issue = max(shown, issue + 1, p[LOAD] + 1, p[AFTER_GELU]) + columns - 1
                    s.at[ROW_FREE] = issue
                    s.rows[s.at[ROW_COUNT] % ROWS] = issue
                    s.at[ROW_COUNT] += 1
                    row_done += 1
            b += 1 if p[K_OUTER] else 1 + two
    if p[MERGE]:
        _flush(s, run)
    if aux:
        s.at[CONSTANTS] += aux
        s.at[TURN] = here + 2 + -(-(-(rows * p[AUX]) % per_beat) // 4)
    s.at[RUN_COUNT] += 1
    s.at[FIRE], s.at[ISSUE] = fire, issue
    o[LAST_FIRE], o[LAST_ISSUE], o[FOR_ENTRIES], o[FOR_ROWS], o[USED], o[STEPS] = (
        fire, issue, for_entries, for_rows, used, steps)
