# SPDX-License-Identifier: Apache-2.0
"""The race checker: what is ordered passes, what is not is found."""

import pytest

from heddle.check import Checker, Race, check
from heddle.trace import trace
from rtl_gen.spec.config import TINY
from rtl_gen.spec.isa import Register, VectorFn

START = {Register.POS: 5, Register.LEN: 6, Register.LEFT: 1}
LOAD = ("LOAD", {"rows": 1, "words": 4, "dst": 0})
ADD = ("VECTOR", {"fn": VectorFn.ADD, "dst": 8, "a": 0, "b": 4, "words": 4})
QUANT = ("QUANT", {"a": 8, "words": 4, "act": 0, "digits": 1})
WEIGHTS = ("MATMUL", {"rows": 4, "beats": 1, "first": 1, "last": 1, "act": 0, "digits": 1,
                      "columns": 1, "dst": 16})
SCORES = ("MATMUL", {"rows": 2, "beats": 1, "first": 1, "last": 1, "act": 0, "digits": 1,
                     "columns": 1, "dest": 1, "dst": 4, "scale": 2, "kv_heads": 1})
VALUES = ("MATMUL", {"rows": 2, "beats": 1, "first": 1, "last": 1, "act": 4, "digits": 1,
                     "columns": 1, "divide": 1, "dst": 20, "k_outer": 1})
STORE = ("STORE", {"address": 64, "words": 4, "src": 16})
HALT = ("HALT", {})


def tag(instruction, wait=(), signal=(), **more):
    """An instruction with counters and other fields."""
    name, fields = instruction
    bits = {"wait": sum(1 << k for k in wait), "signal": sum(1 << k for k in signal)}
    return name, {**fields, **bits, **more}


def found(*program) -> str:
    with pytest.raises(Race) as caught:
        check(TINY, [*program, HALT], START)
    return str(caught.value)


def test_a_chain_through_all_queues_passes():
    program = [tag(LOAD, signal=[0]), tag(ADD, wait=[0]), tag(QUANT, signal=[1]),
               tag(WEIGHTS, wait=[1], signal=[2]), tag(STORE, wait=[2]), HALT]
    assert check(TINY, program, START) == 6


def test_each_missing_wait_is_a_race():
    assert found(LOAD, ADD) == (
        "instruction 1 (VECTOR) conflicts around scratch 0 with instruction 0 (LOAD), whose "
        "memory stage need not be done")
    assert "around planes 0 with instruction 0 (QUANT)" in found(QUANT, WEIGHTS)
    assert "around scratch 16 with instruction 0 (MATMUL), whose epilogue" in found(WEIGHTS, STORE)


def test_write_after_read_is_a_race_too():
    assert "around planes 0 with instruction 0 (MATMUL), whose engine" in found(WEIGHTS, QUANT)
    assert "around scratch 0 with instruction 0 (VECTOR)" in found(ADD, LOAD)


def test_softmax_overtakes_nothing_but_is_overtaken():
    assert "around planes 4 with instruction 0 (MATMUL), whose softmax" in found(SCORES, VALUES)
    assert check(TINY, [tag(SCORES, signal=[3]), tag(VALUES, wait=[3]), HALT], START)
    # The engine has read the old probabilities before softmax writes new ones.
    assert check(TINY, [VALUES, SCORES, HALT], START)


def test_knowledge_spreads_through_other_queues():
    """QUANT waits for the second product, whose end says that the engine is through the first."""
    banked = tag(WEIGHTS, last=0, dst=0)
    program = [banked, tag(WEIGHTS, first=0, signal=[0]), tag(ADD, wait=[0]), QUANT, HALT]
    assert check(TINY, program, START)
    assert "engine" in found(banked, tag(WEIGHTS, signal=[0]), QUANT)


def test_control_waits_hold_everything_after():
    program = [tag(LOAD, signal=[0]), tag(("NOP", {}), wait=[0]), ADD, HALT]
    assert check(TINY, program, START)


