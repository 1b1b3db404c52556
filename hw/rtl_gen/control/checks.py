# SPDX-License-Identifier: Apache-2.0
"""The rules of ``rtl_gen.spec.rules`` as gateware: what makes an instruction illegal.

Each function gives a list of conditions, any of which breaks a rule.  They are written out again,
not derived: the tests hold them against the spec word by word.
"""

import dataclasses

from amaranth import Cat, Const, Mux, Value

from ..spec.config import SLICE_BLOCKS, CardConfig
from ..spec.isa import RECEIVES, SENDS, SUMS, ScalarFn, VectorFn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resolved:
    """Signals that dispatch has worked out for the instruction at hand."""

    rows: Value
    beats: Value
    #: Of the instruction's sequence; below the longest context.
    pos: Value
    #: Of the pattern: not built in or no such code; log2 of the ratio.
    unknown_pattern: Value
    ratio: Value
    #: 32-bit words of a row's constants, and of all rows.
    aux: Value
    aux_words: Value
    #: ``dst_stride``, of SAMPLE and of messages ``stride``, times (columns - 1).
    dst_offset: Value
    #: LOAD: rows · words; STORE: words of the scales up to the end of the row.
    words: Value
    #: MATMUL: (rows - 1) · kv_heads; CACHE: row · kv_heads.
    scales: Value


def _log2(value: int) -> int:
    return value.bit_length() - 1


def _ceil_shift(value: Value, places: int) -> Value:
    return (value + ((1 << places) - 1)) >> places


def matmul(c: CardConfig, v, r: Resolved) -> list[Value]:
    channels, beat = _log2(c.channels), _log2(c.beat_bytes)
    softmax = v.dest != 0
    scales = (v.scale == 2) | softmax
    used = v.columns << v.digits << v.two_beat
    banked = ~(v.first & v.last & ~v.k_outer)
    positions = r.rows << channels
    dense = v.pattern == 0
    row_ends = v.dst + r.dst_offset + r.rows
    block_ends = v.dst + r.dst_offset + _ceil_shift(positions, beat)
    return [
        r.unknown_pattern, r.rows == 0, r.beats == 0, v.columns == 0, used > c.tokens,
        banked & (v.acc_row + r.rows > c.acc_rows),
        (r.ratio != 0) & v.act[0], (r.ratio > 1) & v.act[1],
        v.act + (r.beats << r.ratio) > c.plane_blocks,
        ~dense & (v.wide | v.merge.any() | v.k_outer),
        v.two_beat & ~v.wide & v.k_outer,
        *(field == 3 for field in (v.scale, v.norm, v.gelu, v.merge)),
        v.divide > SUMS, v.dest > SUMS, v.merge.any() & (v.sequence + v.columns > c.tokens),
        r.aux_words > c.aux_words,
        ~v.last & ((r.aux != 0) | v.divide.any() | v.gelu.any() | v.residual | softmax
                   | v.scale.any()),
        softmax & (v.residual | v.norm.any() | v.bias | v.gelu.any() | v.divide.any()),
        v.last & ~softmax & (row_ends > c.scratch_words),
        softmax & ((positions > c.context) | (r.pos + v.columns > positions)),
        softmax & (block_ends > c.plane_blocks),
        scales & (v.kv_base + r.scales + v.head >= c.kv_scales),
        v.head >= c.heads]


def vector(c: CardConfig, v, r: Resolved) -> list[Value]:
    return [v.fn >= len(VectorFn), v.words == 0,
            *(first + v.words > c.scratch_words for first in (v.dst, v.a, v.b))]


def scalar(c: CardConfig, v, r: Resolved) -> list[Value]:
    return [v.fn >= len(ScalarFn)]


def quant(c: CardConfig, v, r: Resolved) -> list[Value]:
    blocks = _ceil_shift(v.words << _log2(c.vector_lanes), _log2(c.beat_bytes))
    return [
        v.words == 0, v.a + v.words > c.scratch_words, blocks > SLICE_BLOCKS,
        v.gamma & (v.b + v.words > c.scratch_words),
        v.act + blocks > c.plane_blocks,
        (v.token + 1) << v.digits << v.two_beat > c.tokens,
        v.stats & (v.word + v.words > c.norm_words)]


def norm(c: CardConfig, v, r: Resolved) -> list[Value]:
    return [v.words == 0, v.words > c.norm_words, v.token >= c.tokens]


def cache(c: CardConfig, v, r: Resolved) -> list[Value]:
    return [v.a + c.head_words > c.scratch_words, v.head >= c.heads,
            v.sequence + v.token >= c.tokens, v.kv_base + r.scales + v.head >= c.kv_scales]


def sample(c: CardConfig, v, r: Resolved) -> list[Value]:
    lanes = _log2(c.vector_lanes)
    return [
        v.words == 0, v.a + r.dst_offset + v.words > c.scratch_words, v.k > c.top_k,
        v.columns == 0, v.columns > c.tokens,
        v.count > v.words << lanes, v.count + c.vector_lanes <= v.words << lanes]


def load(c: CardConfig, v, r: Resolved) -> list[Value]:
    return [v.words == 0, v.dst + r.words > Mux(v.target, c.kv_scales, c.scratch_words)]


def store(c: CardConfig, v, r: Resolved) -> list[Value]:
    return [v.words == 0,
            Mux(v.source, v.src + r.words > c.kv_scales, v.src + v.words > c.scratch_words)]


def _message(c: CardConfig, v, r: Resolved, first: Value) -> list[Value]:
    if c.cards == 1:
        return [Const(1, 1)]
    return [v.words == 0, v.columns == 0, v.columns > c.tokens,
            first + r.dst_offset + v.words > c.scratch_words]


def send(c: CardConfig, v, r: Resolved) -> list[Value]:
    return _message(c, v, r, v.src)


def receive(c: CardConfig, v, r: Resolved) -> list[Value]:
    return _message(c, v, r, v.dst)


RULES = {"MATMUL": matmul, "VECTOR": vector, "SCALAR": scalar, "QUANT": quant, "NORM": norm,
         "CACHE": cache, "SAMPLE": sample, "LOAD": load, "STORE": store,
         **dict.fromkeys(SENDS, send), **dict.fromkeys(RECEIVES, receive)}


def broken(config: CardConfig, name: str, view, resolved: Resolved) -> Value:
    """One bit: some rule of the instruction ``name`` is broken."""
    return Cat(RULES[name](config, view, resolved)).any()
