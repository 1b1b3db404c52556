# SPDX-License-Identifier: Apache-2.0
"""What each card of a ring holds: heads, lane rows of the matrices, blocks of logits.

Every matrix is split along its outputs, attention along its heads: no card sums up for another, so
that what is computed does not depend on the number of cards (R. Pope et al., "Efficiently Scaling
Transformer Inference", 2022, call it one-dimensional and weight-stationary).  Cards own
neighbouring words of every vector and gather the words of the others.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

from rtl_gen.spec.config import CardConfig

from .errors import UserError
from .shape import Shape
from .tiling import Slice, blocks

#: Most words of a message, by vector.  A message is passed on when all of it is there, so short
#: ones are there sooner; but each takes instructions on every card, and a frame of the link.
MESSAGE = {"x": 3, "hidden": 8}


def share(total: int, cards: int) -> list[range]:
    """Neighbouring parts of ``total``, one a card, as even as can be; the first are larger.

    >>> [len(part) for part in share(25, 4)], [len(part) for part in share(2, 4)]
    ([7, 6, 6, 6], [1, 1, 0, 0])
    """
    size, more = divmod(total, cards)
    ends = [size * card + min(card, more) for card in range(cards + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(ends)]


def cut(whole: range, marks: set[int], most: int) -> list[range]:
    """Pieces of a range that end at ``marks``, none longer than ``most`` but by what is left over.

    >>> cut(range(2, 20), {8}, 5)
    [range(2, 5), range(5, 8), range(8, 12), range(12, 16), range(16, 20)]
    """
    if not whole:
        return []
    ends = sorted({mark for mark in marks if whole.start < mark < whole.stop} | {whole.stop})
    pieces, start = [], whole.start
    for end in ends:
        pieces += [range(start + part.start, start + part.stop)
                   for part in share(end - start, -(-(end - start) // most))]
        start = end
    return pieces


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
    """A model's parts on the cards of a ring; words and lane rows are counted over the whole model.

    Attributes
    ----------
    cards : int
    heads : tuple of range
        By card.
    x, hidden : tuple of range
        Words of the residual stream, and of the hidden vector, that a card computes.
    logits : tuple of tuple of range
        By card: lane rows of each block of logits.
    """

    cards: int
    heads: tuple[range, ...]
    x: tuple[range, ...]
    hidden: tuple[range, ...]
    logits: tuple[tuple[range, ...], ...]

    def turn(self, card: int, pieces: Sequence[Sequence[range]], word: int) -> tuple[int, int, int]:
        """When a card has a word, to be compared: its own ones first, then those of its neighbours,
        who send piece by piece at the same time, and so on."""
        owner, piece = next((other, number) for other, each in enumerate(pieces)
                            for number, words in enumerate(each) if word in words)
        back, ahead = (card - owner) % self.cards, (owner - card) % self.cards
        return min(back, ahead), piece, int(back > ahead)

    def order(self, card: int, pieces: Sequence[Sequence[range]], slices: list[Slice], lanes: int
              ) -> list[int]:
        """Slices as they are there, by the last of their words; ``pieces`` are those of each card.
        """
        turns = [max(self.turn(card, pieces, word)
                     for word in range(part.start // lanes, -(-part.stop // lanes)))
                 for part in slices]
        return sorted(range(len(slices)), key=turns.__getitem__)


@functools.cache
def partition(config: CardConfig, shape: Shape, logit_words: int) -> Partition:
    """The parts of a model.

    Parameters
    ----------
    logit_words : int
        Lane rows of a block of logits, at most.

    Raises
    ------
    UserError
        There are more cards than heads.
    """
    cards, lanes = config.cards, config.channels
    if shape.heads < cards:
        raise UserError(f"a ring must have no more cards than the model has heads: this one has "
                        f"{shape.heads} head{'s' * (shape.heads > 1)}, not {cards}")
    rows = -(-shape.vocabulary // lanes)
    if rows < cards:
        raise UserError(f"a ring must have no more cards than its vocabulary of {shape.vocabulary} "
                        f"fills rows of {lanes}, which is {rows}, not {cards}")
    ends = blocks(rows, logit_words, cards)
    of_blocks = [[range(start + part.start, start + part.stop)
                  for part in share(end - start, cards)]
                 for start, end in zip([0, *ends], ends, strict=False)]
    return Partition(
        cards=cards, heads=tuple(share(shape.heads, cards)),
        x=tuple(share(-(-shape.width // lanes), cards)),
        hidden=tuple(share(-(-shape.inner // lanes), cards)),
        logits=tuple(tuple(block[card] for block in of_blocks) for card in range(cards)))
