# SPDX-License-Identifier: Apache-2.0
"""Chooses which matrices every card of a ring has whole, from rates of memory and of links.

The model is analytic, in the manner of R. Pope et al., "Efficiently Scaling Transformer Inference",
2022: a product takes as long as memory delivers its matrix or the engine multiplies, whichever is
longer, and an all-gather the latency of its links and the time that its bytes are on them.
A whole matrix costs the reading of the other cards' parts and saves the gather of what it gives.
docs/rings.md has the formulas.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.formats import DENSE, Pattern

from .options import Options
from .partition import VECTORS, WHOLE
from .shape import Shape
from .tiling import CHUNKS, coverage, vector_slices

Whole = frozenset[str]

#: Cycles that no layout saves, from docs/units: from the last step of a product to its words
#: (engine and epilogue); from there to the planes, besides two passes over the slice; of a norm,
#: besides two passes over the last slice, ten times the logarithm of the lanes, and six cycles a
#: word of sums.
_COMPUTED, _QUANTISED, _NORM = 18 + 33, 20, 74
#: Of an addition of words that came from another card, besides a cycle a word.
_ADDED = 32
#: And of a message, on each link: SEND, a frame of eight beats that is kept at both ends, RECEIVE.
_HOP = 3 + 2 + 8 + 4 + 8 + 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """Rates that a choice depends on.  The defaults are those of the simulators: a U280's HBM and
    AuroraFlow on 100 Gb/s (docs/simulators.md); tests hold them equal."""

    #: Clock of the cards; None: the configuration's.
    clock_mhz: float | None = None
    #: Bytes per nanosecond of one memory channel that streams.
    channel_gbps: float = 14.375 * (1 - 346 / 3900)
    #: Of one link, each way.
    link_latency_ns: float = 540.0
    link_gbps: float = 12.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Cycles of a decode step with some matrices whole, by what takes them.

    Attributes
    ----------
    whole : frozenset of str
    layer, head : float
        Cycles of one layer, and of the LM head.
    waits : float
        Those of a layer in which memory waits: for links, and for what lies between two products.
    total : float
        Cycles of the step, embeddings and sampling left out.
    """

    whole: Whole
    layer: float
    head: float
    waits: float
    total: float


def split_name(whole: Whole) -> str:
    """As ``--split`` has it.

    >>> split_name(frozenset()), split_name(frozenset({"up", "out"}))
    ('outputs', 'whole:out,up')
    """
    return "whole:" + ",".join(each for each in WHOLE if each in whole) if whole else "outputs"


