# SPDX-License-Identifier: Apache-2.0
"""Passes over words of the scratchpad: what the instructions of the vector unit are made of."""

from amaranth import signed
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
    "tree": 1,          # terms are summed up
    "sum": statistics.TAG,
    "write": 1,         # results go to the scratchpad
    "keep": 1,          # operands a are kept, in order,
    "replay": 1,        # and read from there instead of the scratchpad
})

#: Some words, one after another.
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
    assign(m, target.word, s=scalar, tree=fn("SUM"), write=~fn("SUM", "MAXIMUM"))
    assign(m, target.word.sum, kind=statistics.Sum.VECTOR)
    assign(
        m, target.word.op, multiply=fn("MUL", "MADD", "MULS"), by_scalar=fn("MADD", "MULS"),
        add=fn("ADD", "SUB", "MADD", "ADDS"), plus_scalar=fn("ADDS"), negate=fn("SUB"),
        maximum=fn("MAX"), fold=fn("MAXIMUM"))
    assign(m, target.word, function=fn("EXP", "GELU_TANH", "GELU_ERF"), exp=fn("EXP"),
           erf=fn("GELU_ERF"))


def quantise(m, target, job, *, context) -> None:
    """The pass of a QUANT whose statistics form in ``context``."""
    f = layouts.view("QUANT", job.word)
    assign(m, target, a=f.a, b=f.b, words=f.words, read_b=f.gamma)
    assign(m, target.word, quantise=1, tree=f.stats, keep=f.stats)
    assign(m, target.word.op, multiply=f.gamma)
    assign(m, target.word.how, mode=Mode.QUANTISE, digits=f.digits, base=f.exponent)
    assign(m, target.word.how.target, block=f.act, token=f.token, digits=f.digits,
           two_beat=f.two_beat)
    assign(m, target.word.sum, kind=statistics.Sum.SLICE, id=context)


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


def deviate(m, target, again) -> None:
    """The second pass over a slice for its statistics; ``again`` is a ``statistics.AGAIN``."""
    assign(m, target, words=again.words)
    assign(m, target.word, s=again.mean, tree=1, replay=1)
    assign(m, target.word.op, add=1, plus_scalar=1, negate=1, square=1)
    assign(m, target.word.sum, kind=statistics.Sum.DEVIATIONS, id=again.id)


def head_of(m, target, job) -> None:
    """The ``head.HEAD`` of a CACHE."""
    f = layouts.view("CACHE", job.word)
    assign(m, target, a=f.a, position=job.pos + f.token, base=f.kv_base, heads=f.kv_heads)
    assign(m, target.target, kind=f.kind, token=f.sequence + f.token, head=f.head, wide=f.wide)
