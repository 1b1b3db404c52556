# SPDX-License-Identifier: Apache-2.0
"""What a legal instruction is: the checks that dispatch makes after registers are resolved.

Each rule is a sentence for the manual and a predicate over the configuration ``c`` and the values
``v``: the fields, with
registers applied to ``rows``, ``beats`` and ``address``, ``pos`` (the position of the
instruction's sequence, register POS where it names none), and of a GIVEN ``number``, the sum of its
register and its addend modulo 2^32.
"""

from collections.abc import Callable

from .config import SLICE_BLOCKS, CardConfig
from .formats import PATTERNS, stream_beats
from .isa import FORMATS, RECEIVES, SENDS, SUMS, Queue, ScalarFn, VectorFn
from .registers import RESULT, Error

Values = dict[str, int]
Rule = tuple[str, Callable[[CardConfig, Values], bool]]


def constants(v: Values) -> int:
    """32-bit words of one row's constants in a MATMUL's stream."""
    return (v["scale"] == 1) + (v["norm"] > 0) + v["bias"]


def _blocks(elements: int, c: CardConfig) -> int:
    return -(-elements // c.beat_bytes)


def _reach(v: Values, per_token: int) -> int:
    """End of what all tokens of a MATMUL write, from word or block 0."""
    return v["dst"] + v["dst_stride"] * (v["columns"] - 1) + per_token


def _uses_scales(v: Values) -> bool:
    return v["scale"] == 2 or v["dest"] > 0


def _banked(v: Values) -> bool:
    """The accumulator bank is used: not so when rows are finished one after another from zero."""
    return not (v["first"] and v["last"] and not v["k_outer"])


def _message(first: str) -> tuple[Rule, ...]:
    """Rules of a message whose first word is the field ``first``."""
    return (
        ("The card is one of a ring.", lambda c, v: c.cards > 1),
        (f"`words` is at least 1, `columns` is in 1..T, and the words of the last token, from `{first}` on, end within the scratchpad.",
         lambda c, v: v["words"] >= 1 and 1 <= v["columns"] <= c.tokens
         and v[first] + v["stride"] * (v["columns"] - 1) + v["words"] <= c.scratch_words),
    )


#: Registers may hold more than a field can: such values are refused before anything is computed
#: from them.
COMMON: tuple[Rule, ...] = (
    ("`rows` below 2¹² and `beats` below 2¹⁰, also when they come from a register.",
     lambda c, v: v.get("rows", 0) < 1 << 12 and v.get("beats", 0) < 1 << 10),
    ("POS is below the longest context; here and below, POS is that of the instruction's sequence.", lambda c, v: v["pos"] < c.context),
)

RULES: dict[str, tuple[Rule, ...]] = {
    "LOAD": (
        ("`words` is at least 1.", lambda c, v: v["words"] >= 1),
        ("The rows end within the scratchpad or the scale memory.",
         lambda c, v: v["dst"] + v["rows"] * v["words"]
         <= (c.kv_scales if v["target"] else c.scratch_words)),
    ),
    "STORE": (
        ("`words` is at least 1.", lambda c, v: v["words"] >= 1),
        ("The words end within the scratchpad, or the row of POS within the scale memory.",
         lambda c, v: v["src"] + (v["pos"] // c.channels + 1) * v["words"] <= c.kv_scales
         if v["source"] else v["src"] + v["words"] <= c.scratch_words),
    ),
    "MATMUL": (
        ("`pattern` is one of the table, its M built in.",
         lambda c, v: v["pattern"] < len(PATTERNS)
         and PATTERNS[v["pattern"]].m in (1, *c.group_sizes)),
        ("`rows`, `beats` and `columns` are at least 1.",
         lambda c, v: min(v["rows"], v["beats"], v["columns"]) >= 1),
        ("`columns`, doubled by `digits` and by `two_beat`, are at most T.",
         lambda c, v: v["columns"] << v["digits"] << v["two_beat"] <= c.tokens),
        ("The rows end within the accumulator bank, unless `first` and `last` without `k_outer` make do without it.",
         lambda c, v: not _banked(v) or v["acc_row"] + v["rows"] <= c.acc_rows),
        ("`act` is a multiple of the pattern's ratio (at most 4), and the activations end within the planes.",
         lambda c, v: v["act"] % min(PATTERNS[v["pattern"]].ratio, 4) == 0
         and v["act"] + v["beats"] * PATTERNS[v["pattern"]].ratio <= c.plane_blocks),
        ("`wide`, `merge` and `k_outer` go with dense weights only.",
         lambda c, v: v["pattern"] == 0 or not (v["wide"] or v["merge"] or v["k_outer"])),
        ("`two_beat` with `k_outer` needs `wide`.",
         lambda c, v: not (v["two_beat"] and v["k_outer"]) or bool(v["wide"])),
        ("`scale`, `norm`, `gelu` and `merge` are at most 2, `divide` and `dest` at most 8.",
         lambda c, v: max(v[name] for name in ("scale", "norm", "gelu", "merge")) <= 2
         and max(v["divide"], v["dest"]) <= SUMS),
        ("With `merge`, `sequence` + `columns` is at most T.",
         lambda c, v: not v["merge"] or v["sequence"] + v["columns"] <= c.tokens),
        ("The constants of all rows fit the constants' queue.",
         lambda c, v: v["rows"] * constants(v) <= c.aux_words),
        ("Without `last` there is no epilogue: `scale`, `norm`, `bias`, `divide`, `gelu`, `residual` and `dest` are 0.",
         lambda c, v: bool(v["last"]) or not (
             v["scale"] or v["norm"] or v["bias"] or v["divide"] or v["gelu"] or v["residual"]
             or v["dest"])),
        ("Scores for softmax have no `norm`, `bias`, `divide`, `gelu` or `residual`.",
         lambda c, v: not v["dest"] or not (
             v["norm"] or v["bias"] or v["divide"] or v["gelu"] or v["residual"])),
        ("The results end within the scratchpad.",
         lambda c, v: not v["last"] or v["dest"] > 0 or _reach(v, v["rows"]) <= c.scratch_words),
        ("The scores are at most the longest context, at least those of the last token's length, and the probabilities end within the planes.",
         lambda c, v: not v["dest"] or (
             v["pos"] + v["columns"] <= v["rows"] * c.channels <= c.context
             and _reach(v, _blocks(v["rows"] * c.channels, c)) <= c.plane_blocks)),
        ("`head` is below the heads built in, and the scales read end within the scale memory.",
         lambda c, v: v["head"] < c.heads and (not _uses_scales(v) or v["kv_base"]
                                               + (v["rows"] - 1) * v["kv_heads"] + v["head"] < c.kv_scales)),
    ),
    "VECTOR": (
        ("`fn` is a function of the table.", lambda c, v: v["fn"] < len(VectorFn)),
        ("`words` is at least 1, and `dst`, `a` and `b` with them end within the scratchpad.",
         lambda c, v: v["words"] >= 1
         and max(v["dst"], v["a"], v["b"]) + v["words"] <= c.scratch_words),
    ),
    "SCALAR": (("`fn` is a function of the table.", lambda c, v: v["fn"] < len(ScalarFn)),),
    "QUANT": (
        ("`words` is at least 1, and `a` (and `b` with `gamma`) end within the scratchpad.",
         lambda c, v: v["words"] >= 1 and v["a"] + v["words"] <= c.scratch_words
         and (not v["gamma"] or v["b"] + v["words"] <= c.scratch_words)),
        (f"The slice is at most {SLICE_BLOCKS} blocks and ends within the planes.",
         lambda c, v: _blocks(v["words"] * c.vector_lanes, c) <= SLICE_BLOCKS
         and v["act"] + _blocks(v["words"] * c.vector_lanes, c) <= c.plane_blocks),
        ("`token` + 1, doubled by `digits` and by `two_beat`, is at most T.",
         lambda c, v: (v["token"] + 1) << v["digits"] << v["two_beat"] <= c.tokens),
        ("With `stats`, `word` + `words` is at most the words of the longest vector.",
         lambda c, v: not v["stats"] or v["word"] + v["words"] <= c.norm_words),
    ),
    "NORM": (
        ("`words` is at least 1 and at most the words of the longest vector.",
         lambda c, v: 1 <= v["words"] <= c.norm_words),
        ("`token` is below T.", lambda c, v: v["token"] < c.tokens),
    ),
    "CACHE": (
        ("The head ends within the scratchpad, `head` is below the heads built in, `sequence` + `token` below T.",
         lambda c, v: v["a"] + c.head_words <= c.scratch_words and v["head"] < c.heads
         and v["sequence"] + v["token"] < c.tokens),
        ("The scale's entry lies within the scale memory.",
         lambda c, v: v["kv_base"] + (v["pos"] + v["token"]) // c.channels * v["kv_heads"]
         + v["head"] < c.kv_scales),
    ),
    "SAMPLE": (
        ("`words` is at least 1; `k` is at most the candidates built in.",
         lambda c, v: v["words"] >= 1 and v["k"] <= c.top_k),
        ("`columns` is in 1..T, and the words of the last column end within the scratchpad.",
         lambda c, v: 1 <= v["columns"] <= c.tokens
         and v["a"] + v["stride"] * (v["columns"] - 1) + v["words"] <= c.scratch_words),
        ("`count` needs exactly `words` words.",
         lambda c, v: (v["words"] - 1) * c.vector_lanes < v["count"]
         <= v["words"] * c.vector_lanes),
    ),
    **dict.fromkeys(SENDS, _message("src")),
    **dict.fromkeys(RECEIVES, _message("dst")),
}


def span(config: CardConfig, name: str, v: Values) -> int:
    """Beats of HBM, per channel, that an instruction touches from its address on."""
    if name == "MATMUL":
        return sum(stream_beats(v["rows"], constants(v), v["beats"] << v["wide"],
                                PATTERNS[v["pattern"]], config.beat_bytes))
    per_row = -(-4 * v["words"] // config.beat_bytes)
    return per_row * (v["rows"] if name == "LOAD" else 1)


def record_beats(config: CardConfig, k: int) -> int:
    """Beats of one column's result record with ``k`` candidates."""
    return -(-4 * (len(RESULT) + 2 * k) // config.beat_bytes)


def check(config: CardConfig, name: str, v: Values, program_words: int, given: int = 0) -> Error:
    """The first rule that an instruction breaks, or ``Error.NONE``.

    Parameters
    ----------
    config : CardConfig
    name : str
    v : dict
        As for the rules; ``address`` is the sum of its parts modulo 2^32.
    program_words : int
        Instructions loaded.
    given : int
        Words of the list of given tokens.
    """
    if FORMATS[name][1] == Queue.CONTROL:
        beyond = (name in ("LOOP", "NEXT") and v["target"] >= program_words) or (
            name == "GIVEN" and v["number"] >= given)
        return Error.ILLEGAL_OPERAND if beyond else Error.NONE
    if not all(holds(config, v) for _, holds in (*COMMON, *RULES[name])):
        return Error.ILLEGAL_OPERAND
    if name in ("MATMUL", "LOAD", "STORE") \
            and v["address"] + span(config, name, v) > config.channel_beats:
        return Error.ADDRESS_RANGE
    return Error.NONE