class Model:
    """Times of one model on a ring.

    Parameters
    ----------
    config : CardConfig
    shape : Shape
    options : Options
    pattern : Pattern
        In which the layers' matrices are stored.
    machine : Machine
    cached : int
        Positions whose K and V are read.
    """

    def __init__(self, config: CardConfig, shape: Shape, options: Options, pattern: Pattern,
                 machine: Machine, cached: int) -> None:
        self._config, self._shape, self._options = config, shape, options
        self._pattern, self._cached = pattern, cached
        clock = (machine.clock_mhz or config.clock_mhz) / 1000      # cycles per ns
        #: Beats of a channel, and bytes of a link, in a cycle: neither passes more than a beat.
        self._memory = min(1.0, machine.channel_gbps / clock / config.beat_bytes)
        self._rate = min(float(config.beat_bytes), machine.link_gbps / clock)
        self._latency = machine.link_latency_ns * clock + _HOP
        lanes, cover = config.vector_lanes, coverage(pattern, config)
        slices = vector_slices(shape.width, shape.inner, cover, config)
        twice = {name: 2 * max(part.count for part in parts) // lanes
                 for name, parts in slices.items()}
        #: From the end of a product to who takes the last slice of the vector that it makes.
        self._settled = {
            "mixed": _COMPUTED + _QUANTISED + twice["mixed"],
            "hidden": _COMPUTED + _QUANTISED + twice["hidden"],
            "x": _COMPUTED + _NORM + twice["x"] + 10 * (lanes.bit_length() - 1)
            + 6 * math.ceil(shape.width / lanes ** 2)}

    def product(self, outputs: int, inputs: int, pattern: Pattern, constants: int, share: int
                ) -> float:
        """Cycles of a card's product with a matrix that is split ``share`` ways."""
        config = self._config
        rows = -(-math.ceil(outputs / config.channels) // share)
        values = rows * math.ceil(inputs / (config.beat_bytes * pattern.ratio))
        beats = values * (1 + pattern.units / 32) + 4 * rows * constants / config.beat_bytes
        # The two digits of an activation share a cycle where the columns hold them.
        steps = float(values * pattern.entries << pattern.halved)
        if 2 << self._options.digits <= config.tokens:
            steps /= 2
        return max(beats / self._memory, steps)

    def attention(self) -> float:
        """Cycles in which K and V of a card's heads are read."""
        config, heads = self._config, -(-self._shape.heads // self._config.cards)
        rows = math.ceil(self._cached / config.channels) * config.head_beats
        blocks = math.ceil(self._cached / config.beat_bytes) * config.head_words
        return heads * (rows + blocks) * (1 + self._options.wide) / self._memory

    def arrivals(self, elements: int) -> Iterator[tuple[float, float]]:
        """(share of a gathered vector, cycles after a card's own part is made until it is there),
        by distance: what comes from both sides at that distance."""
        cards = self._config.cards
        part = 4 * elements / cards
        sent = 0.0
        yield 1 / cards, 0.0
        for distance in range(1, cards // 2 + 1):
            opposite = distance == cards // 2
            sent += part / 2 if opposite else part
            yield (1 if opposite else 2) / cards, distance * self._latency + sent / self._rate

    def after(self, vector: str, work: float, *, gathered: bool) -> float:
        """Cycles of a product, from the end of the one that makes a card's part of its inputs: it
        takes the inputs in the order in which they come, and ends behind the last ones."""
        elements = self._shape.inner if vector == "hidden" else self._shape.width
        coming = list(self.arrivals(elements)) if gathered \
            else [(1 / CHUNKS, 0.0)] * CHUNKS
        # Of a product behind a norm half of the rows start early if no card is waited for.
        late = work / 2 if vector == "x" and not gathered else 0.0
        time = 0.0
        for number, (share, there) in enumerate(coming, 1):
            last = self._settled[vector] if number == len(coming) else 0
            time = max(time, there + last) + share * (work - late)
        return time + late

    def fused(self) -> float:
        """Cycles of a layer if each card multiplied what its heads give with its inputs of ``out``
        at once, and the cards sent each other their partial sums of all of x.

        One gather falls away; the other has as many times the bytes as there are cards, and none of
        x is there before all of it is.  No layout of Heddle does that: see docs/rings.md.
        """
        shape, config, cards = self._shape, self._config, self._config.cards
        out = self.product(shape.width, shape.width, self._pattern, 2, cards)
        up = self.product(shape.inner, shape.width, self._pattern, 3, cards)
        sums = cards / 2 * self._latency + (cards - 1) / 2 * 4 * shape.width / self._rate \
            + _ADDED + math.ceil(shape.width / config.vector_lanes)
        others = self.estimate(frozenset()).layer - self.after("mixed", out, gathered=True) \
            - self.after("x", up, gathered=True)
        return others + self._settled["mixed"] + out + sums + self._settled["x"] + up

    def estimate(self, whole: Whole) -> Estimate:
        """Cycles of a decode step."""
        shape, cards = self._shape, self._config.cards
        matrices = {"qkv": (3 * shape.width, shape.width, 3), "out": (shape.width, shape.width, 2),
                    "up": (shape.inner, shape.width, 3), "down": (shape.width, shape.inner, 2)}
        work = {matrix: self.product(outputs, inputs, self._pattern, constants,
                                     1 if matrix in whole else cards)
                for matrix, (outputs, inputs, constants) in matrices.items()}
        work["head"] = self.product(shape.vocabulary, shape.width, DENSE, 3,
                                    1 if "head" in whole else cards)

        def time(matrix: str, maker: str) -> float:
            return self.after(VECTORS[maker], work[matrix], gathered=maker not in whole)

        makers = {"qkv": "down", "out": "qkv", "up": "out", "down": "up"}
        times = {matrix: time(matrix, maker) for matrix, maker in makers.items()}
        head = time("head", "down")
        if "head" not in whole:
            # Blocks are gathered while others are made; of the last one, which is short, nothing
            # but the latency counts.
            *_, (_, last) = self.arrivals(0)
            head += last
        layer = sum(times.values()) + self.attention()
        return Estimate(whole=whole, layer=layer, head=head, total=shape.layers * layer + head,
                        waits=sum(times.values()) - sum(work[matrix] for matrix in makers))


def alternatives(config: CardConfig, shape: Shape, options: Options, pattern: Pattern,
                 machine: Machine | None = None) -> list[Estimate]:
    """Estimates of all ways to hold a model on a ring, the fastest first; of equally fast ones
    that with fewer whole matrices.

    Half of the context is in memory: the mean over a text that fills it.
    """
    cached = (options.context or min(shape.context, config.context)) // 2
    model = Model(config, shape, options, pattern, machine or Machine(), cached)
    subsets = itertools.chain.from_iterable(
        itertools.combinations(WHOLE, count) for count in range(len(WHOLE) + 1))
    return sorted((model.estimate(frozenset(subset)) for subset in subsets),
                  key=lambda found: found.total)
