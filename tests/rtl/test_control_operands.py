# SPDX-License-Identifier: Apache-2.0
"""Dispatch's judgement of every instruction against the rules of the contract."""

import collections
import contextlib
import dataclasses
import random

import pytest

from rtl_gen.control.operands import KEPT, STEPPED, Operands
from rtl_gen.spec import isa, rules
from rtl_gen.spec.config import TINY, U280
from rtl_gen.spec.formats import PATTERNS, stream_beats
from rtl_gen.spec.isa import Register
from rtl_gen.spec.registers import RESULT, Error
from tests.rtl.bench import simulate

#: Instructions, at most, for each rule that breaks alone.
EACH = 6
#: Instructions that a card alone refuses, and number of the rule that says so.
MESSAGES, ALONE = isa.SENDS + isa.RECEIVES, len(rules.COMMON)


def random_fields(config, name, rng):
    """Fields with sizes near their limits, mostly legal each by itself."""
    near = {
        "acc_row": config.acc_rows, "act": config.plane_blocks, "dst": config.scratch_words,
        "src": config.scratch_words, "a": config.scratch_words, "b": config.scratch_words,
        "kv_base": config.kv_scales, "address": config.channel_beats, "head": config.heads,
        "word": config.norm_words, "k": config.top_k, "target": 40}
    if name == "NORM":
        near["words"] = config.norm_words
    if name in ("SAMPLE", *MESSAGES):       # between columns; of LOAD and STORE it is beats
        near["stride"] = config.scratch_words // 2
    small = {"rows": 40, "beats": 40, "words": 60, "stride": 300, "kv_heads": 20,
             "columns": config.tokens, "dst_stride": 60, "count": 60 * config.vector_lanes,
             "fn": 13, "pattern": len(PATTERNS), "token": config.tokens}
    values = {}
    for field in isa.fields(name):
        limits = field.limits
        if field.name in near and rng.random() < 0.8:
            value = near[field.name] * rng.choice((0, 0.25, 0.5, 1)) - rng.randrange(-2, 70)
        elif field.name in small and rng.random() < 0.95:
            value = rng.randrange(rng.choice((3, small[field.name] + 2)))
        elif field.width <= 2 or field.name in ("dest", "divide"):
            value = rng.choice(limits) if rng.random() < 0.1 else rng.choice((0, 0, 1))
        elif field.name.endswith("_reg"):
            value = rng.choice((0, 0, 0, rng.randrange(32)))
        else:
            value = rng.choice(limits)
        values[field.name] = min(max(int(value), limits.start), limits.stop - 1)
    if name == "MATMUL" and rng.random() < 0.8:
        values |= {"first": 1, "last": 1}
        if values["dest"] and rng.random() < 0.8:
            values |= dict.fromkeys(("residual", "norm", "bias", "gelu", "divide"), 0)
    if name == "SAMPLE" and rng.random() < 0.7:
        count = values["words"] * config.vector_lanes - rng.randrange(config.vector_lanes + 1)
        values["count"] = min(max(0, count), 0xFFFF)
    if name == "GIVEN" and rng.random() < 0.5:
        values |= {"rs": 0, "imm": rng.randrange(-1, 30)}
    return values


def resolve(name, values, registers):
    """The values that the rules are about."""
    values = values | {"pos": registers[isa.POSITIONS[values.get("sequence", 0)]]}
    for field in ("rows", "beats"):
        if values.get(f"{field}_reg"):
            values[field] = registers[values[f"{field}_reg"]]
    if "address" in values:
        values["address"] += registers[values["address_reg"]]
        values["address"] += registers[values.get("index_reg", 0)] * values.get("stride", 0)
        values["address"] %= 1 << 32
    if name == "GIVEN":
        values["number"] = (registers[values["rs"]] + values["imm"]) % (1 << 32)
    return values


