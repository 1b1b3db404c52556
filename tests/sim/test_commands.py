# SPDX-License-Identifier: Apache-2.0
"""Commands, control instructions, dependency counters, errors and memory of the functional card."""

import random
import resource

import numpy as np
import pytest

from cardsim.functional import FunctionalCard
from cardsim.functional.program import check, decode
from heddle.card import CardError, CardStopped, CardTimeout
from rtl_gen.spec import contract, isa, rules
from rtl_gen.spec.config import TINY
from rtl_gen.spec.registers import STATUS, STATUS_MAGIC, Error
from tests.sim.bench import STATUS_BEAT, Bench

MASK = 0xFFFFFFFF


def stopped(bench, *program, **command):
    """The status of a command that must fail."""
    with pytest.raises(CardStopped) as caught:
        bench.run(*program, **command)
    return caught.value.status


def assert_stopped_at(status, code, pc, word):
    assert (status["error"], status["pc"], status.instruction) == (code, pc, word)


# ---- Control. ----

def golden_control(program, registers, given, stops, sampled=0):
    """Registers after a control program: straight from the instruction table."""
    r, pc, trail = list(registers), 0, []
    while True:
        name, f = program[pc]
        trail.append(pc)
        pc += 1
        if name == "HALT":
            return r, trail
        if name in ("ADDI", "SHRI"):
            value = r[f["rs"]] + f["imm"] if name == "ADDI" else r[f["rs"]] >> f["imm"]
            r[f["rd"]] = value & MASK
        elif name == "GIVEN":
            r[f["rd"]] = given[r[f["rs"]] + f["imm"] & MASK]
        elif name == "LOOP":
            left = r[f["rd"]] - 1 & MASK
            r[f["rd"]] = left
            if left:
                pc = f["target"]
        elif name == "NEXT":
            r[1], r[2], r[5], r[6] = (x & MASK for x in (r[1] + 1, r[2] + 1, r[5] + 1, r[6] - 1))
            r[3] = given[r[5]] if r[5] < len(given) else sampled
            if r[6] and not (r[5] >= len(given) and r[3] in stops):
                pc = f["target"]
        r[0] = 0


@pytest.mark.parametrize("case", range(20))
def test_random_control_programs(case):
    rng = random.Random(f"control {case}")
    registers = [0] + [rng.choice([1, 2, rng.getrandbits(32)]) for _ in range(31)]
    registers[5], registers[6] = rng.choice([0, 3]), rng.randrange(1, 6)
    # LOOP counts registers that are small; loops are nested by their targets.
    program = [("ADDI", {"rd": 7, "rs": 0, "imm": rng.randrange(1, 4)})]
    for _ in range(12):
        kind = rng.choice(["ADDI", "SHRI", "NOP"])
        if kind == "NOP":
            program.append(("NOP", {}))
        else:
            imm = rng.randrange(32) if kind == "SHRI" else rng.randrange(-1 << 31, 1 << 31)
            program.append((kind, {"rd": rng.choice([0, 2, 8, 9, 15, 31]), "rs": rng.randrange(32),
                                   "imm": imm}))
    program.insert(rng.randrange(4, 8), ("LOOP", {"rd": 7, "target": rng.randrange(1, 4)}))
    program += [("NEXT", {"target": 0}), ("HALT", {})]
    given = [rng.randrange(100) for _ in range(rng.randrange(6))]
    if given:
        # By a register that is zero, and by one that holds the largest number.
        program[1:1] = [
            ("GIVEN", {"rd": rng.choice([0, 10]), "rs": 0, "imm": rng.randrange(len(given))}),
            ("ADDI", {"rd": 11, "rs": 0, "imm": -1}),
            ("GIVEN", {"rd": 12, "rs": 11, "imm": 1 + rng.randrange(len(given))})]
    stops = [0] if rng.random() < 0.5 else []
    expected, trail = golden_control(program, registers, given, stops)
    bench = Bench(TINY)
    status = bench.run(*program, halt=False, given=given, stops=stops,
                       registers=enumerate(registers))
    assert bench.card.registers == expected
    assert status["instructions"] == len(trail)
    assert status["steps"] == expected[5]
    assert status["pc"] == len(program) - 1


def test_a_given_token_does_not_stop():
    bench = Bench(TINY)
    bench.run(("NEXT", {"target": 0}), registers={6: 10}, given=[5, 9, 9, 9], stops=[9, 0])
    assert bench.card.registers[5] == 4         # the fourth token is the sampled one, 0


