# SPDX-License-Identifier: Apache-2.0
"""Random programs for control: units only pass time, so operands need be legal and no more."""

import collections
import random
from typing import Any

from rtl_gen.spec import isa
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.isa import Register

HALT = isa.encode("HALT")
#: How programs end; most of them badly.
ENDS = ("halt", "opcode", "operand", "range", "starved", "past end", "bits", "overflow", "target",
        "not given")
#: Masks of counters that blocks leave alone.
ENDED, SAMPLED = 1 << isa.COUNTERS - 2, 1 << isa.COUNTERS - 1


def unit_instruction(config: CardConfig, rng: random.Random) -> tuple[str, dict[str, Any]]:
    """Name and fields of a random instruction of some unit, legal while positions are below 70."""
    name = rng.choice(("LOAD", "STORE", "MATMUL", "VECTOR", "SCALAR", "QUANT", "NORM", "CACHE"))
    small = rng.randrange
    where = {"address": small(1000), "address_reg": rng.choice((0, 8, 9))}
    match name:
        case "LOAD":
            return name, {**where, "index_reg": rng.choice((0, 8, Register.STEP)),
                          "stride": small(100), "rows": small(4), "words": 1 + small(9),
                          "rows_reg": rng.choice((0, 0, 10)), "target": small(2),
                          "dst": small(100), "fence": small(2)}
        case "STORE":
            return name, {**where, "words": 1 + small(9), "source": small(2), "src": small(100),
                          "sequence": small(4)}
        case "MATMUL":
            fields = {**where, "rows": 10 + small(3), "beats": 1 + small(3), "first": 1,
                      "columns": 1, "act": 4 * small(8), "last": small(3) > 0,
                      "fence": small(2), "head": small(config.heads), "dst": small(100),
                      "kv_heads": small(3), "sequence": small(config.tokens)}
            if fields["last"]:
                fields |= {"dest": small(4) and small(isa.SUMS + 1), "scale": small(3)}
                if not fields["dest"]:
                    fields |= {"norm": small(3), "bias": small(2), "divide": small(isa.SUMS + 1)}
            pattern = small(10)
            return name, fields | ({"pattern": pattern} if pattern else {
                "merge": small(3), "wide": small(2), "beats_reg": rng.choice((0, 10))})
        case "VECTOR":
            return name, {"fn": small(13), "words": 1 + small(9), "dst": small(99), "a": small(99)}
        case "SCALAR":
            return name, {"fn": small(7), "d": small(16), "imm": small(1 << 31)}
        case "QUANT":
            return name, {"words": 1 + small(9), "act": small(100)}
        case "NORM":
            return name, {"words": 1 + small(64), "set": small(2)}
        case "CACHE":
            return name, {"a": small(99), "head": small(config.heads), "kv_heads": small(3),
                          "sequence": small(config.tokens)}
    raise AssertionError(name)


def given_word(given: int, rng: random.Random) -> list[tuple[str, dict[str, Any]]]:
    """A GIVEN that takes one of so many words, if there are any."""
    # Register 10 holds 1 to 3; with few words it may name none.
    rs = rng.choice((0, 0, 10)) if given > 3 else 0
    low = rng.randrange(given - 3) - 1 if rs else rng.randrange(max(given, 1))
    return [("GIVEN", {"rd": rng.choice((0, 12, 13)), "rs": rs, "imm": low})] * bool(given)


def block(config: CardConfig, rng: random.Random, length: int, given: int = 0) -> list[int]:
    """Instructions that wait only for what was signalled before in the block.

    They take words of a list of ``given``.
    """
    words: list[int] = []
    counters: collections.Counter[int] = collections.Counter()
    for _ in range(length):
        name, fields = rng.choice((
            ("NOP", {}),
            ("ADDI", {"rd": rng.choice((0, 8, 9)), "rs": rng.randrange(32),
                      "imm": rng.randrange(-9, 50)}),
            ("SHRI", {"rd": 8, "rs": rng.randrange(32), "imm": 20 + rng.randrange(12)}),
            *given_word(given, rng),
            *(unit_instruction(config, rng) for _ in range(9))))
        wait = signal = 0
        queue = isa.FORMATS[name][1]
        for counter in range(isa.COUNTERS - 2):
            # One queue waits for each counter: others might start first and take what it needs.
            if counter % 4 == queue and counters[counter] and rng.random() < 0.4:
                wait |= 1 << counter
                counters[counter] -= 1
            if rng.random() < 0.15:
                signal |= 1 << counter
                counters[counter] += 1
        words.append(isa.encode(name, wait=wait, signal=signal, **fields))
    return words


def program(config: CardConfig, rng: random.Random, end: str, given: int = 0) -> list[int]:
    """Straight pieces, a counted loop, a decode loop, and one of ``ENDS``; with so many words
    given."""
    words = [isa.encode("ADDI", rd=10, imm=rng.randrange(1, 4))]
    words += block(config, rng, rng.randrange(12), given)
    words.append(isa.encode("ADDI", rd=11, imm=rng.randrange(1, 4)))
    target = len(words)
    words += block(config, rng, rng.randrange(1, 12), given)
    words.append(isa.encode("LOOP", rd=11, target=target))
    words.append(isa.encode("LOOP", rd=0, target=target))   # ZERO stays zero: no loop
    target = len(words)
    words += block(config, rng, rng.randrange(1, 25), given)
    words.append(isa.encode(
        "SAMPLE", words=2, count=2 * config.vector_lanes, first=1, last=1, columns=1,
        signal=SAMPLED))
    words.append(isa.encode("NEXT", target=target, wait=SAMPLED))
    words += block(config, rng, rng.randrange(12), given)
    words += {
        "halt": [isa.encode("NOP", signal=ENDED), isa.encode("HALT", wait=ENDED)],
        "opcode": [0xFE, HALT], "past end": [], "operand": [isa.encode("VECTOR", wait=3), HALT],
        "range": [isa.encode("STORE", words=1, address=config.channel_beats), HALT],
        "starved": [isa.encode("SCALAR", wait=ENDED), HALT],
        "bits": [isa.encode("NORM", words=1) | 1 << 255, HALT],
        "target": [isa.encode("NEXT", target=len(words) + 1)],
        "not given": [isa.encode("GIVEN", rd=12, imm=rng.choice((-1, given)), wait=ENDED), HALT],
        "overflow": [rng.choice((isa.encode("NOP", signal=ENDED),
                                 isa.encode("SCALAR", signal=ENDED)))]
        * (isa.COUNTER_MAX + 1) + [HALT]}[end]
    return words
