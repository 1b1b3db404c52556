# SPDX-License-Identifier: Apache-2.0
"""Passes over words of the scratchpad: what the instructions of the vector unit are made of."""

from amaranth import Signal, signed
from amaranth.lib import data

from ..common import layouts
from ..spec.config import CardConfig
from ..spec.isa import VectorFn
from . import statistics
from .lane import OP
from .quantise import Mode

#: Where a quantised slice goes: a plane block, or fresh K or V.
TARGET = data.StructLayout({
    "fresh": 1, "block": 16, "token": 2, "digits": 1, "two_beat": 1, "kind": 1, "head": 6})

#: How a product is quantised.
QUANTISE = data.StructLayout({"mode": Mode, "digits": 1, "base": signed(8), "target": TARGET})
#: What is done with a word.
WORD = data.StructLayout({
    "op": OP,
    "s": 32,
    "function": 1,      # results are those of the shared functions:
    "exp": 1,           # exp(a), not gelu(a),
    "erf": 1,           # gelu of the second form
    "quantise": 1,      # products go to the quantiser
    "how": QUANTISE,
    "tree": 1,          # terms are summed up,
    "add": 1,           # and the sums of words added up, not kept
    "sum": statistics.TAG,
    "write": 1,         # results go to the scratchpad
    "keep": 1,          # operands a are kept, in order,
    "replay": 1,        # and read from there instead of the scratchpad
    "rows": 1,          # operands a are kept sums of words,
    "valid": 6,         # of the last ones so many, if not zero
})

#: Some words, one after another; ``dst`` of sums that are kept is the word in its vector.
PASS = data.StructLayout({"a": 16, "b": 16, "dst": 16, "words": 12, "read_b": 1, "word": WORD})


def assign(m, target, **values):
    """Set fields of a view."""
    m.d.comb += [getattr(target, name).eq(value) for name, value in values.items()]


def vector(m, target, job, scalar) -> None:
    """The pass of a VECTOR; ``scalar`` is its scalar register."""
    f = layouts.view("VECTOR", job.word)

    def fn(*names):
        value = 0
        for name in names:
            value = value | (f.fn == VectorFn[name])
        return value

    assign(m, target, a=f.a, b=f.b, dst=f.dst, words=f.words,
           read_b=fn("ADD", "SUB", "MUL", "MAX", "MADD"))
    assign(m, target.word, s=scalar, tree=fn("SUM"), add=1, write=~fn("SUM", "MAXIMUM"))
    assign(m, target.word.sum, kind=statistics.Sum.VECTOR)
    assign(
        m, target.word.op, multiply=fn("MUL", "MADD", "MULS"), by_scalar=fn("MADD", "MULS"),
        add=fn("ADD", "SUB", "MADD", "ADDS"), plus_scalar=fn("ADDS"), negate=fn("SUB"),
        maximum=fn("MAX"), fold=fn("MAXIMUM"))
    assign(m, target.word, function=fn("EXP", "GELU_TANH", "GELU_ERF"), exp=fn("EXP"),
           erf=fn("GELU_ERF"))


def quantise(m, target, job) -> None:
    """The first pass of a QUANT."""
    f = layouts.view("QUANT", job.word)
    assign(m, target, a=f.a, b=f.b, dst=f.word, words=f.words, read_b=f.gamma)
    assign(m, target.word, quantise=1, tree=f.stats, keep=f.stats)
    assign(m, target.word.op, multiply=f.gamma)
    assign(m, target.word.how, mode=Mode.QUANTISE, digits=f.digits, base=f.exponent)
    assign(m, target.word.how.target, block=f.act, token=f.token, digits=f.digits,
           two_beat=f.two_beat)
    assign(m, target.word.sum, kind=statistics.Sum.WORD, token=f.token)


def measure(m, target, job, config: CardConfig) -> None:
    """The first pass of a CACHE."""
    f = layouts.view("CACHE", job.word)
    assign(m, target, a=f.a, words=config.head_words)
    assign(m, target.word, quantise=1)
    assign(m, target.word.how, mode=Mode.MEASURE)
    assign(m, target.word.how.target, fresh=1, digits=f.wide)


def round_head(m, target, again, config: CardConfig) -> None:
    """The second pass of a CACHE; ``again`` is a ``head.AGAIN``."""
    assign(m, target, a=again.a, words=config.head_words)
    assign(m, target.word, s=again.factor, quantise=1)
    assign(m, target.word.op, limit=1, multiply=1, by_scalar=1)
    assign(m, target.word.how, mode=Mode.ROUND, digits=again.target.wide)
    assign(m, target.word.how.target, fresh=1, token=again.target.token, kind=again.target.kind,
           head=again.target.head)


def square(m, target, again) -> None:
    """The second pass over a slice for its statistics; ``again`` is a ``statistics.AGAIN``."""
    assign(m, target, dst=again.word, words=again.words)
    assign(m, target.word, tree=1, replay=1)
    assign(m, target.word.op, square=1)
    assign(m, target.word.sum, kind=statistics.Sum.SQUARE, token=again.token)


def add_up(m, target, job, kind: statistics.Sum, config: CardConfig) -> None:
    """One of the passes of a NORM: of the kept sums TOTAL, or POWER."""
    f = layouts.view("NORM", job.word)
    bits = (config.vector_lanes - 1).bit_length()
    row = Signal(statistics.row_layout(config), name=f"row_{kind.name.lower()}")
    assign(m, row, kind=kind is statistics.Sum.POWER, token=f.token)
    assign(m, target, a=row.as_value(), words=(f.words + config.vector_lanes - 1) >> bits)
    assign(m, target.word, tree=1, add=1, rows=1, valid=f.words[:bits])
    assign(m, target.word.sum, kind=kind, token=f.token)


def head_of(m, target, job) -> None:
    """The ``head.HEAD`` of a CACHE."""
    f = layouts.view("CACHE", job.word)
    assign(m, target, a=f.a, position=job.pos + f.token, base=f.kv_base, heads=f.kv_heads)
    assign(m, target.target, kind=f.kind, token=f.sequence + f.token, head=f.head, wide=f.wide)
