# SPDX-License-Identifier: Apache-2.0
"""Where everything of a model lies: on the card and in its memory."""

import dataclasses
import functools
import math

from rtl_gen.spec import registers
from rtl_gen.spec.config import HEAD, SLICE_BLOCKS, CardConfig
from rtl_gen.spec.formats import DENSE, Pattern, stored_as
from rtl_gen.spec.isa import WORD_BYTES

from .errors import UserError
from .options import Options
from .prune import pattern_of
from .shape import Shape
from .tiling import Matrix, Slice, blocks, chunk_ends, coverage, slices, tile

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
    """The layout of one model on one configuration.

    Attributes
    ----------
    config, shape, options
        What it was made for.
    pattern : Pattern
        How the layers' matrices are stored.
    pruning : (int, int)
        N and M that their weights obey.
    context : int
        Longest context.
    matrices : dict
        ``qkv``, ``out``, ``up``, ``down`` of every layer, and ``head``.
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
                 pruning: tuple[int, int] = (1, 1)) -> None:
        self.config, self.shape, self.options, self.pruning = config, shape, options, pruning
        n, m = pruning
        self.pattern: Pattern = DENSE if m == 1 else stored_as(n, m)
        self.context = self._context()
        self._refuse()
        self.tokens = self._tokens()
        cover, most = coverage(self.pattern, config), SLICE_BLOCKS * config.beat_bytes
        # Products that follow x wait for all its slices, which take an instruction a token each;
        # those of the others are made while more of the vector comes.
        self.vectors = {name: slices(width, cover, most, parts) for name, width, parts in (
            ("x", shape.width, 4), ("mixed", shape.width, 8), ("hidden", shape.inner, 8))}
        self.scratch = self._scratch(self.tokens)
        self.matrices = self._matrices()
        self.sequences, self.planes, self.memory = self._fit()

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
                ("heads", shape.heads, config.heads),
                ("kv_scales", self.rows * shape.heads, config.kv_scales)):
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
                if sequences > 1 and sequences * self.rows * self.shape.heads \
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
            space.take(tokens * words) for words in (width, width, width, 3 * width, hidden))
        first, second = space.take(width), space.take(width)
        rows = min(LOGIT_ROWS, self._words(self.shape.vocabulary))
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
            queries=space.take(sequences * self.shape.heads * HEAD // size),
            probabilities=tuple(space.take(scores) for _ in range(results)))
        space.limit(self.config.plane_blocks, f"plane_windows of {self.config.name}", unit=4)
        return planes

    def _matrices(self) -> dict[str, Matrix]:
        config, shape, bank = self.config, self.shape, self.value_bank
        lanes = config.channels
        width, hidden = self._words(shape.width), self._words(shape.inner)

        def marks(parts: list[Slice]) -> list[int]:
            return [math.ceil(part.stop / lanes) for part in parts]

        x_ends = chunk_ends(self.vectors["x"], self.pattern, config)
        of_layer = functools.partial(tile, config, pattern=self.pattern, bank=bank)
        return {
            # Half of the rows is enough to hide the norm; the others feed attention meanwhile.
            "qkv": of_layer(outputs=3 * shape.width, inputs=shape.width, norm=True, bias=True,
                        ends=x_ends, chunked=-(-3 * width // 2),
                        cuts=range(0, 3 * width, 3 * config.head_words)),
            "out": of_layer(outputs=shape.width, inputs=shape.width, norm=False, bias=True,
                        ends=chunk_ends(self.vectors["mixed"], self.pattern, config),
                        chunked=width, cuts=marks(self.vectors["x"])),
            "up": of_layer(outputs=shape.inner, inputs=shape.width, norm=True, bias=True,
                       ends=x_ends, chunked=-(-hidden // 2), cuts=marks(self.vectors["hidden"])),
            "down": of_layer(outputs=shape.width, inputs=shape.inner, norm=False, bias=True,
                         ends=chunk_ends(self.vectors["hidden"], self.pattern, config),
                         chunked=width, cuts=marks(self.vectors["x"])),
            "head": tile(config, outputs=shape.vocabulary, inputs=shape.width, pattern=DENSE,
                         norm=True, bias=True, ends=x_ends, bank=bank,
                         chunked=self.scratch.logit_words,
                         cuts=blocks(self._words(shape.vocabulary), self.scratch.logit_words)),
        }

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
        scale_row = self._beats(4 * shape.heads)
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
        keys, values = (inside.take(shape.heads * stride) for stride in strides)
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


def choose_pattern(options: Options, noted: str | None) -> tuple[int, int]:
    """(N, M) to store weights in: what the user wants, else what the model says, else dense."""
    return pattern_of(options.pattern or noted or "dense")
