# SPDX-License-Identifier: Apache-2.0
"""The program of a pass: some tokens of one sequence in, one token out, for any context length.

A decode step is a pass of one token; a prompt is read by passes of several.  A pass has three
sections: the embedding and the first norm; one layer, which a loop repeats; the
LM head, or a short end instead of it where nobody wants the logits.  A layer ends with the norm of
the layer after it (after the last layer: the norm before the LM head), so that a product and the
norm that feeds it lie on two sides of the loop's jump alike for every layer.

Instructions are written in an order in which results are there when they are wanted: heads take
turns in queries, keys and values (head h), scores (head h - 2) and values (head h - 3), and the
output projection begins while the last heads are still busy.  The builder adds the waits.
"""

import dataclasses
import math
import struct
from collections.abc import Callable, Iterator

from rtl_gen.spec.config import HEAD
from rtl_gen.spec.formats import DENSE
from rtl_gen.spec.isa import Register, ScalarFn, VectorFn
from rtl_gen.spec.rules import Values

from .layout import Layout
from .program import Builder, Program
from .tiling import Matrix, Piece, Slice

#: Registers of the program: layers left, beats of the weights and of the cache before this layer's,
#: lane rows and blocks of LEN positions, lane rows of POS positions, lane row of POS.
LAYERS, WEIGHTS, CACHE, ROWS, BLOCKS, OLD_ROWS, ROW = range(7, 14)
#: Set by the command: passes to the first that computes logits, that one included.
SILENT = 14

#: Head h's scores follow its queries, keys and values by so many heads; values follow one later.
_LAG = 2


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


