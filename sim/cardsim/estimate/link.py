# SPDX-License-Identifier: Apache-2.0
"""Cycles of SEND and RECEIVE, and what the walks of a ring's cards tell each other."""

from queue import SimpleQueue

from rtl_gen.spec.rules import Values

from .latencies import Latencies

_Way = SimpleQueue[int | BaseException]


class Ring:
    """When messages between cards have arrived, in order; each card is walked in its own thread.

    A card alone is its own neighbour.

    Parameters
    ----------
    cards : int
    """

    def __init__(self, cards: int) -> None:
        #: By card, then by the side that it comes from: 0 previous, 1 next.
        self._ways: list[tuple[_Way, _Way]] = [(SimpleQueue(), SimpleQueue()) for _ in range(cards)]

    def send(self, card: int, side: int, arrived: int | BaseException) -> None:
        """A message to a side has arrived there at this cycle; or the walk has failed, and no more
        will come."""
        # What goes to the card before this one comes to it from behind.
        self._ways[(card + (1 if side else -1)) % len(self._ways)][1 - side].put(arrived)

    def receive(self, card: int, side: int) -> int:
        """When the next message from a side has arrived; waits until the neighbour's walk says so.

        Raises
        ------
        BaseException
            What the neighbour's walk failed with.
        """
        arrived = self._ways[card][side].get()
        if isinstance(arrived, BaseException):
            raise arrived
        return arrived

    def clear(self, card: int) -> None:
        """Forget what is on its way to a card."""
        for way in self._ways[card]:
            while not way.empty():
                way.get()


class Links:
    """The links of one card to both neighbours.

    Parameters
    ----------
    of : Latencies
    latency : float
        Cycles of the way.
    rate : float
        Beats a cycle of the way, at most 1.
    ring : Ring
    card : int
        Its number in the ring.
    """

    def __init__(self, of: Latencies, latency: float, rate: float, ring: Ring, card: int) -> None:
        self._of, self._latency, self._rate = of, latency, min(1.0, rate)
        self._ring, self._card = ring, card
        #: Where a word is one beat, each side wants the scratchpad in every cycle: they take turns.
        self._turns = 2 if of.word_beats == 1 else 1
        #: When the way to each side is free.
        self._free = [0.0, 0.0]

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
        self._ring.send(self._card, side, int(at + self._latency) + of.frame_in + last)
        return begin + beats * self._turns

    def receive(self, side: int, v: Values, taken: int) -> int:
        """When a RECEIVE from a side that was taken then is done."""
        of, there = self._of, self._ring.receive(self._card, side)
        return max(taken + of.receive + self._beats(v) * self._turns, there + of.receive)