def test_fresh_keys_and_values_and_their_scales_are_awaited():
    base = tag(SCORES, scale=0, kv_base=100)
    for kind in range(2):
        cache = ("CACHE", {"a": 32, "kind": kind, "kv_heads": 1})
        other = ("CACHE", {"a": 32, "kind": kind, "kv_heads": 1, "head": 1, "kv_base": 8})
        merge = tag(base, merge=1 + kind)
        assert "around fresh" in found(cache, merge)
        assert "around fresh" in found(merge, cache)
        assert check(TINY, [other, merge, HALT], START)
        # Another sequence has another buffer; a second token has that of the next sequence.
        elsewhere = tag(cache, sequence=2, kv_base=8)
        assert check(TINY, [elsewhere, merge, HALT], START)
        assert check(TINY, [elsewhere, tag(merge, digits=0, columns=2), HALT], START)
        assert "around fresh" in found(elsewhere, tag(merge, digits=0, columns=3))
        assert "around fresh" in found(tag(elsewhere, sequence=1, token=1),
                                       tag(merge, digits=0, columns=3))
    cache = ("CACHE", {"a": 32, "kv_heads": 1})
    assert "around scales 0 with instruction 0 (CACHE), whose vector" in found(cache, SCORES)
    # Scores for softmax read V scales there, after the K scales.
    assert "around scales 1 with instruction 0 (MATMUL), whose softmax" in found(SCORES, cache)
    rows = ("LOAD", {"rows": 2, "words": 1, "target": 1})
    assert "whose memory" in found(rows, SCORES)
    assert "around scales 1" in found(cache, ("STORE", {"source": 1, "words": 1}))


def test_positions_are_those_of_the_sequence():
    store = ("STORE", {"source": 1, "words": 1, "sequence": 3})
    cache = ("CACHE", {"a": 32, "kv_heads": 1, "kv_base": 2})
    registers = START | {Register.POS3: 13}        # row 3; POS is in row 1
    with pytest.raises(Race, match="around scales 3"):
        check(TINY, [cache, store, HALT], registers)
    assert check(TINY, [cache, tag(store, sequence=2), HALT], registers)


def test_statistics_and_sums_are_awaited():
    norm = ("NORM", {"words": 1, "set": 1})
    assert "around stats 1" in found(norm, tag(WEIGHTS, norm=2))
    assert "around stats 1 with instruction 0 (MATMUL), whose epilogue" in found(
        tag(WEIGHTS, norm=2), norm)
    assert check(TINY, [norm, tag(WEIGHTS, norm=1), HALT], START)
    assert "around sums 0" in found(tag(SCORES, signal=[]), tag(VALUES, act=40))
    assert check(TINY, [SCORES, tag(VALUES, act=40, divide=2), HALT], START)
    assert "around sums 7" in found(tag(SCORES, dest=8), tag(VALUES, act=40, divide=8))


def test_the_sampled_token_is_awaited():
    sample = ("SAMPLE", {"a": 0, "words": 1, "count": 1, "last": 1, "columns": 1})
    assert "around token 0" in found(sample, ("NEXT", {}))
    assert check(TINY, [tag(sample, last=0), ("NEXT", {}), HALT], START)
    assert check(TINY, [tag(sample, signal=[0]), tag(("NEXT", {}), wait=[0]), HALT], START)


def test_logits_of_every_column_are_awaited():
    sample = ("SAMPLE", {"a": 0, "words": 4, "count": 16, "columns": 3, "stride": 10})
    for dst, column in ((3, 0), (13, 1), (20, 2)):
        assert f"around scratch {10 * column} " in found(
            tag(LOAD, dst=dst), sample)
    for dst in (4, 14, 24):
        assert check(TINY, [tag(LOAD, dst=dst), sample, HALT], START)


