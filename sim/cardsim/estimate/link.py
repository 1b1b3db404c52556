# SPDX-License-Identifier: Apache-2.0
"""Cycles of SEND and RECEIVE.

All cards of a ring run the same program on parts of the same size, or nearly so: what a card
awaits from a neighbour is on its way when what it sends itself is.  So the n-th message that comes
from the one side left when the n-th left to the other.
"""

from rtl_gen.spec.rules import Values

from .latencies import Latencies


class Links:
    """The links to both neighbours.

    Parameters
    ----------
    of : Latencies
    latency : float
        Cycles of the way.
    rate : float
        Beats a cycle of the way, at most 1.
    """

    def __init__(self, of: Latencies, latency: float, rate: float) -> None:
        self._of, self._latency, self._rate = of, latency, min(1.0, rate)
        #: Where a word is one beat, each side wants the scratchpad in every cycle: they take turns.
        self._turns = 2 if of.word_beats == 1 else 1
        #: By side: when the way to it is free, when what is sent there has arrived, and how many
        #: messages from there have been taken.
        self._free = [0.0, 0.0]
        self._arrived: list[list[int]] = [[], []]
        self._taken = [0, 0]

    def _beats(self, v: Values) -> int:
        return v["words"] * v["columns"] * self._of.word_beats

    def send(self, side: int, v: Values, taken: int) -> int:
        """When a SEND to a side (0 previous, 1 next) that was taken then is done."""
        of, beats = self._of, self._beats(v)
        begin = taken + of.send
        at = self._free[side]
        for start in range(0, beats, of.frame):
            size = min(of.frame, beats - start)
            came = begin + (start + size) * self._turns
            at = max(at, came + of.frame_out) + (size + 1) / self._rate
        self._free[side] = at
        last = (beats - 1) % of.frame + 1
        self._arrived[side].append(int(at + self._latency) + of.frame_in + last)
        return begin + beats * self._turns

    def receive(self, side: int, v: Values, taken: int) -> int:
        """When a RECEIVE from a side that was taken then is done."""
        of = self._of
        number = self._taken[side]
        self._taken[side] += 1
        arrived = self._arrived[1 - side]
        # The others may have more pieces than this card: those come when its last has.
        there = arrived[min(number, len(arrived) - 1)] if arrived else 0
        return max(taken + of.receive + self._beats(v) * self._turns, there + of.receive)
