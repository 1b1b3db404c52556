# SPDX-License-Identifier: Apache-2.0
"""What each card of a ring holds: heads, lane rows of the matrices, blocks of logits.

Matrices are split along their outputs, attention along its heads: no card sums up for another, so
that what is computed does not depend on the number of cards (R. Pope et al., "Efficiently Scaling
Transformer Inference", 2022, call it one-dimensional and weight-stationary).  Cards own
neighbouring words of every vector and gather the words of the others.  A matrix may also be *whole*
on every card: each computes all of its outputs, and none of them has to be gathered.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

from rtl_gen.spec.config import CardConfig

from .errors import UserError
from .shape import Shape
from .tiling import Slice, blocks

#: Matrices that every card of a ring may hold whole.
WHOLE = ("out", "up", "down", "head")
#: The vector that the outputs of a layer's matrix become: queries, keys and values through
#: attention.
VECTORS = {"qkv": "mixed", "out": "x", "up": "hidden", "down": "x"}
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
    out, up, down : tuple of range
        By card: words that it computes of the residual stream, with attention and with the MLP,
        and of the hidden vector; all of them if it has the whole matrix.
    logits : tuple of tuple of range
        By card: lane rows of each block of logits.
    whole : frozenset of str
        Matrices that every card has whole: some of :data:`WHOLE`.
    """

    cards: int
    heads: tuple[range, ...]
    out: tuple[range, ...]
    up: tuple[range, ...]
    down: tuple[range, ...]
    logits: tuple[tuple[range, ...], ...]
    whole: frozenset[str] = frozenset()

    def gathered(self, matrix: str) -> bool:
        """Whether cards send each other what they compute with a matrix."""
        return self.cards > 1 and matrix not in self.whole


def arrival(card: int, pieces: Sequence[Sequence[range]], slices: list[Slice], lanes: int
            ) -> list[int]:
    """Numbers of a vector's slices in the order in which a card has all their words: its own, then
    those of its neighbours, who send piece by piece at the same time, and so on.

    Parameters
    ----------
    pieces : sequence of sequences of range
        By card of the ring, words of the pieces in which it sends its part.
    lanes : int
        Elements of a word.
    """
    turns: dict[int, tuple[int, int, bool]] = {}
    for owner, each in enumerate(pieces):
        back, ahead = (card - owner) % len(pieces), (owner - card) % len(pieces)
        turns |= {word: (min(back, ahead), piece, back > ahead)
                  for piece, words in enumerate(each) for word in words}
    last = [max(turns[word] for word in range(part.start // lanes, -(-part.stop // lanes)))
            for part in slices]
    return sorted(range(len(slices)), key=last.__getitem__)


@functools.cache
def partition(config: CardConfig, shape: Shape, logit_words: int,
              whole: frozenset[str] = frozenset()) -> Partition:
    """The parts of a model.

    Parameters
    ----------
    logit_words : int
        Lane rows of a block of logits, at most.
    whole : frozenset of str
        Matrices that every card has whole.

    Raises
    ------
    UserError
        There are more cards than heads, or than rows of a vocabulary that is split.
    """
    cards, lanes = config.cards, config.channels
    if shape.heads < cards:
        raise UserError(f"a ring must have no more cards than the model has heads: this one has "
                        f"{shape.heads} head{'s' * (shape.heads > 1)}, not {cards}")
    rows = -(-shape.vocabulary // lanes)
    split = 1 if "head" in whole else cards
    if rows < split:
        raise UserError(f"a ring must have no more cards than its vocabulary of {shape.vocabulary} "
                        f"fills rows of {lanes}, which is {rows}, not {cards}")
    ends = blocks(rows, logit_words, split)
    of_blocks = [[range(start + part.start, start + part.stop)
                  for part in share(end - start, split)]
                 for start, end in zip([0, *ends], ends, strict=False)]

    def parts(matrix: str, outputs: int) -> tuple[range, ...]:
        words = -(-outputs // lanes)
        return (range(words),) * cards if matrix in whole else tuple(share(words, cards))

    return Partition(
        cards=cards, heads=tuple(share(shape.heads, cards)), out=parts("out", shape.width),
        up=parts("up", shape.inner), down=parts("down", shape.width), whole=whole,
        logits=tuple(tuple(block[card % split] for block in of_blocks) for card in range(cards)))