def broken_rules(config, name, values):
    """Numbers of the rules that do not hold."""
    broken = []
    for number, (_, holds) in enumerate((*rules.COMMON, *rules.RULES[name])):
        # Rules about a pattern that there is not do not count.
        with contextlib.suppress(IndexError):
            if not holds(config, values):
                broken.append(number)
    return broken


def cases(config, rng):
    """Instructions with their registers: each rule broken alone, legal ones, and random words."""
    for name in isa.FORMATS:
        if name not in rules.RULES:
            for _ in range(8 * EACH):
                yield isa.encode(name, **{
                    key: value for key, value in random_fields(config, name, rng).items()
                    if key != "opcode"}), random_registers(config, rng)
            continue
        wanted = collections.Counter(dict.fromkeys(
            range(len(rules.COMMON) + len(rules.RULES[name])), EACH))
        if name not in ("MATMUL", "LOAD") or config.kv_scales < 1 << 12:
            del wanted[0]       # neither rows nor beats, or so many fit nowhere
        if name == "NORM" and config.tokens == 4:
            del wanted[3]       # no token is too large for its field
        wanted[None] = wanted["several"] = 5 * EACH
        if name in MESSAGES and config.cards > 1:
            del wanted[ALONE]
        elif name in MESSAGES:
            wanted = collections.Counter({ALONE: 5 * EACH, "several": 5 * EACH})
        legal = None
        for _ in range(20_000):
            values, registers = random_fields(config, name, rng), random_registers(config, rng)
            del values["opcode"]
            if legal and rng.random() < 0.9:
                kept = rng.sample(list(values), len(values) - rng.randrange(1, 5))
                # The address is always another: one out of range must not stay so.
                values |= {key: legal[0][key] for key in kept if not key.startswith("address")}
                registers = rng.choice((registers, legal[1]))
            broken = broken_rules(config, name, resolve(name, values, registers))
            which = "several" if len(broken) > 1 else broken[0] if broken else None
            if not broken:
                legal = values, registers
            if not wanted[which]:
                continue
            wanted[which] -= 1
            yield isa.encode(name, **values), registers
            if not wanted.total():
                break
        missing = [rule for rule, left in wanted.items() if left == EACH]
        assert not missing, f"no stimulus for the rules {missing} of {name}"
    for _ in range(20 * EACH):
        name = rng.choice(list(isa.FORMATS))
        word = isa.encode(name) ^ 1 << rng.randrange(isa.WORD_BITS)
        yield word, random_registers(config, rng)


def random_registers(config, rng):
    registers = [rng.choice((rng.randrange(64), rng.randrange(1020, 1030),
                             rng.randrange(4090, 4100), rng.randrange(1 << 32)))
                 for _ in Register]
    registers[0] = 0
    for register in isa.POSITIONS:
        registers[register] = rng.randrange(rng.choice((100, 100, config.context, 1 << 32)))
    return registers


