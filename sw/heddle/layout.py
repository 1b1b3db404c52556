# SPDX-License-Identifier: Apache-2.0
"""Where everything of a model lies: on the card and in its memory."""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

from rtl_gen.spec import registers
from rtl_gen.spec.config import HEAD, CardConfig
from rtl_gen.spec.formats import DENSE, Pattern, stored_as
from rtl_gen.spec.isa import WORD_BYTES

from .choose import Machine, alternatives
from .errors import UserError
from .options import Options
from .partition import MESSAGE, VECTORS, Partition, arrival, cut, partition
from .prune import pattern_of
from .shape import Shape
from .tiling import Matrix, Slice, chunks, chunks_by, coverage, tile, vector_slices

#: Blocks of logits at a time, at most.
LOGIT_BLOCKS = 8
#: Lane rows of one block of logits: the fewer, the sooner is the last one looked through.
LOGIT_ROWS = 32
#: Softmax results that a card keeps: those of `dest` and `divide` of a MATMUL.
SOFTMAX_RESULTS = 8
#: Inputs of one product for which its accumulator cannot overflow.
_LONGEST = 8192


class Space:
    """Hands out addresses one after another."""

    def __init__(self) -> None:
        self.used = 0

    def take(self, count: int, align: int = 1) -> int:
        """The first address of ``count``."""
        start = -(-self.used // align) * align
        self.used = start + count
        return start

    def limit(self, capacity: int, what: str, *, unit: int = 1) -> None:
        """:class:`UserError` if more was handed out than there is, told in multiples of
        ``unit``."""
        if self.used > capacity:
            raise UserError(f"{what} must be at least {-(-self.used // unit)} for this model, "
                            f"not {capacity // unit}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scratch:
    """First scratchpad words; tokens of a pass lie one after another."""

    x: int
    position: int
    qkv: int
    mixed: int
    hidden: int
    gamma: tuple[int, int]
    logits: tuple[int, ...]
    #: Words of one of the blocks of logits, of one token.
    logit_words: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planes:
    """First plane blocks."""

    x: int
    mixed: int
    hidden: int
    #: Of all heads of the first sequence, then of the second.
    queries: int
    #: By softmax result.
    probabilities: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Beat addresses, the same in every channel; those of a layer from its first beat on."""

    command: int
    status: int
    program: int
    tokens: int
    results: int
    embedding: int
    positions: int
    logits: int
    #: Two vectors for every number of layers left, from 0.
    probes: int
    layers: int
    layer_stride: int
    #: Within a layer: gamma of the first and second norm, then the matrices by name.
    gamma: tuple[int, int]
    matrices: dict[str, int]
    head: int
    cache: int
    cache_stride: int
    #: Beats from one sequence's cache to the next one's.
    slot: int
    #: Within a layer's part of the cache.
    scales: int
    keys: int
    values: int
    #: Beats of one head's keys, and of its values.
    head_stride: tuple[int, int]
    #: Beats of one FP32 vector of the model's width.
    vector: int
    #: Beats of one row of scales, and of one row of logits.
    scale_row: int
    row: int
    #: Beats in use.
    used: int


class Layout:
    """The layout of one model on one card of one configuration.

    Attributes
    ----------
    config, shape, options
        What it was made for.
    card : int
        Its number in the ring.
    parts : Partition
        What each card holds.
    pattern : Pattern
        How the layers' matrices are stored.
    pruning : (int, int)
        N and M that their weights obey.
    context : int
        Longest context.
    matrices : dict
        ``qkv``, ``out``, ``up``, ``down`` of every layer, and ``head``: this card's rows.
    rows_of : dict
        Lane rows of the whole matrix that these are, in order.
    vectors : dict
        Slices of ``x``, ``mixed`` and ``hidden``.
    scratch, planes, memory
        Addresses.
    tokens : int
        Most tokens that one pass can take: what the columns hold, less where they do not fit the
        card.
    sequences : int
        Most sequences of a batch, for which memory has a cache each; a power of two, as ``tokens``.
    """

    def __init__(self, config: CardConfig, shape: Shape, options: Options,
                 pruning: tuple[int, int] = (1, 1), card: int = 0,
                 whole: frozenset[str] = frozenset()) -> None:
        self.config, self.shape, self.options, self.pruning = config, shape, options, pruning
        self.card = card
        self.logit_words = min(LOGIT_ROWS, self._words(shape.vocabulary))
        self.parts: Partition = partition(config, shape, self.logit_words, whole)
        n, m = pruning
        self.pattern: Pattern = DENSE if m == 1 else stored_as(n, m)
        self.context = self._context()
        self._refuse()
        self.tokens = self._tokens()
        self.vectors = vector_slices(shape.width, shape.inner, coverage(self.pattern, config),
                                     config)
        self.scratch = self._scratch(self.tokens)
        self.rows_of = self._rows_of()
        self.matrices = self._matrices()
        self.sequences, self.planes, self.memory = self._fit()

    @property
    def heads(self) -> range:
        """This card's heads; instructions number them from 0."""
        return self.parts.heads[self.card]

    @property
    def rows(self) -> int:
        """Lane rows of the longest context."""
        return math.ceil(self.context / self.config.channels)

    @property
    def value_bank(self) -> int:
        """First accumulator row of products with V; those before are for chunks."""
        return self.config.acc_rows - self.config.head_words

    def _context(self) -> int:
        wanted = self.options.context
        if wanted is None:
            return min(self.shape.context, self.config.context)
        for what, limit in (("the model's", self.shape.context),
                            (f"the context of {self.config.name},", self.config.context)):
            if wanted > limit:
                raise UserError(f"context must be at most {what} {limit}, not {wanted}")
        return wanted

    def _refuse(self) -> None:
        config, shape = self.config, self.shape
        for name, need, have in (
                ("tokens (columns)", 1 << self.options.digits, config.tokens),
                ("heads", len(self.heads), config.heads),
                ("kv_scales", self.rows * len(self.heads), config.kv_scales)):
            if need > have:
                raise UserError(f"{name} of {config.name} must be at least {need} for this model, "
                                f"not {have}")
        for name in ("width", "inner"):
            if getattr(shape, name) > _LONGEST:
                raise UserError(f"{name} must be at most {_LONGEST}, not {getattr(shape, name)}")
        if shape.vocabulary >= 1 << 20:
            raise UserError(f"vocabulary must be below {1 << 20}, not {shape.vocabulary}")
        if self.pattern.m > 1 and self.pattern.m not in config.group_sizes:
            built = ", ".join(map(str, config.group_sizes))
            raise UserError(f"M of the pattern must be one of {built} on {config.name}, "
                            f"not {self.pattern.m}")

    def _words(self, elements: int) -> int:
        return math.ceil(elements / self.config.vector_lanes)

    def two_beat(self, tokens: int) -> int:
        """The field of instructions on weights, for so many tokens a pass."""
        return int(tokens << self.options.digits << 1 <= self.config.tokens)

    def attention_two_beat(self, tokens: int) -> int:
        """That of instructions on K and V: values come beat by beat, so that only their two digits
        can share a cycle."""
        return self.two_beat(tokens) & self.options.wide

    def _tokens(self) -> int:
        """The most tokens of a pass for which there is room."""
        tokens = self.config.tokens >> self.options.digits
        while tokens > 1:
            try:
                self._scratch(tokens)
            except UserError:
                tokens >>= 1
                continue
            if 2 * tokens < self.context:
                break
            tokens >>= 1
        return tokens

    def _fit(self) -> tuple[int, Planes, Memory]:
        """The most sequences for which there is room, and where all lies then."""
        sequences = self.tokens
        while True:
            try:
                if sequences > 1 and sequences * self.rows * len(self.heads) \
                        > self.config.kv_scales:
                    raise UserError("kv_scales")
                return sequences, self._most_planes(sequences), self._memory(sequences)
            except UserError:
                if sequences == 1:
                    raise
                sequences >>= 1

    def _scratch(self, tokens: int) -> Scratch:
        space = Space()
        width, hidden = self._words(self.shape.width), self._words(self.shape.inner)
        x, position, mixed, qkv, inner = (
            space.take(tokens * words)
            for words in (width, width, width, 3 * len(self.heads) * self.config.head_words,
                          hidden))
        first, second = space.take(width), space.take(width)
        rows = self.logit_words
        # The first blocks of a row are looked through more slowly than they come: almost all of
        # their logits enter the list.  Others wait meanwhile, as many as there is room for.
        logits = [space.take(tokens * rows) for _ in range(2)]
        space.limit(self.config.scratch_words, f"scratch_words of {self.config.name}")
        more = (self.config.scratch_words - space.used) // (tokens * rows)
        logits += [space.take(tokens * rows) for _ in range(min(LOGIT_BLOCKS - 2, more))]
        return Scratch(x=x, position=position, qkv=qkv, mixed=mixed, hidden=inner,
                       gamma=(first, second), logits=tuple(logits), logit_words=rows)

    def _most_planes(self, sequences: int) -> Planes:
        """With all softmax results if they fit, else two for each sequence, which take turns."""
        try:
            return self._planes(sequences, SOFTMAX_RESULTS)
        except UserError:
            return self._planes(sequences, 2 * sequences)

    def _planes(self, sequences: int, results: int) -> Planes:
        space, size = Space(), self.config.beat_bytes

        def take(elements: int) -> int:
            # The last beat of a sparse row reaches beyond the vector; windows are four blocks.
            ratio = self.pattern.ratio
            return space.take(math.ceil(elements / (size * ratio)) * ratio, 4)

        scores = math.ceil(self.rows * self.config.channels / size)
        planes = Planes(
            x=take(self.shape.width), mixed=take(self.shape.width), hidden=take(self.shape.inner),
            queries=space.take(sequences * len(self.heads) * HEAD // size),
            probabilities=tuple(space.take(scores) for _ in range(results)))
        space.limit(self.config.plane_blocks, f"plane_windows of {self.config.name}", unit=4)
        return planes

    def _rows_of(self) -> dict[str, list[int]]:
        parts, per_head = self.parts, 3 * self.config.head_words
        return {"qkv": list(range(per_head * self.heads.start, per_head * self.heads.stop)),
                **{name: list(getattr(parts, name)[self.card]) for name in ("out", "up", "down")},
                "head": [row for block in parts.logits[self.card] for row in block]}

    def pieces(self, matrix: str, card: int) -> list[range]:
        """Words of a vector that a card computes with a matrix of a layer, or with attention after
        ``qkv``, in the pieces in which it sends them."""
        size, head = self.config.vector_lanes, self.config.head_words
        ends = {part.stop // size for part in self.vectors[VECTORS[matrix]]}
        if matrix == "qkv":
            heads = self.parts.heads[card]
            return [range(k * head, (k + 1) * head) for k in heads]
        return cut(getattr(self.parts, matrix)[card], ends, MESSAGE[VECTORS[matrix]])

    def ring(self, matrix: str) -> tuple[int, Sequence[Sequence[range]]]:
        """This card's place among those that gather what a matrix makes, and their pieces; it is
        alone where all cards make all of it."""
        parts = self.parts
        pieces = parts.logits if matrix == "head" else [
            self.pieces(matrix, card) for card in range(parts.cards)]
        return (self.card, pieces) if parts.gathered(matrix) else (0, [pieces[self.card]])

    def order(self, matrix: str) -> list[int]:
        """Numbers of the slices of what a matrix makes, in the order in which this card has them.
        """
        return arrival(*self.ring(matrix), self.vectors[VECTORS[matrix]], self.config.vector_lanes)

    def _matrices(self) -> dict[str, Matrix]:
        config, shape, bank = self.config, self.shape, self.value_bank
        parts, card, lanes = self.parts, self.card, config.channels

        def outputs(name: str, total: int) -> int:
            return sum(min(lanes, total - row * lanes) for row in self.rows_of[name])

        def marks(name: str) -> list[int]:
            pieces = self.pieces(name, card)
            own = [piece.stop for piece in pieces]
            if not parts.gathered(name):
                own = [math.ceil(part.stop / lanes) for part in self.vectors[VECTORS[name]]]
            return [stop - (pieces[0].start if pieces else 0) for stop in own]

        def in_order(maker: str) -> list[Slice]:
            """Chunks of the vector that a matrix makes."""
            slices = self.vectors[VECTORS[maker]]
            if not parts.gathered(maker):
                return chunks(slices, self.pattern, config)
            turns = self.order(maker)
            ranks = [turns.index(number) for number in range(len(slices))]
            return chunks_by(ranks, slices, self.pattern, config)

        head = config.head_words
        x = in_order("down")
        of_layer = functools.partial(tile, config, pattern=self.pattern, bank=bank)
        rows = {name: len(found) for name, found in self.rows_of.items()}
        return {
            "qkv": of_layer(outputs=outputs("qkv", 3 * shape.width), inputs=shape.width, norm=True,
                        bias=True, chunks=x, chunked=self._early(rows["qkv"], "down"),
                        cuts=range(0, rows["qkv"], 3 * head)),
            "out": of_layer(outputs=outputs("out", shape.width), inputs=shape.width, norm=False,
                        bias=True, chunks=in_order("qkv"), chunked=rows["out"],
                        cuts=marks("out")),
            "up": of_layer(outputs=outputs("up", shape.inner), inputs=shape.width, norm=True,
                       bias=True, chunks=in_order("out"),
                       chunked=self._early(rows["up"], "out"), cuts=marks("up")),
            "down": of_layer(outputs=outputs("down", shape.width), inputs=shape.inner, norm=False,
                         bias=True, chunks=in_order("up"), chunked=rows["down"],
                         cuts=marks("down")),
            "head": tile(config, outputs=outputs("head", shape.vocabulary), inputs=shape.width,
                         pattern=DENSE, norm=True, bias=True, chunks=x, bank=bank,
                         chunked=self.logit_words,
                         cuts=itertools.accumulate(map(len, parts.logits[card]))),
        }

    def _early(self, rows: int, maker: str) -> int:
        """Rows of a product that follows a norm for which it starts early.

        Half of them are enough to hide the norm; the others are in memory's stream just before what
        uses them.  Where slices come from other cards all that can be done before the last ones
        come is; ``maker`` is the matrix that gives x.
        """
        return rows if self.parts.gathered(maker) else -(-rows // 2)

    def _beats(self, size: int) -> int:
        return math.ceil(size / self.config.beat_bytes)

    def result_beats(self, candidates: int) -> int:
        """Beats of one result record."""
        return self._beats(4 * (len(registers.RESULT) + 2 * candidates))

    def _memory(self, sequences: int) -> Memory:
        config, shape = self.config, self.shape
        space = Space()
        take = space.take
        vector = self._beats(4 * self._words(shape.width))
        heads = len(self.heads)
        scale_row = self._beats(4 * heads)
        command, status = (take(self._beats(4 * len(record)))
                           for record in (registers.COMMAND, registers.STATUS))
        program = take(self._beats(WORD_BYTES * config.program_words))
        tokens = take(self._beats(4 * config.context))
        results = take(self.context * self.result_beats(config.top_k))
        embedding, positions = take(shape.vocabulary * vector), take(self.context * vector)
        row = self._beats(4 * self._words(shape.vocabulary))
        logits = take(sequences * row)
        probes = take(2 * (shape.layers + 1) * vector)

        inside = Space()
        gamma, places = [inside.take(vector)], {}
        for name in ("qkv", "out", "up", "down"):
            if name == "up":
                gamma.append(inside.take(vector))
            places[name] = inside.take(self.matrices[name].beats)
        stride = inside.used
        # The last norm's gamma lies where that of one more layer would.
        layers = take(shape.layers * stride + vector)
        head = take(self.matrices["head"].beats)

        inside = Space()
        digits = 1 + self.options.wide
        strides = (self.rows * config.head_beats * digits,
                   math.ceil(self.context / config.beat_bytes) * config.head_words * digits)
        scales = inside.take(self.rows * scale_row)
        keys, values = (inside.take(heads * stride) for stride in strides)
        cache_stride = inside.used
        # The scales of the layer after the last are loaded too, and never used.
        slot = shape.layers * cache_stride + self.rows * scale_row
        cache = take(sequences * slot)
        space.limit(config.channel_beats, f"MB of each of the {config.channels} HBM channels of "
                    f"{config.name}", unit=(1 << 20) // config.beat_bytes)
        return Memory(
            command=command, status=status, program=program, tokens=tokens, results=results,
            embedding=embedding, positions=positions, logits=logits, probes=probes, layers=layers,
            layer_stride=stride, gamma=(gamma[0], gamma[1]), matrices=places, head=head,
            cache=cache, cache_stride=cache_stride, scales=scales, keys=keys, values=values,
            head_stride=strides, vector=vector, scale_row=scale_row,
            slot=slot, row=row, used=space.used)


def layouts(config: CardConfig, shape: Shape, options: Options,
            pruning: tuple[int, int] = (1, 1), machine: Machine | None = None) -> list[Layout]:
    """The layouts of a model on all cards of a ring, by card; ``machine`` has the rates that a
    choice of the layout depends on.

    Raises
    ------
    UserError
        The model does not fit the cards; or matrices are to be whole where there is one card.
    """
    def placed(whole: frozenset[str]) -> list[Layout]:
        return [Layout(config, shape, options, pruning, card, whole)
                for card in range(config.cards)]

    if config.cards == 1 and options.whole:
        raise UserError(f"split must be auto or outputs on one card, which has everything, not "
                        f"{options.split}")
    if config.cards == 1 or options.whole is not None:
        return placed(options.whole or frozenset())
    first, failure = [], None
    try:
        first = placed(frozenset())
    except UserError as error:      # a vocabulary may be too short to be split
        failure = error
    pattern = DENSE if pruning[1] == 1 else stored_as(*pruning)
    for found in alternatives(config, shape, options, pattern, machine):
        if first and not found.whole:
            break
        with contextlib.suppress(UserError):
            other = placed(found.whole)
            # Not at the price of fewer tokens of a pass, or of a smaller batch.
            if not first or (other[0].tokens, other[0].sequences) >= (
                    first[0].tokens, first[0].sequences):
                return other
    if failure is not None:
        raise failure
    return first


def choose_pattern(options: Options, noted: str | None) -> tuple[int, int]:
    """(N, M) to store weights in: what the user wants, else what the model says, else dense."""
    return pattern_of(options.pattern or noted or "dense")
