# SPDX-License-Identifier: Apache-2.0
"""The compiler: programs are legal and free of races for any GPT-2 on any configuration."""

import dataclasses
import random

import pytest

from heddle.check import Race, check
from heddle.compile import Compiler
from heddle.errors import UserError
from heddle.layout import Layout
from heddle.options import Options
from heddle.parts import BASES, SILENT, Columns, first_pass, fp32
from heddle.program import Builder
from heddle.shape import GELU_ERF, Shape
from rtl_gen.spec import isa
from rtl_gen.spec.config import SMALL, TINY, U280
from rtl_gen.spec.isa import Register, VectorFn

DEMO = Shape(layers=3, width=256, inner=1024, vocabulary=1024, context=256)
#: Divides nothing.
RAGGED = Shape(layers=2, width=320, inner=1001, vocabulary=997, context=101, gelu=GELU_ERF)
LEAST = Shape(layers=1, width=64, inner=1, vocabulary=1, context=1)
GPT2 = Shape(layers=12, width=768, inner=3072, vocabulary=50257, context=1024)
MEDIUM = Shape(layers=24, width=1024, inner=4096, vocabulary=50257, context=1024)
#: GPT-2 1.5B, cut down to three layers: the program is the same.
LARGE = Shape(layers=3, width=1600, inner=6400, vocabulary=50257, context=1024)


def compiled(config, shape, pruning=(1, 1), *, tokens=1, sequences=1, candidates=0,
             store_logits=False, **options):
    layout = Layout(config, shape, Options(**options), pruning)
    columns = Columns(tokens=tokens, sequences=sequences)
    return layout, Compiler(layout, columns, candidates=candidates,
                            store_logits=store_logits).program()


