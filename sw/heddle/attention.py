# SPDX-License-Identifier: Apache-2.0
"""Attention: queries, keys and values, scores, values, and what they leave time for.

Heads follow each other through a chain of units: a head's query, key and value are quantised when
their rows are done; its scores go through softmax; its values are averaged.  Each step is short and
its result comes late, so products of several heads, the rows of heads to come and the output
projection of heads that are done take turns.
"""

import functools
import itertools
from collections.abc import Callable, Hashable

from rtl_gen.spec.config import HEAD
from rtl_gen.spec.formats import DENSE
from rtl_gen.spec.isa import Register
from rtl_gen.spec.rules import Values

from .parts import BLOCKS, CACHE, POSITIONS, ROW, ROWS, WEIGHTS, Parts
from .schedule import Task, schedule
from .tiling import Matrix, Piece

#: Context for which products are put in order; with longer ones there is less to hide.
_CONTEXT = 128
#: Cycles from the end of one step's product to the start of the next one's, and those that every
#: token adds: u280 takes 105, 118 and 111 with four tokens.
_WAIT, _WAIT_TOKEN = 90, 8


class Attention:
    """Writes the attention of one layer.

    Parameters
    ----------
    parts : Parts
    """

    def __init__(self, parts: Parts) -> None:
        self._p, self._layout, self._b = parts, parts.layout, parts.builder
        self._columns = parts.columns
        each = self._columns.each
        self._format: Values = {**parts.format,
                                "two_beat": self._layout.attention_two_beat(each)}
        #: As one head's results are used, the next ones' come.
        self._results = len(self._layout.planes.probabilities)
        self._wait = _WAIT + _WAIT_TOKEN * self._columns.tokens
        #: Heads in the order in which their rows end, and pieces of these rows in theirs.
        self._heads: list[int] = []
        self._pieces = self._alternate(self._layout.matrices["qkv"])
        for _, piece in self._pieces:
            self._heads += self._ended(piece)
        #: What attention gives, and its slices.
        self._gather = parts.gather("qkv", self._layout.scratch.mixed, parts.x, self._arrived)
        self._slices = parts.slices("mixed")
        self._todo: dict[Hashable, Callable[[], None]] = {}

    @staticmethod
    def _alternate(matrix: Matrix) -> list[tuple[int, Piece]]:
        """Numbered pieces of queries, keys and values, in the order of their products.

        The last chunks of chunked rows end their heads in quick succession, faster than heads can
        be quantised: they alternate with heads whose rows were not chunked.
        """
        numbered = list(enumerate(matrix.pieces))
        chunks = [pair for pair in numbered if not pair[1].last]
        short = [pair for pair in numbered if pair[1].last and pair[1].beat]
        whole = [pair for pair in numbered if pair[1].last and not pair[1].beat]
        return chunks + [pair for two in itertools.zip_longest(short, whole) for pair in two
                         if pair is not None]

    def _ended(self, piece: Piece) -> range:
        """Heads whose rows end with a piece."""
        per_head = 3 * self._layout.config.head_words
        return range(piece.row // per_head, (piece.row + piece.rows) // per_head) \
            if piece.last else range(0)

    def write(self) -> list[Piece]:
        """Emit everything; returns the pieces of the output projection that are left."""
        matrices = self._layout.matrices
        tasks = [*self._chains(), *self._rows(matrices["qkv"])]
        # What other cards' heads give is awaited in the end.
        chunks = list(itertools.takewhile(
            lambda piece: not piece.last and self._mine(piece), matrices["out"].pieces))
        tasks += [self._chunk(number, piece) for number, piece in enumerate(chunks)]
        for task in schedule(tasks):
            self._todo[task.name]()
        self._gather.finish()
        self._store_scales()
        return list(matrices["out"].pieces[len(chunks):])

    # ---- Tasks ----

    def _task(self, name: Hashable, cycles: int, after: list[tuple[Hashable, int]],
              emit: Callable[[], None]) -> Task:
        self._todo[name] = emit
        return Task(name=name, cycles=cycles, after=after)

    def _chains(self) -> list[Task]:
        """Scores and values of all heads; the oldest first, values before scores."""
        layout, tasks = self._layout, []
        digits = (1 + layout.options.wide) / (1 + self._format["two_beat"])
        context = min(_CONTEXT, layout.context)
        scores = int(-(-context // layout.config.channels) * layout.config.head_beats * digits)
        values = int(-(-context // layout.config.beat_bytes) * layout.config.head_words * digits)
        rows = {head: number for number, piece in self._pieces for head in self._ended(piece)}
        for turn in range(len(layout.heads) * self._columns.sequences):
            place, sequence = divmod(turn, self._columns.sequences)
            head = self._heads[place]
            before: list[tuple[Hashable, int]] = [(("rows", rows[head]), self._wait)]
            if turn >= self._results:   # whose result this one replaces
                before.append((("values", turn - self._results), 0))
            tasks += [
                self._task(("values", turn), values, [(("scores", turn), self._wait)],
                           functools.partial(self._values, head, sequence)),
                self._task(("scores", turn), scores, before,
                           functools.partial(self._scores, head, sequence))]
        return tasks

    def _rows(self, matrix: Matrix) -> list[Task]:
        """Rows of queries, keys and values."""
        tasks: list[Task] = []
        for number, piece in self._pieces:
            tasks.append(self._task(
                ("rows", number), self._cycles(matrix, piece),
                [(tasks[-1].name, 0)] if tasks else [], functools.partial(self._project, piece)))
        return tasks

    def _inputs_of(self, piece: Piece) -> range:
        """Heads whose values a chunk of the output projection takes."""
        start, stop = self._p.inputs(piece)
        return range(start // HEAD, min(-(-stop // HEAD), self._layout.shape.heads))

    def _mine(self, piece: Piece) -> bool:
        return all(head in self._layout.heads for head in self._inputs_of(piece))

    def _chunk(self, number: int, piece: Piece) -> Task:
        """A chunk of the output projection."""
        sequences = self._columns.sequences
        turns = [self._heads.index(head - self._layout.heads.start) * sequences + sequence
                 for head in self._inputs_of(piece) for sequence in range(sequences)]
        return self._task(
            ("out", number), self._cycles(self._layout.matrices["out"], piece),
            [*((("values", turn), self._wait) for turn in turns),
             *[(("out", number - 1), 0)][:number]],
            functools.partial(self._p.matmul, "out", piece, self._layout.scratch.x,
                              dst_stride=self._p.x))

    def _cycles(self, matrix: Matrix, piece: Piece) -> int:
        """For which a piece keeps the engine, or memory, busy."""
        pattern, values = matrix.pattern, piece.rows * piece.beats
        steps = (values * pattern.entries << pattern.halved) / (1 + self._p.format["two_beat"])
        return int(max(values * (1 + pattern.units / 32), steps))

    # ---- Instructions ----

    def _project(self, piece: Piece) -> None:
        """One piece of queries, keys and values, and what becomes of the heads that it ends."""
        layout, memory = self._layout, self._layout.memory
        self._p.matmul("qkv", piece, layout.scratch.qkv, norm=1, dst_stride=self._p.qkv)
        for head in self._ended(piece):
            first = head == self._heads[0]
            self._inputs(head, first=first)
            # In a ring heads are few, and the first would wait for the words of the gammas, which
            # come in the same stream as constants.
            if head == self._heads[0 if layout.config.cards == 1 else -1]:
                # The gammas' buffers are free: their last readers are before this head's in their
                # queue.
                self._p.load(layout.scratch.gamma[1], memory.layers + memory.gamma[1],
                             address_reg=WEIGHTS)
                self._p.load(layout.scratch.gamma[0],
                             memory.layers + memory.layer_stride + memory.gamma[0],
                             address_reg=WEIGHTS)

    def _inputs(self, head: int, *, first: bool) -> None:
        """Quantise a head's query, key and value, of all tokens."""
        layout, words = self._layout, self._layout.config.head_words
        for column in range(self._columns.tokens):
            # Every sequence has the columns to itself when its turn comes.
            sequence, token = divmod(column, self._columns.each)
            base = layout.scratch.qkv + column * self._p.qkv + 3 * words * head
            self._b.emit("QUANT", a=base, words=words, act=self._query(head, sequence),
                         token=token, exponent=self._p.bases.attention, **self._format)
            for kind in range(2):
                self._b.emit("CACHE", "scales used" if first and not kind and not column else None,
                             a=base + (1 + kind) * words, kind=kind, head=head, token=token,
                             wide=layout.options.wide, kv_base=self._p.scales(sequence),
                             kv_heads=len(layout.heads), **self._of(sequence))

    def _query(self, head: int, sequence: int) -> int:
        """First plane block of a head's query."""
        heads = len(self._layout.heads)
        return self._layout.planes.queries \
            + (sequence * heads + head) * HEAD // self._layout.config.beat_bytes

    def _result(self, head: int, sequence: int) -> int:
        """Which softmax result a head uses."""
        return (self._heads.index(head) * self._columns.sequences + sequence) % self._results

    def _scores(self, head: int, sequence: int) -> None:
        layout, memory = self._layout, self._layout.memory
        result = self._result(head, sequence)
        self._b.emit("MATMUL", address=memory.cache + sequence * memory.slot + memory.keys
                     + head * memory.head_stride[0], rows_reg=ROWS[sequence],
                     beats=layout.config.head_beats, merge=1, scale=2, dest=1 + result,
                     act=self._query(head, sequence), dst=layout.planes.probabilities[result],
                     **self._cached(head, sequence))

    def _values(self, head: int, sequence: int) -> None:
        layout, memory = self._layout, self._layout.memory
        result, words = self._result(head, sequence), layout.config.head_words
        self._b.emit("MATMUL", address=memory.cache + sequence * memory.slot + memory.values
                     + head * memory.head_stride[1], rows=words, beats_reg=BLOCKS[sequence],
                     k_outer=1, merge=2, divide=1 + result,
                     act=layout.planes.probabilities[result], acc_row=layout.value_bank,
                     dst=layout.scratch.mixed + sequence * self._p.x
                     + (layout.heads.start + head) * words,
                     dst_stride=self._p.x, **self._cached(head, sequence))
        if sequence == self._columns.sequences - 1:
            first = (layout.heads.start + head) * words
            self._gather.add(range(first, first + words))

    def _arrived(self, words: range) -> None:
        layout = self._layout
        for number in self._slices.add(words):
            self._p.quantise(layout.vectors["mixed"][number], layout.scratch.mixed, self._p.x,
                             layout.planes.mixed, self._p.bases.mixed)

    def _cached(self, head: int, sequence: int) -> Values:
        """Fields of products with K and with V."""
        return {"pattern": DENSE.code, "wide": self._layout.options.wide, "first": 1, "last": 1,
                "columns": self._columns.each, "exponent": self._p.bases.attention, "head": head,
                "address_reg": CACHE, "kv_base": self._p.scales(sequence),
                "kv_heads": len(self._layout.heads), **self._of(sequence), **self._format}

    @staticmethod
    def _of(sequence: int) -> Values:
        """The field that says whose position counts."""
        return {"sequence": sequence} if sequence else {}

    def _store_scales(self) -> None:
        """Scales of the pass's positions, one after another."""
        memory, columns = self._layout.memory, self._columns
        shift = self._layout.config.channels.bit_length() - 1
        for column in range(columns.tokens):
            sequence, token = divmod(column, columns.each)
            if token:
                self._b.emit("ADDI", rd=Register.POS, rs=Register.POS, imm=1)
            self._b.emit("SHRI", rd=ROW, rs=POSITIONS[sequence], imm=shift)
            self._b.emit("STORE", source=1, index_reg=ROW, stride=memory.scale_row,
                         address=memory.cache + sequence * memory.slot + memory.scales,
                         address_reg=CACHE, words=len(self._layout.heads),
                         src=self._p.scales(sequence), **self._of(sequence))
        if columns.each > 1:
            self._b.emit("ADDI", rd=Register.POS, rs=Register.POS, imm=1 - columns.each)