def expected(config, word, pc, instructions, registers, results, result_beats, given):
    """Error, and the resolved operands of a legal instruction, from the contract."""
    try:
        name, values = isa.decode(word)
    except ValueError:
        return Error.ILLEGAL_OPCODE, None, {}
    if pc >= instructions:
        return Error.ILLEGAL_OPCODE, None, {}
    values = resolve(name, values, registers)
    error = rules.check(config, name, values, instructions, given)
    record = (results + registers[Register.STEP] * result_beats) % (1 << 32)
    if error == Error.NONE and name == "SAMPLE" and values["last"]:
        beats = -(-4 * (len(RESULT) + 2 * values["k"]) // config.beat_bytes)
        if record + beats * values["columns"] > config.channel_beats:
            error = Error.ADDRESS_RANGE
        values["record"] = record
    if name == "MATMUL" and error == Error.NONE:
        aux = (values["scale"] == 1) + (values["norm"] > 0) + values["bias"]
        pattern = PATTERNS[values["pattern"]]
        beats = stream_beats(values["rows"], aux, values["beats"] << values["wide"], pattern,
                             config.beat_bytes)
        values["stream"] = (values["address"], beats[0], beats[2], pattern.code)
    if name == "LOAD" and error == Error.NONE:
        values["stream"] = (values["address"], rules.span(config, name, values), 0, 0)
    return error, name, values


FEWER = dataclasses.replace(TINY, name="fewer", group_sizes=(4, 16), tokens=2, heads=3, context=512)
OF_TWO = dataclasses.replace(TINY, name="of_two", cards=2)


@pytest.mark.parametrize("config", [TINY, FEWER, OF_TWO, U280], ids=lambda config: config.name)
def test_verdict_and_operands_are_those_of_the_contract(config):
    dut = Operands(config)
    seen = collections.Counter()

    async def bench(ctx):
        rng = random.Random(f"operands {config.name}")
        names = list(isa.FORMATS)
        for word, registers in cases(config, rng):
            instructions = rng.randrange(20, 60)
            pc = rng.randrange(instructions) if rng.random() < 0.95 else instructions
            given = rng.choice((0, rng.randrange(30), config.context))
            results = config.channel_beats - rng.randrange(rng.choice((1, 1 << 8, 1 << 18))) - 1
            result_beats = rng.choice((0, 3, rng.randrange(1 << 10), rng.randrange(1 << 32)))
            error, name, values = expected(
                config, word, pc, instructions, registers, results, result_beats, given)
            seen[name, error] += 1

            # Registers that change by themselves are not read where they were written.
            for number in range(len(Register)):
                data = rng.getrandbits(32) if number in (Register.ZERO, *STEPPED) \
                    else registers[number]
                ctx.set(dut.put, {"en": 1, "addr": number, "data": data})
                await ctx.tick()
            ctx.set(dut.put, {"en": 0, "addr": 0, "data": 0})
            for port, value in (("word", word), ("pc", pc), ("instructions", instructions),
                                ("kept", [registers[k] for k in KEPT]), ("results", results),
                                ("result_beats", result_beats), ("given", given), ("start", 1)):
                ctx.set(getattr(dut, port), value)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for cycles in range(dut.LATENCY):   # noqa: B007
                if ctx.get(dut.valid):
                    break
                await ctx.tick()
            assert ctx.get(dut.valid), f"{name} without a verdict after {cycles} cycles"
            case = f"{name} {values} {registers}"
            assert ctx.get(dut.error) == error, case
            if error != Error.NONE:
                continue
            assert ctx.get(dut.kind) == 1 << names.index(name), case
            for port in ("rows", "beats", "address", "record", "number"):
                if port in values:
                    assert ctx.get(getattr(dut, port)) == values[port], f"{port} of {case}"
            sequence = values.get("sequence", 0)
            assert ctx.get(dut.pos) == values["pos"] % (1 << 12), case
            assert ctx.get(dut.length) == registers[isa.LENGTHS[sequence]] % (1 << 12), case
            if "stream" in values:
                job = ctx.get(dut.stream)
                assert (job.address, job.aux, job.values, job.pattern) == values["stream"], case
            if name in ("ADDI", "SHRI", "GIVEN", "LOOP"):
                source = values["rd" if name == "LOOP" else "rs"]
                assert ctx.get(dut.value) == registers[source], case

    simulate(dut, bench, timeout=100_000, wave="operands")
    # The stimulus reaches every kind of verdict.
    for name in isa.FORMATS:
        if name in MESSAGES and config.cards == 1:
            assert not seen[name, Error.NONE]
            continue
        assert seen[name, Error.NONE] >= 3, f"no legal {name}: {seen}"
    for name in (*rules.RULES, "LOOP", "NEXT", "GIVEN"):
        assert seen[name, Error.ILLEGAL_OPERAND] >= 3, f"no refused {name}: {seen}"
    for name in ("MATMUL", "LOAD", "STORE", "SAMPLE"):
        assert seen[name, Error.ADDRESS_RANGE] >= 1, f"no {name} out of range: {seen}"