def starts(layout, passes=2, tokens=1):
    """Registers at the first, some middle and the last positions; the first of a lane row, too."""
    last, lanes = layout.context - tokens, layout.config.channels
    for position in sorted({0, last // 3, last // 2 // lanes * lanes, max(0, last - tokens)}):
        # Both passes with logits, the second, none.
        for silent in (1, 2, 3):
            yield {**first_pass(layout, Columns(tokens=tokens), [position]), SILENT: silent,
                   Register.LEFT: min(passes, (layout.context - position) // tokens)}


@pytest.mark.parametrize("config", [TINY, SMALL, U280], ids=lambda config: config.name)
@pytest.mark.parametrize("shape", [DEMO, RAGGED, LEAST], ids=["demo", "ragged", "least"])
@pytest.mark.parametrize("options", [
    {}, {"pruning": (2, 4)}, {"pruning": (1, 4), "cache": "int8", "store_logits": True},
    {"pruning": (1, 16), "activation": "a8", "candidates": 8},
    {"pruning": (3, 8), "activation": "a8", "cache": "int8"}], ids=repr)
def test_programs_have_no_races(config, shape, options):
    layout, program = compiled(config, shape, **options)
    for registers in starts(layout):
        assert check(config, program.instructions, registers) > len(program) // 2
    for word, (name, fields) in zip(program.words(), program.instructions, strict=True):
        back, values = isa.decode(word)
        assert back == name
        assert {key: values[key] for key in fields} == fields


@pytest.mark.parametrize(("config", "shape", "options", "tokens"), [
    (TINY, DEMO, {}, 2), (TINY, RAGGED, {"activation": "a8", "cache": "int8"}, 4),
    (SMALL, RAGGED, {"pruning": (2, 4), "activation": "a8"}, 4),
    (U280, DEMO, {"pruning": (1, 4), "store_logits": True}, 2),
    (U280, MEDIUM, {"activation": "a8", "cache": "int8"}, 4)], ids=repr)
def test_passes_of_several_tokens_have_no_races(config, shape, options, tokens):
    layout, program = compiled(config, shape, tokens=tokens, **options)
    assert layout.tokens == tokens
    runs = list(starts(layout, tokens=tokens))
    for registers in runs if shape is not MEDIUM else runs[-1:]:
        check(config, program.instructions, registers, given=[7] * 2 * tokens)


@pytest.mark.parametrize(("config", "shape", "options", "sequences"), [
    (TINY, DEMO, {}, 2), (TINY, RAGGED, {"activation": "a8", "cache": "int8"}, 4),
    (SMALL, RAGGED, {"pruning": (2, 4), "activation": "a8"}, 3),
    (U280, DEMO, {"pruning": (1, 4), "store_logits": True}, 2),
    (U280, MEDIUM, {"activation": "a8", "cache": "int8"}, 4)], ids=repr)
def test_batches_have_no_races(config, shape, options, sequences):
    layout, program = compiled(config, shape, tokens=sequences, sequences=sequences, **options)
    assert layout.sequences >= sequences
    last, rng = layout.context - 1, random.Random(f"{config.name} {shape} {options}")
    # All at one position, all elsewhere, some at the ends.
    for positions in ([0] * sequences, [last] * sequences,
                      [rng.randrange(layout.context) for _ in range(sequences)],
                      [last, *[0] * (sequences - 1)]):
        for silent in (1, 2):
            registers = {**first_pass(layout, Columns(tokens=sequences, sequences=sequences),
                                      positions), SILENT: silent, Register.LEFT: 1}
            check(config, program.instructions, registers, given=[7] * sequences)


def test_as_many_sequences_as_memory_has_room_for():
    shape, options = dataclasses.replace(GPT2, layers=4, vocabulary=2000), Options(activation="a8")
    assert Layout(TINY, shape, options).sequences == 2
    size = 1 << 24
    for change in ({"channel_bytes": size}, {"kv_scales": 4096}, {"plane_windows": 128}):
        assert Layout(dataclasses.replace(TINY, **change), shape, options).sequences == 1


@pytest.mark.parametrize(("config", "context", "tokens"), [
    # The scratchpad has no room for four hidden vectors; two passes must fit the context.
    (TINY, 1024, 2), (U280, 1024, 4), (U280, 8, 2), (U280, 4, 1),
    (dataclasses.replace(TINY, scratch_words=4096), 1024, 1)])
def test_a_pass_takes_as_many_tokens_as_fit(config, context, tokens):
    layout = Layout(config, dataclasses.replace(MEDIUM, layers=1),
                    Options(activation="a8", context=context))
    assert layout.tokens == tokens


@pytest.mark.parametrize(("config", "shape", "pruning"), [
    (TINY, GPT2, (2, 4)), (U280, MEDIUM, (1, 1)), (U280, LARGE, (2, 4)),
    # Two columns only: two digits take both, and no second beat fits in a cycle.
    (dataclasses.replace(TINY, tokens=2), DEMO, (1, 1)),
    # One slot of the bank for each row that counts.
    (dataclasses.replace(SMALL, acc_rows=32), RAGGED, (2, 8)),
], ids=["124m", "345m", "1.5b", "two columns", "small bank"])
def test_large_models_and_odd_cards(config, shape, pruning):
    layout, program = compiled(config, shape, pruning)
    registers = list(starts(layout, passes=1))[-1]
    assert check(config, program.instructions, registers) > len(program)


def mutants(program):
    """The program without one wait and one signal of a counter, for every pair of them."""
    for counter in range(isa.COUNTERS):
        bit = 1 << counter
        waits, signals = ([k for k, (_, fields) in enumerate(program.instructions)
                           if fields[kind] & bit] for kind in ("wait", "signal"))
        for number, (wait, signal) in enumerate(zip(waits, signals, strict=False)):
            changed = list(program.instructions)
            for place, kind in ((wait, "wait"), (signal, "signal")):
                name, fields = changed[place]
                changed[place] = name, {**fields, kind: fields[kind] & ~bit}
            yield counter, number, changed


def test_the_checker_finds_every_wait_that_is_left_out():
    """Then no wait is there in vain either."""
    layout, program = compiled(
        TINY, Shape(layers=2, width=128, inner=200, vocabulary=300, context=20))
    registers = {**first_pass(layout, Columns(), [8]), Register.LEFT: 2}
    runs = [{**registers, SILENT: 1}, {**registers, SILENT: 2}]
    for run in runs:
        check(TINY, program.instructions, run)

    def passes(changed):
        try:
            return all(check(TINY, changed, run) for run in runs)
        except Race:
            return False

    missed, count = [], 0
    for counter, number, changed in mutants(program):
        count += 1
        if passes(changed):
            missed.append((counter, number))
    assert count > 30
    assert missed == []


def test_the_program_does_not_depend_on_the_position():
    """One program serves every position: what depends on it comes from registers."""
    _, program = compiled(TINY, DEMO)
    assert program.instructions[-1][0] == "HALT"
    assert not any(fields.get("rows") for name, fields in program.instructions
                   if fields.get("rows_reg"))


def test_one_fence_a_step_is_enough():
    _, program = compiled(U280, DEMO)
    assert sum(fields.get("fence", 0) for _, fields in program.instructions) == 1


def test_bases_leave_room_for_both_digits():
    for bases in BASES:
        assert all(-128 <= base < 0 for base in dataclasses.astuple(bases))
    assert fp32(0.1) == 0x3DCCCCCD


@pytest.mark.parametrize(("shape", "options", "sentence"), [
    (dataclasses.replace(DEMO, context=4096, layers=1), {"context": 4096},
     "context must be at most the context of tiny, 2048, not 4096"),
    (DEMO, {"context": 257}, "context must be at most the model's 256, not 257"),
    (dataclasses.replace(DEMO, width=64 * 33), {},
     "heads of tiny must be at least 33 for this model, not 32"),
    (dataclasses.replace(DEMO, inner=9000), {}, "inner must be at most 8192, not 9000"),
    (dataclasses.replace(DEMO, vocabulary=1 << 20), {},
     "vocabulary must be below 1048576, not 1048576"),
])
def test_what_does_not_fit_is_one_sentence(shape, options, sentence):
    with pytest.raises(UserError) as caught:
        Layout(TINY, shape, Options(**options))
    assert str(caught.value) == sentence


def test_a_model_larger_than_memory():
    with pytest.raises(UserError, match=r"^MB of each of the 4 HBM channels of tiny must be at "
                                        r"least 8\d\d for this model, not 256$"):
        Layout(TINY, dataclasses.replace(MEDIUM, layers=200), Options())


@pytest.mark.parametrize(("change", "sentence"), [
    ({"scratch_words": 512}, "scratch_words of tiny must be at least 832 for this model, not 512"),
    ({"plane_windows": 32}, "plane_windows of tiny must be at least 36 for this model, not 32"),
    ({"kv_scales": 128}, "kv_scales of tiny must be at least 256 for this model, not 128"),
    ({"program_words": 128},
     "program_words of tiny must be at least 195 for this model, not 128"),
    ({"group_sizes": (8,)}, "M of the pattern must be one of 8 on tiny, not 4"),
])
def test_cards_that_are_too_small(change, sentence):
    with pytest.raises(UserError) as caught:
        compiled(dataclasses.replace(TINY, **change), DEMO,
                 (2, 4) if "group_sizes" in change else (1, 1))
    assert str(caught.value) == sentence


def test_options_are_checked():
    for options, sentence in (
            ({"activation": "a4"}, "activation must be a16 or a8, not 'a4'"),
            ({"cache": "fp8"}, "cache must be int16 or int8, not 'fp8'"),
            ({"context": 0}, "context must be at least 1, not 0")):
        with pytest.raises(UserError) as caught:
            Options(**options)
        assert str(caught.value) == sentence


# ---- The builder alone ----

def vector(dst, a):
    return {"fn": VectorFn.COPY, "dst": dst, "a": a, "words": 1}


def ordered(*instructions):
    builder = Builder(TINY)
    builder.section()
    for name, fields in (*instructions, ("HALT", {})):
        builder.emit(name, **fields)
    program = builder.finish({})
    check(TINY, program.instructions, {})
    return [(fields["wait"], fields["signal"]) for _, fields in program.instructions]


def test_one_wait_serves_all_that_come_before():
    load = ("LOAD", {"rows": 1, "words": 1, "dst": 0})
    later = ("LOAD", {"rows": 1, "words": 1, "dst": 1})
    assert ordered(load, later, ("VECTOR", vector(2, 1)), ("VECTOR", vector(3, 0))) == [
        (0, 0), (0, 1), (1, 0), (0, 0), (0, 0)]


def test_independent_work_waits_for_nothing():
    assert ordered(("LOAD", {"rows": 1, "words": 1, "dst": 0}), ("VECTOR", vector(2, 1))) == [
        (0, 0)] * 3


def test_what_crosses_a_section_needs_a_role():
    builder = Builder(TINY)
    builder.section()
    builder.emit("LOAD", rows=1, words=1)
    builder.section()
    builder.emit("VECTOR", **vector(2, 0))
    builder.emit("HALT")
    with pytest.raises(RuntimeError, match="both need a role"):
        builder.finish({})


def test_fields_out_of_range_are_the_models_size():
    with pytest.raises(UserError, match="beats of MATMUL must be at most 1023, not 1024"):
        Builder(TINY).emit("MATMUL", beats=1024)


@pytest.mark.parametrize("config", [TINY, SMALL, U280], ids=lambda config: config.name)
def test_stored_logits_lie_one_beside_another(config):
    """Every STORE but the last fills its beats, and the next one goes on behind them."""
    shape = dataclasses.replace(GPT2, layers=1)
    layout, program = compiled(config, shape, store_logits=True)
    stores = [fields for name, fields in program.instructions if name == "STORE"
              and not fields.get("source") and fields["address"] >= layout.memory.logits
              and not fields.get("address_reg")]
    beat, words = layout.memory.logits, 0
    for fields in stores:
        assert fields["address"] == beat
        assert words * 4 % config.beat_bytes == 0
        words += fields["words"]
        beat = layout.memory.logits + -(-4 * words // config.beat_bytes)
    assert words == -(-shape.vocabulary // config.channels)
