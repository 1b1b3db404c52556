# SPDX-License-Identifier: Apache-2.0
"""Instructions by what they are for: the parts that sections of a program are made of."""

import dataclasses
import math
import struct
from collections.abc import Callable, Sequence

from rtl_gen.spec.config import HEAD
from rtl_gen.spec.isa import Queue, Register
from rtl_gen.spec.rules import Values

from .gather import Complete, Gather
from .layout import Layout
from .program import Builder
from .tiling import Matrix, Piece, Slice

#: Registers of the program: layers left, beats of the weights and of the cache before this layer's,
#: lane row of a position.
LAYERS, WEIGHTS, CACHE, ROW = 7, 8, 9, 13
#: Lane rows and blocks of LEN positions, by sequence.
ROWS, BLOCKS = (10, 24, 25, 26), (11, 27, 28, 29)
#: Position and length, by sequence.
POSITIONS, LENGTHS = (Register.POS, 18, 20, 22), (Register.LEN, 19, 21, 23)
#: Set by the command: passes to the first that computes logits, that one included.
SILENT = 14
#: Pieces of a layer's vectors follow each other much faster than a link carries them: all own ones
#: come before any other.
LAG = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """What the token columns hold in a pass: tokens of one sequence, or one token of each of
    several."""

    tokens: int = 1
    sequences: int = 1

    def __post_init__(self) -> None:
        if self.sequences not in (1, self.tokens):
            raise ValueError(f"sequences must be 1 or {self.tokens}, one a token, "
                             f"not {self.sequences}")

    @property
    def each(self) -> int:
        """Tokens of a sequence."""
        return self.tokens // self.sequences


@dataclasses.dataclass(frozen=True)
class Bases:
    """Exponent bases of quantised vectors, by what they are.

    A slice whose largest element is A gets full precision if A is at least 2^base · Q (Q = 32,639
    with two digits) and is refused (RANGE) above 2^(base + 31) · Q.
    """

    #: The residual stream times gamma: full from 5e-4, up to 1e6.  GPT-2's largest is some
    #: thousands.
    norm: int
    #: Queries, divided by 8, and probabilities times V scales, which share an instruction: full
    #: from 1.2e-7, up to 255.  V scales are 1/Q of the largest value of a head: of 0.004 or more in
    #: full.
    attention: int
    #: What attention gives, averages of values: full from 1.2e-4, up to 2.6e5.
    mixed: int
    #: What GELU gives: full from 5e-4, up to 1e6.
    hidden: int


#: By ``digits``: one digit has 8 bits less, and the same reach.
BASES = (Bases(norm=-18, attention=-30, mixed=-20, hidden=-18),
         Bases(norm=-26, attention=-38, mixed=-28, hidden=-26))


def fp32(value: float) -> int:
    """The bits of an FP32 immediate, rounded to nearest even."""
    return int.from_bytes(struct.pack("<f", value), "little")