def test_given_words_are_followed():
    """The number of rows comes from the list of given tokens."""
    program = [("GIVEN", {"rd": 7, "rs": Register.STEP, "imm": 1}),
               ("LOAD", {"rows_reg": 7, "words": 4}), tag(ADD, a=8, b=8, dst=12),
               ("NEXT", {}), HALT]
    assert check(TINY, program, START, [5, 2])
    with pytest.raises(Race, match="around scratch 8"):
        check(TINY, program, START, [5, 3])
    with pytest.raises(Race, match=r"instruction 0 \(GIVEN\) must be legal"):
        check(TINY, program, START, [5])
    with pytest.raises(RuntimeError, match="GIVEN"):
        list(trace(program, START, given=[5]))
    # NEXT takes the token from the list, too.
    program = [("NEXT", {}), ("LOAD", {"rows_reg": Register.TOKEN, "words": 4}), HALT]
    assert list(trace(program, START, given=[5, 9]))[1].values["rows"] == 9


def test_vector_functions_touch_what_they_use():
    load = tag(LOAD, dst=4)
    assert "around scratch 4" in found(load, ADD)
    assert check(TINY, [load, tag(ADD, fn=VectorFn.COPY), HALT], START)
    store = tag(STORE, src=8)
    assert "around scratch 8" in found(ADD, store)
    assert check(TINY, [tag(ADD, fn=VectorFn.SUM), store, HALT], START)


def test_counters_are_kept_apart():
    assert found(tag(ADD, wait=[0])) == (
        "instruction 0 (VECTOR) waits for counter 0, which no earlier instruction signals")
    two = tag(LOAD, signal=[0]), tag(QUANT, signal=[0])
    assert found(*two) == "instruction 1 (QUANT) and another stage both signal counter 0"
    assert found(tag(LOAD, signal=[0]), tag(LOAD, signal=[0], dst=40), tag(ADD, wait=[0]),
                 tag(STORE, wait=[0])) == (
        "instruction 3 (STORE) and another queue both wait for counter 0")
    assert found(tag(LOAD, signal=[4])) == "counters [4] must be zero at the end"
    assert "takes counter 0 above 255" in found(*[tag(QUANT, signal=[0])] * 256)


def test_control_may_take_what_others_left():
    """The vector unit is through when control takes the next token of its counter."""
    load, nop = tag(LOAD, signal=[0]), ("NOP", {})
    program = [load, tag(ADD, wait=[0], signal=[1]), tag(load, signal=[0], dst=40),
               tag(nop, wait=[1]), tag(nop, wait=[0]), tag(load, signal=[0], dst=44),
               tag(ADD, wait=[0], a=44), HALT]
    assert check(TINY, program, START)
    assert found(*program[:3], tag(nop, wait=[0]), *program[5:-1]) == (
        "instruction 3 (NOP) and another queue both wait for counter 0")


def test_memory_that_was_written_needs_a_fence():
    read = tag(LOAD, address=64, dst=32)
    assert found(STORE, read) == ("instruction 1 (LOAD) reads what instruction 0 (STORE) writes, "
                                  "without a fence in between")
    assert check(TINY, [STORE, tag(read, fence=1), HALT], START)
    assert check(TINY, [STORE, tag(LOAD, fence=1), read, HALT], START)
    assert check(TINY, [STORE, tag(LOAD, address=68, dst=32), HALT], START)


def test_illegal_instructions_are_found():
    assert found(tag(LOAD, words=0)) == (
        "instruction 0 (LOAD) must be legal, not ILLEGAL_OPERAND")
    assert found(tag(LOAD, address=1 << 31)) == (
        "instruction 0 (LOAD) must be legal, not ADDRESS_RANGE")
    assert found(tag(ADD, s=16)) == "instruction 0 (VECTOR) has a field out of range"


def test_programs_end():
    with pytest.raises(RuntimeError, match="must end with HALT"):
        check(TINY, [LOAD], START)
    with pytest.raises(RuntimeError, match="must end within"):
        Checker(TINY, [("NEXT", {"target": 0}), HALT]).run({Register.LEFT: 0}, limit=100)