class Compiler:
    """Writes the program of one layout's passes.

    Parameters
    ----------
    layout : Layout
    tokens : int
        Tokens of a pass; logits are those of the last one.  With several, the command must give
        all tokens that its passes take.
    candidates : int
        Best tokens, with their logits, that every result record holds.
    store_logits : bool
        Write every step's logits to memory as well.
    probe : bool
        Write x after attention and after the MLP of every layer to memory, and the logits.
    """

    def __init__(self, layout: Layout, *, tokens: int = 1, candidates: int = 0,
                 store_logits: bool = False, probe: bool = False) -> None:
        self.layout, self._tokens, self._candidates = layout, tokens, candidates
        self._store, self._probes = store_logits or probe, probe
        self._b = Builder(layout.config)
        self._bases = BASES[layout.options.digits]
        self._columns: Values = {"digits": layout.options.digits,
                                 "two_beat": layout.two_beat(tokens)}
        self._attention: Values = {**self._columns,
                                   "two_beat": layout.attention_two_beat(tokens)}
        shape = layout.shape
        #: Words of a token's x, of its queries, keys and values, and of its hidden vector.
        self._x, self._qkv, self._hidden = (
            self._words(count) for count in (shape.width, 3 * shape.width, shape.inner))

    def program(self) -> Program:
        """The program, ordered."""
        self._b.note("decode step" if self._tokens == 1 else f"pass of {self._tokens} tokens")
        start = self._b.section()
        self._embed()
        self._b.note("layer")
        body = self._b.section()
        self._layer()
        self._b.emit("LOOP", rd=LAYERS, target=body)
        choice = len(self._b)
        self._b.emit("LOOP", rd=SILENT)
        self._b.note("LM head")
        self._b.section()
        # All later steps compute logits as well.
        self._b.emit("ADDI", rd=SILENT, rs=Register.ZERO, imm=1)
        self._advance()
        self._head()
        self._b.emit("NEXT", target=start)
        self._b.emit("HALT")
        self._b.note("end of a step without logits")
        self._b.patch(choice, target=self._b.section())
        self._advance()
        self._silence()
        self._b.emit("NEXT", target=start)
        self._b.emit("HALT")
        # Two passes that end in the last lane row reach all that others reach.  Their tokens may
        # lie in one row or in two; a position that is not the first of its row finds scales of that
        # row in memory too.
        end = self.layout.rows * self.layout.config.channels - 2 * self._tokens
        starts = [max(0, end - shift) for shift in range(1, self._tokens + 1)]
        return self._b.finish(*({
            Register.POS: position, Register.LEN: position + 1, Register.LEFT: 2, SILENT: 2}
            for position in starts), given=[0] * 2 * self._tokens)

    def _advance(self) -> None:
        """Go on to the last token of the pass."""
        for register in (Register.STEP, Register.POS, Register.LEN) if self._tokens > 1 else ():
            self._b.emit("ADDI", rd=register, rs=register, imm=self._tokens - 1)

    # ---- Sections ----

    def _embed(self) -> None:
        b, lay, mem = self._b, self.layout, self.layout.memory
        lanes, block = lay.config.channels, lay.config.beat_bytes
        # The last token attends to LEN + tokens - 1 positions.
        for register, source, unit in ((ROWS, Register.LEN, lanes), (BLOCKS, Register.LEN, block),
                                       (OLD_ROWS, Register.POS, lanes)):
            more = self._tokens - 1 if source == Register.LEN else 0
            b.emit("ADDI", rd=register, rs=source, imm=unit - 1 + more)
            b.emit("SHRI", rd=register, rs=register, imm=unit.bit_length() - 1)
        b.emit("ADDI", rd=WEIGHTS, rs=Register.ZERO, imm=0)
        b.emit("ADDI", rd=CACHE, rs=Register.ZERO, imm=0)
        b.passes(LAYERS, lay.shape.layers)
        # All of the pass's reads of the cache come after this fence; the pass before has ended.
        for token in range(self._tokens):
            if self._tokens > 1:
                b.emit("GIVEN", rd=Register.TOKEN, rs=Register.STEP, imm=token)
            self._load(lay.scratch.x + token * self._x, mem.embedding, index_reg=Register.TOKEN,
                       stride=mem.vector, fence=int(token == 0))
        self._load(lay.scratch.position, mem.positions, index_reg=Register.POS, stride=mem.vector,
                   rows=self._tokens)
        self._load(lay.scratch.gamma[0], mem.layers + mem.gamma[0])
        self._load_scales(mem.cache)
        b.emit("VECTOR", fn=VectorFn.ADD, dst=lay.scratch.x, a=lay.scratch.x,
               b=lay.scratch.position, words=self._tokens * self._x)
        for part in lay.vectors["x"]:
            self._quantise_norm(part, 0)
        self._norm(0)

    def _layer(self) -> None:
        lay, mem = self.layout, self.layout.memory
        self._b.note("attention")
        out = self._attend()
        self._b.note("output projection")
        # Scales of the next layer: this one's are used up, and the MLP gives time to load.
        self._finish("out", out, norm=1,
                     before_last=lambda: self._load_scales(mem.cache + mem.cache_stride))
        self._norm(1)
        self._probe(0)
        self._b.note("MLP")
        up = lay.matrices["up"]
        hidden = list(lay.vectors["hidden"])
        for piece in up.pieces:
            self._matmul("up", piece, lay.scratch.hidden, norm=2, gelu=lay.shape.gelu,
                         dst_stride=self._hidden)
            if piece.last:
                while hidden and hidden[0].stop <= (piece.row + piece.rows) * lay.config.channels:
                    self._quantise(hidden.pop(0), lay.scratch.hidden, self._hidden,
                                   lay.planes.hidden, self._bases.hidden)
        self._finish("down", iter(lay.matrices["down"].pieces), norm=0)
        self._norm(0)
        self._probe(1)
        for register, stride in ((WEIGHTS, mem.layer_stride), (CACHE, mem.cache_stride)):
            self._b.emit("ADDI", rd=register, rs=register, imm=stride)

    def _head(self) -> None:
        lay, mem = self.layout, self.layout.memory
        matrix, size = lay.matrices["head"], lay.scratch.logit_words
        lanes, vocabulary = lay.config.channels, lay.shape.vocabulary
        for piece in matrix.pieces:
            block = piece.row // size
            buffer = lay.scratch.logits[block % 2]
            self._matmul("head", piece, buffer - block * size, norm=1, dst_stride=size)
            first, end, last = block * size, piece.row + piece.rows, piece is matrix.pieces[-1]
            if not piece.last or (end % size and not last):
                continue
            count = min(end * lanes, vocabulary) - first * lanes
            buffer += (self._tokens - 1) * size
            self._b.emit("SAMPLE", None if block else "scales used", a=buffer, words=end - first,
                         count=count, token=first * lanes, first=int(not block), last=int(last),
                         k=self._candidates if last else 0, columns=1)
            if self._store:
                self._b.emit("STORE", address=mem.logits + self._beats(first), words=end - first,
                             src=buffer)

    def _silence(self) -> None:
        """Take the signals that the LM head would have waited for."""
        # The vector unit gets here when everything before is done: only then may control take
        # signals that matmuls wait for, or it would take those of an earlier layer.
        self._b.emit("SCALAR", "scales used", fn=ScalarFn.SET)
        self._probe(0)
        self._b.settle()
        for piece in self.layout.matrices["head"].pieces:
            if not piece.row:
                self._b.emit("NOP", self._role(self.layout.matrices["head"], piece))

    @staticmethod
    def _role(matrix: Matrix, piece: Piece) -> str:
        """What waits for one chunk of the norm across the loop's jump, in whatever section."""
        return f"chunk {piece.beat * matrix.pattern.ratio}"

    # ---- Attention ----

    def _attend(self) -> Iterator[Piece]:
        """Queries, keys and values, scores, values; returns the pieces of the output projection
        left."""
        lay = self.layout
        heads, pieces = lay.shape.heads, list(lay.matrices["qkv"].pieces)
        mixed, out = list(lay.vectors["mixed"]), iter(lay.matrices["out"].pieces)
        waiting = [piece for piece in lay.matrices["out"].pieces if not piece.last]
        per_head = 3 * lay.config.head_words
        for turn in range(heads + _LAG + 1):
            while pieces and pieces[0].row < (turn + 1) * per_head:
                self._matmul("qkv", pieces.pop(0), lay.scratch.qkv, norm=1, dst_stride=self._qkv)
            if turn < heads:
                self._head_inputs(turn)
            if turn == 0:
                # The gammas' buffers are free: their last readers are before head 0's in their
                # queue.
                self._load(lay.scratch.gamma[1], lay.memory.layers + lay.memory.gamma[1],
                           address_reg=WEIGHTS)
                self._load(lay.scratch.gamma[0], lay.memory.layers + lay.memory.layer_stride
                           + lay.memory.gamma[0], address_reg=WEIGHTS)
            # Chunks of the output projection whose heads were ready a turn ago.
            done = max(0, turn - _LAG - 1) * HEAD
            while waiting and self._stop(waiting[0]) <= done and turn >= heads:
                self._matmul("out", waiting.pop(0), lay.scratch.x, dst_stride=self._x)
                next(out)
            if 0 <= turn - _LAG < heads:
                self._scores(turn - _LAG)
            if 0 <= turn - _LAG - 1 < heads:
                self._values(turn - _LAG - 1)
                while mixed and mixed[0].stop <= (turn - _LAG) * HEAD:
                    self._quantise(mixed.pop(0), lay.scratch.mixed, self._x, lay.planes.mixed,
                                   self._bases.mixed)
        self._store_scales()
        return out

    def _store_scales(self) -> None:
        """Scales of the pass's positions, one after another."""
        memory, rows = self.layout.memory, self.layout.config.channels.bit_length() - 1
        for token in range(self._tokens):
            if token:
                self._b.emit("ADDI", rd=Register.POS, rs=Register.POS, imm=1)
            self._b.emit("SHRI", rd=ROW, rs=Register.POS, imm=rows)
            self._b.emit("STORE", source=1, address=memory.cache + memory.scales,
                         address_reg=CACHE, index_reg=ROW, stride=memory.scale_row,
                         words=self.layout.shape.heads, src=0)
        if self._tokens > 1:
            self._b.emit("ADDI", rd=Register.POS, rs=Register.POS, imm=1 - self._tokens)

    def _head_inputs(self, head: int) -> None:
        """Quantise a head's query, key and value."""
        lay, words = self.layout, self.layout.config.head_words
        for token in range(self._tokens):
            base = lay.scratch.qkv + token * self._qkv + 3 * words * head
            self._b.emit("QUANT", a=base, words=words, act=self._query(head), token=token,
                         exponent=self._bases.attention, **self._attention)
            for kind in range(2):
                self._b.emit("CACHE", None if head or kind or token else "scales used",
                             a=base + (1 + kind) * words, kind=kind, head=head, token=token,
                             wide=lay.options.wide, kv_base=0, kv_heads=lay.shape.heads)

    def _query(self, head: int) -> int:
        return self.layout.planes.queries + head * HEAD // self.layout.config.beat_bytes

    def _scores(self, head: int) -> None:
        lay, mem = self.layout, self.layout.memory
        self._b.emit("MATMUL", address=mem.cache + mem.keys + head * mem.head_stride[0],
                     address_reg=CACHE, rows_reg=ROWS, beats=lay.config.head_beats, merge=1,
                     scale=2, dest=1 + head % 2, act=self._query(head),
                     dst=lay.planes.probabilities[head % 2], **self._cached(head))

    def _values(self, head: int) -> None:
        lay, mem = self.layout, self.layout.memory
        self._b.emit("MATMUL", address=mem.cache + mem.values + head * mem.head_stride[1],
                     address_reg=CACHE, rows=lay.config.head_words, beats_reg=BLOCKS, k_outer=1,
                     merge=2, divide=1 + head % 2, act=lay.planes.probabilities[head % 2],
                     acc_row=lay.value_bank, dst=lay.scratch.mixed + head * lay.config.head_words,
                     dst_stride=self._x, **self._cached(head))

    def _cached(self, head: int) -> Values:
        """Fields of products with K and with V."""
        return {"pattern": DENSE.code, "wide": self.layout.options.wide, "first": 1, "last": 1,
                "columns": self._tokens, "exponent": self._bases.attention, "head": head,
                "kv_base": 0, "kv_heads": self.layout.shape.heads, **self._attention}

    # ---- Parts ----

    def _finish(self, name: str, pieces: Iterator[Piece], *, norm: int,
                before_last: Callable[[], None] | None = None) -> None:
        """The pieces left of a product that updates x, and the slices of the norm after it."""
        parts, pending = list(self.layout.vectors["x"]), before_last
        for piece in pieces:
            if piece.last and pending is not None:
                pending()
                pending = None
            self._matmul(name, piece, self.layout.scratch.x, residual=1, dst_stride=self._x)
            while piece.last and parts \
                    and parts[0].stop <= (piece.row + piece.rows) * self.layout.config.channels:
                self._quantise_norm(parts.pop(0), norm)

    def _matmul(self, name: str, piece: Piece, dst: int, *, dst_stride: int, norm: int = 0,
                gelu: int = 0, residual: int = 0) -> None:
        """One piece of a weight matrix; ``dst`` is the word of its first row."""
        lay, mem, bases = self.layout, self.layout.memory, self._bases
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
        role = self._role(matrix, piece) if name in ("qkv", "head") and not piece.row else None
        self._b.emit("MATMUL", role, address=start + piece.offset, address_reg=register,
                     rows=piece.rows, beats=piece.beats, pattern=matrix.pattern.code,
                     first=int(piece.first), last=int(piece.last),
                     acc_row=piece.row if piece.banked else 0, act=act + block, exponent=base,
                     columns=self._tokens, **self._columns, **fields)

    def _quantise(self, part: Slice, source: int, stride: int, act: int, base: int) -> None:
        """One slice of every token's vector; ``stride`` is the words of such a vector."""
        lay = self.layout
        for token in range(self._tokens):
            self._b.emit("QUANT", a=source + token * stride + part.start // lay.config.vector_lanes,
                         words=self._words(part.count), token=token,
                         act=act + part.start // lay.config.beat_bytes, exponent=base,
                         **self._columns)

    def _quantise_norm(self, part: Slice, which: int) -> None:
        """One slice of gamma · x, with its statistics."""
        lay = self.layout
        number, word = lay.vectors["x"].index(part), part.start // lay.config.vector_lanes
        for token in range(self._tokens):
            # Whoever waits for a slice waits for its last token.
            role = None if which or token < self._tokens - 1 else f"slice {number}"
            self._b.emit("QUANT", role, a=lay.scratch.x + token * self._x + word,
                         words=self._words(part.count), gamma=1, b=lay.scratch.gamma[which] + word,
                         act=lay.planes.x + part.start // lay.config.beat_bytes, token=token,
                         exponent=self._bases.norm, stats=1, slice=number, inv=fp32(1 / part.count),
                         count=fp32(part.count), **self._columns)

    def _norm(self, which: int) -> None:
        shape = self.layout.shape
        for token in range(self._tokens):
            role = None if which or token < self._tokens - 1 else "norm"
            self._b.emit("NORM", role, slices=len(self.layout.vectors["x"]), set=which,
                         token=token, inv=fp32(1 / shape.width), eps=fp32(shape.epsilon))

    def _probe(self, which: int) -> None:
        """Keep x of the last token for somebody to look at, by the layers that are left."""
        if not self._probes:
            return
        memory = self.layout.memory
        self._b.emit("STORE", address=memory.probes + which * memory.vector, index_reg=LAYERS,
                     stride=2 * memory.vector,
                     src=self.layout.scratch.x + (self._tokens - 1) * self._x, words=self._x)

    def _load(self, dst: int, address: int, **fields: int) -> None:
        """Load one vector of the model's width, or several that lie one after another."""
        self._b.emit("LOAD", address=address, words=self._x, dst=dst, **{"rows": 1, **fields})

    def _load_scales(self, cache: int) -> None:
        """Load the scales of all earlier positions of a layer; ``cache`` is its part, less
        CACHE."""
        self._b.emit("LOAD", "scales", address=cache + self.layout.memory.scales,
                     address_reg=CACHE, rows_reg=OLD_ROWS, words=self.layout.shape.heads, target=1,
                     dst=0)

    def _stop(self, piece: Piece) -> int:
        """First input behind a piece of a layer's matrix."""
        per_beat = self.layout.pattern.ratio * self.layout.config.beat_bytes
        return (piece.beat + piece.beats) * per_beat

    def _words(self, elements: int) -> int:
        return math.ceil(elements / self.layout.config.vector_lanes)

    def _beats(self, words: int) -> int:
        return math.ceil(4 * words / self.layout.config.beat_bytes)
