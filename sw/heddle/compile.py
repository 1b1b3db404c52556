# SPDX-License-Identifier: Apache-2.0
"""The program of a pass: some tokens in, one token out of each sequence, for any context length.

A decode step is a pass of one token; a prompt is read by passes of several tokens of one sequence;
a batch is a pass of one token each of several sequences.  A pass has three
sections: the embedding and the first norm; one layer, which a loop repeats; the
LM head, or a short end instead of it where nobody wants the logits.  A layer ends with the norm of
the layer after it (after the last layer: the norm before the LM head), so that a product and the
norm that feeds it lie on two sides of the loop's jump alike for every layer.

Instructions are written in an order in which results are there when they are wanted.  The builder
adds the waits.
"""

from collections.abc import Iterable

from rtl_gen.spec.isa import Queue, Register, ScalarFn, VectorFn

from .attention import Attention
from .gather import Complete, Gather
from .layout import Layout
from .parts import (
    CACHE,
    LAYERS,
    LENGTHS,
    POSITIONS,
    SILENT,
    WEIGHTS,
    Columns,
    Parts,
    first_pass,
    units,
)
from .program import Builder, Program
from .tiling import Piece

#: A pass of one token.
DECODE = Columns()


class Compiler:
    """Writes the program of one layout's passes.

    Parameters
    ----------
    layout : Layout
    columns : Columns
        What a pass takes.  With several tokens the command must give all that its passes take;
        with several sequences it has one pass, and registers hold position and length of each.
        Logits are those of every sequence's last token.
    candidates : int
        Best tokens, with their logits, that every result record holds.
    store_logits : bool
        Write every pass's logits to memory as well.
    probe : bool
        Write x after attention and after the MLP of every layer to memory, and the logits.
    """

    def __init__(self, layout: Layout, columns: Columns = DECODE, *, candidates: int = 0,
                 store_logits: bool = False, probe: bool = False) -> None:
        self.layout, self._columns, self._candidates = layout, columns, candidates
        self._store = store_logits or probe
        self._b = Builder(layout.config)
        self._p = Parts(self._b, layout, columns, probe=probe)

    def program(self) -> Program:
        """The program, ordered."""
        tokens = self._columns.tokens
        self._b.note("decode step" if tokens == 1 else f"pass of {tokens} tokens"
                     if self._columns.sequences == 1 else f"decode step of {tokens} sequences")
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
        self._prepare()
        self._b.emit("NEXT", target=start)
        self._b.emit("HALT")
        self._b.note("end of a pass without logits")
        self._b.patch(choice, target=self._b.section())
        self._advance()
        self._silence()
        self._prepare()
        self._b.emit("NEXT", target=start)
        self._b.emit("HALT")
        return self._b.finish(*self._starts(), given=[0] * 2 * tokens)

    def _starts(self) -> list[dict[int, int]]:
        """Registers of runs that touch all that any pass touches.

        Two passes that end in the last lane row reach all that others reach.  Their tokens may lie
        in one row or in two; a position that is not the first of its row finds scales of that row
        in memory too.
        """
        each, last = self._columns.each, self.layout.rows * self.layout.config.channels
        starts = []
        for shift in range(1, each + 1):
            position = max(0, last - 2 * each - shift)
            starts.append({Register.LEFT: 2, SILENT: 2, **first_pass(
                self.layout, self._columns, [position] * self._columns.sequences)})
        return starts

    def _advance(self) -> None:
        """Go on to the last token of the pass."""
        more = self._columns.each - 1
        for register in (Register.STEP, Register.POS, Register.LEN) if more else ():
            self._b.emit("ADDI", rd=register, rs=register, imm=more)

    def _prepare(self) -> None:
        """Registers of the next pass, as :func:`first_pass` has them of the first.

        Nothing waits for them here.  At the start of a pass memory would.
        """
        b, each = self._b, self._columns.each
        for sequence in range(self._columns.sequences):
            for registers, unit in units(self.layout):
                # NEXT has not been at LEN yet.
                b.emit("ADDI", rd=registers[sequence], rs=LENGTHS[sequence], imm=unit - 1 + each)
                b.emit("SHRI", rd=registers[sequence], rs=registers[sequence],
                       imm=unit.bit_length() - 1)
        b.emit("ADDI", rd=WEIGHTS, rs=Register.ZERO, imm=0)
        b.emit("ADDI", rd=CACHE, rs=Register.SLOT, imm=0)
        b.passes(LAYERS, self.layout.shape.layers)

    # ---- Sections ----

    def _embed(self) -> None:
        b, p, lay, mem = self._b, self._p, self.layout, self.layout.memory
        # All of the pass's reads of the cache come after this fence; the pass before has ended.
        for token in range(self._columns.tokens):
            if self._columns.tokens > 1:
                b.emit("GIVEN", rd=Register.TOKEN, rs=Register.STEP, imm=token)
            p.load(lay.scratch.x + token * p.x, mem.embedding, index_reg=Register.TOKEN,
                   stride=mem.vector, fence=int(token == 0))
        for sequence in range(self._columns.sequences):
            p.load(lay.scratch.position + sequence * p.x, mem.positions, stride=mem.vector,
                   index_reg=POSITIONS[sequence], rows=self._columns.each)
        p.load(lay.scratch.gamma[0], mem.layers + mem.gamma[0])
        p.load_scales(mem.cache, range(self._columns.sequences))
        b.emit("VECTOR", fn=VectorFn.ADD, dst=lay.scratch.x, a=lay.scratch.x,
               b=lay.scratch.position, words=self._columns.tokens * p.x)
        for number in lay.order("down"):    # as layers end: first chunks wait for the same slices
            p.quantise_norm(lay.vectors["x"][number], 0)
        p.norm(0)

    def _layer(self) -> None:
        p, lay, mem = self._p, self.layout, self.layout.memory
        self._b.note("attention")
        out = Attention(p).write()
        self._b.note("output projection")
        self._finish("out", out, norm=1)
        p.probe(0)
        self._b.note("MLP")
        # Scales of the next layer: this one's are used up.  They come with the constants of rows,
        # which chunks do without: half of them before each of the two products.
        scales, half = mem.cache + mem.cache_stride, self._columns.sequences // 2
        p.load_scales(scales, range(half))
        self._up()
        p.load_scales(scales, range(half, self._columns.sequences))
        self._finish("down", lay.matrices["down"].pieces, norm=0)
        p.probe(1)
        for register, stride in ((WEIGHTS, mem.layer_stride), (CACHE, mem.cache_stride)):
            self._b.emit("ADDI", rd=register, rs=register, imm=stride)

    def _up(self) -> None:
        """The hidden vector, and its slices."""
        p, lay = self._p, self.layout
        first, complete = lay.parts.up[lay.card].start, p.slices("hidden")

        def arrived(words: range) -> None:
            for number in complete.add(words):
                p.quantise(lay.vectors["hidden"][number], lay.scratch.hidden, p.hidden,
                           lay.planes.hidden, p.bases.hidden)

        gather = p.gather("up", lay.scratch.hidden, p.hidden, arrived)
        for piece in lay.matrices["up"].pieces:
            p.matmul("up", piece, lay.scratch.hidden + first, norm=2, gelu=lay.shape.gelu,
                     dst_stride=p.hidden)
            if piece.last:
                gather.have(first + piece.row + piece.rows)
        gather.finish()

    def _finish(self, name: str, pieces: Iterable[Piece], *, norm: int) -> None:
        """The pieces left of a product that updates x, and the norm after it."""
        p, lay = self._p, self.layout
        first, complete = getattr(lay.parts, name)[lay.card].start, p.slices("x")

        def arrived(words: range) -> None:
            for number in complete.add(words):
                p.quantise_norm(lay.vectors["x"][number], norm)

        gather = p.gather(name, lay.scratch.x, p.x, arrived)
        for piece in pieces:
            p.matmul(name, piece, lay.scratch.x + first, residual=1, dst_stride=p.x)
            if piece.last:
                gather.have(first + piece.row + piece.rows)
        gather.finish()
        # The last words came after others were passed on; sections need not ask for those again.
        self._b.after(Queue.SEND_PREVIOUS, Queue.SEND_NEXT)
        p.norm(norm)

    def _head(self) -> None:
        """Logits, block by block, and what is sampled of them."""
        p, lay, mine = self._p, self.layout, self.layout.parts.logits[self.layout.card]
        matrix, size = lay.matrices["head"], lay.scratch.logit_words
        ends = [max(part.stop for part in block)
                for block in zip(*lay.parts.logits, strict=True)]
        starts = [0, *ends[:-1]]
        complete = Complete([range(*two) for two in zip(starts, ends, strict=True)])
        each = self._columns.each

        def arrived(words: range) -> None:
            for block in complete.add(words):
                self._sample(starts[block], ends[block], last=block == len(ends) - 1)

        gather = Gather(
            self._b, *lay.ring("head"),
            address=lambda word: self._logit(word) + (each - 1) * size,
            stride=size, columns=self._columns.sequences, lag=1, arrived=arrived)
        block = row = 0     # of this card's rows, the first of the block
        for piece in matrix.pieces:
            p.matmul("head", piece, self._logit(mine[block].start) - row, norm=1, dst_stride=size)
            if not piece.last:
                continue
            while block < len(ends) and row + len(mine[block]) <= piece.row + piece.rows:
                gather.have(ends[block])
                row += len(mine[block])
                block += 1
        gather.finish()

    def _logit(self, row: int) -> int:
        """The scratchpad word of a lane row of the first token's logits.

        Blocks do not cross the borders between buffers; logits are stored by buffers, which fill
        their beats.
        """
        scratch = self.layout.scratch
        window, place = divmod(row, scratch.logit_words)
        return scratch.logits[window % len(scratch.logits)] + place

    def _sample(self, first: int, end: int, *, last: bool) -> None:
        """Look a block of logits through, of lane rows ``first`` to ``end`` - 1, and store it."""
        lay, mem, size = self.layout, self.layout.memory, self.layout.scratch.logit_words
        lanes, vocabulary = lay.config.channels, lay.shape.vocabulary
        sequences = self._columns.sequences
        ahead = (self._columns.each - 1) * size     # the last token of a sequence
        # Who reuses these words then needs to await the sampler alone, not every neighbour.
        self._b.own()
        self._b.emit("SAMPLE", None if first else "scales used",
                     a=self._logit(first) + ahead, words=end - first,
                     count=min(end * lanes, vocabulary) - first * lanes, token=first * lanes,
                     first=int(not first), last=int(last), k=self._candidates if last else 0,
                     columns=sequences, stride=size)
        window = first // size * size
        for sequence in range(sequences if self._store and (last or end % size == 0) else 0):
            # The sampler has awaited all that brought these words.
            self._b.after(Queue.VECTOR)
            self._b.emit("STORE", words=end - window,
                         src=self._logit(window) + ahead + sequence * size,
                         address=mem.logits + sequence * mem.row + self._p.beats(window))

    def _silence(self) -> None:
        """Take the signals that the LM head would have waited for."""
        # The vector unit gets here when everything before is done: only then may control take
        # signals that matmuls wait for, or it would take those of an earlier layer.
        self._b.emit("SCALAR", "scales used", fn=ScalarFn.SET)
        self._p.probe(0)
        self._b.settle()
        for piece in self.layout.matrices["head"].pieces:
            if not piece.row:
                self._b.emit("NOP", self._p.role(self.layout.matrices["head"], piece))