def test_a_given_word_must_be_there():
    bench = Bench(TINY)
    given = [7, 0xFFFFFFFF]
    word = isa.encode("GIVEN", rd=8, rs=7, imm=-3)
    for number, loaded in ((3, 7), (4, 0xFFFFFFFF)):
        bench.run(word, registers={7: number}, given=given)
        assert bench.card.registers[8] == loaded
    for number in (2, 5, 0x80000000):
        status = stopped(bench, ("NOP", {}), word, registers={7: number}, given=given)
        assert_stopped_at(status, Error.ILLEGAL_OPERAND, 1, word)
    # The same program with a shorter list.
    status = stopped(bench, word, registers={7: 4}, given=given[:1])
    assert_stopped_at(status, Error.ILLEGAL_OPERAND, 0, word)
    # What it waits for is looked at later.
    word = isa.encode("GIVEN", wait=1)
    assert_stopped_at(stopped(bench, word), Error.ILLEGAL_OPERAND, 0, word)
    assert_stopped_at(stopped(bench, word, given=[0]), Error.WATCHDOG, 0, word)


# ---- Dependency counters. ----

def test_counters_are_taken_and_given():
    bench = Bench(TINY)
    bench.run(("NOP", {"signal": 0b101}), ("NOP", {"wait": 0b001}), ("NOP", {"signal": 0b001}),
              ("NOP", {"wait": 0b101}))
    status = stopped(bench, ("NOP", {"signal": 1}), ("NOP", {"wait": 1}), ("NOP", {"wait": 1}))
    assert_stopped_at(status, Error.WATCHDOG, 2, isa.encode("NOP", wait=1))


def test_a_counter_overflows():
    bench = Bench(TINY)
    loop = [("NOP", {"signal": 2}), ("LOOP", {"rd": 7, "target": 0})]
    assert bench.run(*loop, registers={7: 255})["error"] == 0
    status = stopped(bench, *loop, registers={7: 256})
    assert_stopped_at(status, Error.COUNTER_OVERFLOW, 0, isa.encode("NOP", signal=2))
    assert status["instructions"] == 510


# ---- Errors. ----

@pytest.mark.parametrize(("word", "code"), [
    (0x00, Error.ILLEGAL_OPCODE), (0x77, Error.ILLEGAL_OPCODE),
    (isa.encode("HALT") | 1 << 200, Error.ILLEGAL_OPCODE),
    (isa.encode("LOOP", rd=1, target=9), Error.ILLEGAL_OPERAND),
    (isa.encode("VECTOR", fn=20, words=1), Error.ILLEGAL_OPERAND),
    (isa.encode("VECTOR", words=0), Error.ILLEGAL_OPERAND),
    (isa.encode("QUANT", words=1, token=2, digits=1), Error.ILLEGAL_OPERAND),
    (isa.encode("LOAD", address=TINY.channel_beats - 1, rows=2, words=1), Error.ADDRESS_RANGE),
    (isa.encode("STORE", address=TINY.channel_beats - 1, words=5), Error.ADDRESS_RANGE),
    (isa.encode("MATMUL", address=TINY.channel_beats - 9, rows=1, beats=10, columns=1),
     Error.ADDRESS_RANGE),
])
def test_illegal_words_stop_precisely(word, code):
    """What comes before has happened, what comes after has not."""
    bench = Bench(TINY)
    status = stopped(bench, ("ADDI", {"rd": 7, "imm": 1}), ("NOP", {"signal": 1}), word,
                     ("ADDI", {"rd": 7, "imm": 2}))
    assert_stopped_at(status, code, 2, word)
    assert bench.card.registers[7] == 1
    assert status["instructions"] == 2
    stored = bench.get(STATUS_BEAT, len(STATUS)).tolist()
    assert tuple(stored) == status.words
    assert stored[0] == STATUS_MAGIC
    # The next command runs.
    assert bench.run()["error"] == 0


def test_the_end_of_the_program_is_no_instruction():
    bench = Bench(TINY)
    status = stopped(bench, ("NOP", {}), halt=False)
    assert_stopped_at(status, Error.ILLEGAL_OPCODE, 1, 0)
    status = stopped(bench, entry=7)
    assert_stopped_at(status, Error.ILLEGAL_OPCODE, 7, 0)


def test_registers_decide_what_is_legal():
    bench = Bench(TINY)
    load = ("LOAD", {"rows": 1, "rows_reg": 7, "words": 4})
    assert bench.run(load, registers={7: 2048})["error"] == 0
    for rows in (2049, 1 << 12, MASK):
        assert stopped(bench, load, registers={7: rows})["error"] == Error.ILLEGAL_OPERAND
    assert stopped(bench, ("VECTOR", {"words": 1}),
                   registers={1: TINY.context})["error"] == Error.ILLEGAL_OPERAND


def test_a_result_record_must_fit():
    bench = Bench(TINY)
    for columns in (1, 3):
        sample = ("SAMPLE", {"words": 1, "count": 4, "first": 1, "last": 1, "k": 1,
                             "columns": columns})
        last = TINY.channel_beats - 3 * columns
        assert bench.run(sample, results=last)["error"] == 0
        assert stopped(bench, sample, results=last + 1)["error"] == Error.ADDRESS_RANGE
        assert stopped(bench, sample, results=last,
                       registers={5: 1})["error"] == Error.ADDRESS_RANGE


