# SPDX-License-Identifier: Apache-2.0
"""From the last scores of a product to its probabilities and the sums of their numerators."""

from .latencies import Latencies


class Softmax:
    """The way of the probabilities.

    Parameters
    ----------
    latencies : Latencies
    """

    def __init__(self, latencies: Latencies) -> None:
        self._of = latencies
        self._given, self._out = 0, 0
        self._slots = [0] * latencies.sums
        self._slot = 0
        #: When an instruction has left the table, in order.
        self.ends: list[int] = []
        #: By result, when its sums are there.
        self.sums: dict[int, int] = {}

    def scores(self, result: int, words: int, columns: int, last: int) -> int:
        """Scores whose last sum was given to a lane at ``last``; returns the report's cycle."""
        of, parts = self._of, self._of.plane_parts
        blocks = -(-words // parts)
        done = total = 0
        for token in range(columns):
            came = last - (columns - 1 - token) + of.score
            first = max(came + of.softmax, self._given + 1)
            self._given = first + words - 1
            # The last block is filled up, and leaves when it is complete.
            end = first + blocks * parts - 1
            self._out = max(end + of.scaled + of.quantiser, self._out + 1) + parts - 1
            done = self._out + 1
            # One of three sums that take turns, each with a queue of its own.
            at = max(first, self._slots[self._slot])
            self._slots[self._slot] = at + of.sums * words
            self._slot = (self._slot + 1) % of.sums
            total = max(total + 1, at + of.sums * (words - 1) + of.sum)
        self.sums[result] = total
        self.ends.append(max(done, total) + 1)
        return done
