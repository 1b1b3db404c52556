# SPDX-License-Identifier: Apache-2.0
"""All-gather: every card sends the words it computes both ways round the ring, and passes on what
it receives.

A vector comes in *pieces*, numbered on each card in the order in which it makes them.  Piece k of
the card at distance d (in links) is awaited after this card's own piece k + d · lag: about then it
is there, so that nobody waits who has something else to do.  All cards follow the same order on
each link, which is why messages need no names.  The card opposite is reached both ways: half of
what it has comes from either side.
"""

from collections.abc import Callable, Sequence

from .program import Builder

#: Ways round the ring: what sends on in this direction, what takes, and step to the card that it
#: takes from.
_WAYS = (("SEND_NEXT", "RECEIVE_PREVIOUS", -1), ("SEND_PREVIOUS", "RECEIVE_NEXT", 1))


class Gather:
    """The all-gather of one vector; with one card, nothing but bookkeeping.

    Parameters
    ----------
    builder : Builder
    card : int
    pieces : sequence of sequences of range
        By card, the words of its pieces, in order.
    address : callable
        Scratchpad word, of the first token, of a word of the vector.
    stride : int
        Scratchpad words from one token's vector to the next.
    columns : int
        Tokens.
    lag : int
        Own pieces that are made while one is on a link.
    arrived : callable
        Is called with each range of words when they are there, in program order.
    """

    def __init__(self, builder: Builder, card: int, pieces: Sequence[Sequence[range]], *,
                 address: Callable[[int], int], stride: int, columns: int, lag: int,
                 arrived: Callable[[range], None]) -> None:
        self._builder, self._card, self._pieces = builder, card, pieces
        self._address, self._stride, self._columns = address, stride, columns
        self._arrived = arrived
        self._own = 0
        self._words: set[int] = set()
        cards = len(pieces)
        #: (own piece after which it is awaited, distance, piece, way), in the order of all links.
        self._awaited = sorted(
            (k + distance * lag, distance, k, way)
            for distance in range(1, cards // 2 + 1) for way in range(2)
            for k, _ in enumerate(pieces[self._from(distance, way)]))

    def _from(self, distance: int, way: int) -> int:
        return (self._card + _WAYS[way][2] * distance) % len(self._pieces)

    def have(self, stop: int) -> None:
        """Own words below ``stop`` are computed."""
        mine = self._pieces[self._card]
        while self._own < len(mine) and mine[self._own].stop <= stop:
            piece = mine[self._own]
            for way in range(2 if len(self._pieces) > 1 else 0):
                self._send(self._half(piece, way) if len(self._pieces) == 2 else piece, way)
            self._arrived(piece)
            self._await(self._own)
            self._own += 1

    def add(self, words: range) -> None:
        """Own words are computed, in any order."""
        if len(self._pieces) == 1:
            self._arrived(words)
            return
        self._words.update(words)
        mine = self._pieces[self._card]
        stop = mine[0].start
        while stop in self._words:
            stop += 1
        self.have(stop)

    def finish(self) -> None:
        """Wait for everything that has not come."""
        if len(self._pieces) > 1 and self._own < len(self._pieces[self._card]):
            raise RuntimeError("all own words must be computed before others are awaited")
        self._await(None)

    def _await(self, own: int | None) -> None:
        while self._awaited and (own is None or self._awaited[0][0] <= own):
            _, distance, k, way = self._awaited.pop(0)
            piece = self._pieces[self._from(distance, way)][k]
            opposite = len(self._pieces) // 2
            if distance == opposite:
                piece = self._half(piece, way)
            if not piece:
                continue
            self._builder.emit(_WAYS[way][1], dst=self._address(piece.start), words=len(piece),
                               **self._shape())
            if distance < opposite:
                self._send(piece if distance + 1 < opposite else self._half(piece, way), way)
            self._arrived(piece)

    def _send(self, piece: range, way: int) -> None:
        if piece:
            self._builder.emit(_WAYS[way][0], src=self._address(piece.start), words=len(piece),
                               **self._shape())

    def _shape(self) -> dict[str, int]:
        return {"columns": self._columns, "stride": self._stride if self._columns > 1 else 0}

    @staticmethod
    def _half(piece: range, way: int) -> range:
        middle = piece.start + -(-len(piece) // 2)
        return range(middle, piece.stop) if way else range(piece.start, middle)


class Complete:
    """Says which of several ranges are complete when words come in any order.

    Parameters
    ----------
    wanted : sequence of range
    """

    def __init__(self, wanted: Sequence[range]) -> None:
        self._missing = [set(part) for part in wanted]
        self._told = [False] * len(wanted)

    def add(self, words: range) -> list[int]:
        """Numbers of the ranges that these words complete."""
        found = []
        for number, missing in enumerate(self._missing):
            missing.difference_update(words)
            if not missing and not self._told[number]:
                self._told[number] = True
                found.append(number)
        return found