def random_values(rng, name):
    """Fields near the limits of the card, or anywhere."""
    values = {}
    for field in isa.fields(name)[1:]:
        near = [0, 1, 2, 3, 4, 15, 16, 17, 63, 64, 255, 256, 511, 512, 2047, 2048, 8191]
        choice = rng.choice([*near, rng.randrange(field.limits.start, field.limits.stop)])
        values[field.name] = choice if choice in field.limits else 0
    return values


def test_remembered_checks_equal_the_rules():
    rng = random.Random("rules")
    for _ in range(3000):
        name = rng.choice([name for name, entry in isa.FORMATS.items() if entry[1]])
        values = random_values(rng, name)
        instruction = decode(isa.encode(name, **values))
        for _ in range(4):
            registers = [0, *(rng.choice([0, 1, 5, 4096, 0xFFFFFFFF]) for _ in range(31))]
            position = rng.choice([0, 3, 4, 100, 2047, 2048])
            registers[isa.POSITIONS[values.get("sequence", 0)]] = position
            operands = instruction.resolve(registers) if instruction.resolve \
                else instruction.operands
            resolved = {**values, "pos": position} | {
                key: value for key, value in zip(("rows", "beats", "address"), operands,
                                                 strict=True) if key in values}
            assert check(TINY, instruction, registers[instruction.position], operands, 10) == \
                rules.check(TINY, name, resolved, 10)


# ---- Command records. ----

@pytest.mark.parametrize("change", [
    {"magic": 1}, {"flags": 2}, {"instructions": 0}, {"instructions": TINY.program_words + 1},
    {"program": TINY.channel_beats - 1}, {"given": [0] * (TINY.context + 1)},
    {"status": TINY.channel_beats - 1}, {"tokens": TINY.channel_beats, "given": [1]},
    {"status": MASK},
])
def test_records_without_sense_are_refused(change):
    bench = Bench(TINY)
    bench.put(STATUS_BEAT, np.full(4, 7, np.uint32))
    assert stopped(bench, **change)["error"] == Error.BAD_COMMAND
    assert (bench.get(STATUS_BEAT, 4) == 7).all()


def test_a_loaded_program_stays():
    bench = Bench(TINY)
    bench.run(("ADDI", {"rd": 7, "rs": 7, "imm": 5}))
    bench.run(("NOP", {}), ("NOP", {}), flags=0, registers={7: 1})
    assert bench.card.registers[7] == 6
    bench.card.reset()
    assert stopped(bench, flags=0)["error"] == Error.ILLEGAL_OPCODE


def test_the_status_record():
    bench = Bench(TINY)
    status = bench.run(("NOP", {}), registers={5: 4})
    assert status["magic"] == STATUS_MAGIC
    assert status["contract"] == contract.DIGEST
    assert status["configuration"] == TINY.digest
    assert (status["steps"], status["pc"], status["instructions"]) == (4, 1, 2)
    assert status.counters["cycles"] == 0
    assert tuple(bench.get(STATUS_BEAT, len(STATUS)).tolist()) == status.words


def test_an_endless_program_times_out():
    bench = Bench(TINY)
    with pytest.raises(CardTimeout, match="must end in time"):
        bench.run(("LOOP", {"rd": 7, "target": 0}), registers={7: 0}, timeout=0)
    assert bench.run()["error"] == 0


# ---- Memory. ----

def test_memory_is_read_as_written():
    card = FunctionalCard(TINY)
    size = TINY.channel_bytes
    card.write(size - 3, b"abcdef")
    assert card.read(size - 4, 8) == b"\0abcdef\0"
    assert card.read(4 * size - 2, 2) == b"\0\0"
    for address, data in ((4 * size - 1, b"ab"), (-1, b"a")):
        with pytest.raises(CardError, match="memory must be accessed within"):
            card.write(address, data)
        with pytest.raises(CardError, match="memory must be accessed within"):
            card.read(address, 2)
    with pytest.raises(CardError, match="at a beat of channel 0"):
        card.run(8)
    with pytest.raises(CardError, match="at a beat of channel 0"):
        card.run(size)


def test_memory_costs_what_was_written():
    """Tens of megabytes in all corners of gigabytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    card = FunctionalCard(TINY)
    block = bytes(range(256)) * 4096
    for k in range(32):
        card.write(k * (TINY.channel_bytes // 8) + 12345, block)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 1.5 * 32 * 1024
    assert card.read(12345, len(block)) == block


def test_a_closed_card_refuses():
    card = FunctionalCard(TINY)
    card.close()
    card.close()
    for act in (lambda: card.read(0, 1), lambda: card.write(0, b"a"), lambda: card.run(0)):
        with pytest.raises(CardError, match="open"):
            act()