def units(layout: Layout) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Registers of what positions are counted in, by sequence, and positions of one."""
    return (ROWS, layout.config.channels), (BLOCKS, layout.config.beat_bytes)


def first_pass(layout: Layout, columns: Columns, positions: Sequence[int], *, slot: int = 0
               ) -> dict[int, int]:
    """Registers that a program's first pass finds; each pass makes those of the next.

    Parameters
    ----------
    positions : sequence of int
        Of every sequence's first token.
    slot : int
        Whose K and V the first sequence has.
    """
    cache = slot * layout.memory.slot
    found = {int(Register.SLOT): cache, CACHE: cache, WEIGHTS: 0, LAYERS: layout.shape.layers}
    for sequence, position in enumerate(positions):
        found |= {int(POSITIONS[sequence]): position, int(LENGTHS[sequence]): position + 1}
        # A sequence's last token attends to so many positions.
        found |= {registers[sequence]: math.ceil((position + columns.each) / unit)
                  for registers, unit in units(layout)}
    return found


class Parts:
    """Emits the instructions of one layout's passes.

    Parameters
    ----------
    builder : Builder
    layout : Layout
    columns : Columns
    probe : bool
        Keep x of every layer.
    """

    def __init__(self, builder: Builder, layout: Layout, columns: Columns, *,
                 probe: bool = False) -> None:
        self.builder, self.layout, self.columns, self._probes = builder, layout, columns, probe
        self.bases = BASES[layout.options.digits]
        #: Fields of instructions that read or write activation planes.
        self.format: Values = {"digits": layout.options.digits,
                               "two_beat": layout.two_beat(columns.tokens)}
        shape = layout.shape
        #: Words of a token's x, of its queries, keys and values, and of its hidden vector.
        self.x, self.qkv, self.hidden = (
            self.words(count) for count in (shape.width, 3 * HEAD * len(layout.heads), shape.inner))

    def matmul(self, name: str, piece: Piece, dst: int, *, dst_stride: int, norm: int = 0,
                gelu: int = 0, residual: int = 0) -> None:
        """One piece of a weight matrix; ``dst`` is the word of its first row."""
        lay, mem, bases = self.layout, self.layout.memory, self.bases
        matrix = lay.matrices[name]
        start, register = (mem.head, Register.ZERO) if name == "head" \
            else (mem.layers + mem.matrices[name], WEIGHTS)
        act, base = {"out": (lay.planes.mixed, bases.mixed),
                     "down": (lay.planes.hidden, bases.hidden)}.get(
                         name, (lay.planes.x, bases.norm))
        fields: Values = {"scale": 1, "norm": norm, "bias": int(matrix.bias), "gelu": gelu,
                          "residual": residual, "dst": dst + piece.row,
                          "dst_stride": dst_stride} if piece.last else {}
        block = piece.beat * matrix.pattern.ratio
        role = self.role(matrix, piece) if name in ("qkv", "head") and not piece.row else None
        self.builder.emit(
            "MATMUL", role, address=start + piece.offset, address_reg=register, rows=piece.rows,
            beats=piece.beats, pattern=matrix.pattern.code, first=int(piece.first),
            last=int(piece.last), acc_row=piece.row if piece.banked else 0, act=act + block,
            exponent=base, columns=self.columns.tokens, **self.format, **fields)

    def quantise(self, part: Slice, source: int, stride: int, act: int, base: int) -> None:
        """One slice of every token's vector; ``stride`` is the words of such a vector."""
        lay = self.layout
        for token in range(self.columns.tokens):
            word = source + token * stride + part.start // lay.config.vector_lanes
            self.builder.emit("QUANT", a=word, words=self.words(part.count), token=token,
                              act=act + part.start // lay.config.beat_bytes, exponent=base,
                              **self.format)

    def quantise_norm(self, part: Slice, which: int) -> None:
        """One slice of gamma · x, with its statistics."""
        lay = self.layout
        number, word = lay.vectors["x"].index(part), part.start // lay.config.vector_lanes
        for token in range(self.columns.tokens):
            # Whoever waits for a slice waits for its last token.
            role = None if which or token < self.columns.tokens - 1 else f"slice {number}"
            self.builder.emit(
                "QUANT", role, a=lay.scratch.x + token * self.x + word, gamma=1,
                words=self.words(part.count), b=lay.scratch.gamma[which] + word, token=token,
                act=lay.planes.x + part.start // lay.config.beat_bytes, exponent=self.bases.norm,
                stats=1, word=word, **self.format)

    def norm(self, which: int) -> None:
        """Mean and deviation of every token's x."""
        shape = self.layout.shape
        for token in range(self.columns.tokens):
            role = None if which or token < self.columns.tokens - 1 else "norm"
            self.builder.emit(
                "NORM", role, words=self.x, set=which, token=token,
                inv=fp32(1 / shape.width), eps=fp32(shape.epsilon))

    def probe(self, which: int) -> None:
        """Keep x of the last token for somebody to look at, by the layers that are left."""
        if not self._probes:
            return
        memory = self.layout.memory
        # The quantiser has awaited all that brought these words.
        self.builder.after(Queue.VECTOR)
        self.builder.emit(
            "STORE", address=memory.probes + which * memory.vector, index_reg=LAYERS,
            stride=2 * memory.vector, words=self.x,
            src=self.layout.scratch.x + (self.columns.tokens - 1) * self.x)

    def load(self, dst: int, address: int, **fields: int) -> None:
        """Load one vector of the model's width, or several that lie one after another."""
        self.builder.emit("LOAD", address=address, words=self.x, dst=dst, **{"rows": 1, **fields})

    def load_scales(self, cache: int, sequences: range) -> None:
        """Load the scales of a layer's positions, of some sequences; ``cache`` is the layer's part,
        less CACHE.

        A row that begins with a new position is loaded for nothing: what it holds is replaced.
        """
        memory, heads = self.layout.memory, len(self.layout.heads)
        for sequence in sequences:
            self.builder.emit(
                "LOAD", "scales" if sequence == self.columns.sequences - 1 else None,
                address=cache + memory.scales + sequence * memory.slot, address_reg=CACHE,
                rows_reg=ROWS[sequence], words=heads, target=1, dst=self.scales(sequence))

    def scales(self, sequence: int) -> int:
        """First entry of a sequence in the memory of scales."""
        return sequence * self.layout.rows * len(self.layout.heads)

    @staticmethod
    def role(matrix: Matrix, piece: Piece) -> str:
        """What waits for one chunk of the norm across the loop's jump, in whatever section."""
        return f"chunk {piece.beat * matrix.pattern.ratio}"

    def inputs(self, piece: Piece) -> tuple[int, int]:
        """First input of a piece of a layer's matrix, and first one behind it."""
        per_beat = self.layout.pattern.ratio * self.layout.config.beat_bytes
        return piece.beat * per_beat, (piece.beat + piece.beats) * per_beat

    def gather(self, matrix: str, first: int, stride: int, arrived: Callable[[range], None]
               ) -> Gather:
        """The all-gather of the vector that a matrix makes; ``first`` is its first scratchpad
        word."""
        card, pieces = self.layout.ring(matrix)
        return Gather(self.builder, card, pieces, address=lambda word: first + word,
                      stride=stride, columns=self.columns.tokens, lag=LAG, arrived=arrived)

    def slices(self, name: str) -> Complete:
        """Which of a vector's slices are complete."""
        lanes = self.layout.config.vector_lanes
        return Complete([range(part.start // lanes, self.words(part.stop))
                         for part in self.layout.vectors[name]])

    def words(self, elements: int) -> int:
        """Scratchpad words of so many elements."""
        return math.ceil(elements / self.layout.config.vector_lanes)

    def beats(self, words: int) -> int:
        """Beats of so many words of a lane."""
        return math.ceil(4 * words / self.layout.config.beat_bytes)
