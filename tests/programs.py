# SPDX-License-Identifier: Apache-2.0
"""Random programs for any card: legal ones with the waits that they need, and illegal words.

``random_case(config, seed)`` is a whole command: memory images, program, registers, tokens.
``Case.run(card)`` carries it out on anything with the interface of ``heddle.card.Card`` and returns
what two cards must agree on.
"""

import dataclasses
import random

import numpy as np

from heddle.card import Card, CardStopped
from rtl_gen.spec import isa, rules
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.isa import Queue
from rtl_gen.spec.registers import COMMAND, COMMAND_MAGIC, FLAG_LOAD, NO_STOP, Error
from tests.phrases import DATA, KEYS, LOGS, OUT, PHRASES, POSITIONS, VALUES, WORDS, Writer

__all__ = ["DATA", "OUT", "RECORD", "Case", "Outcome", "classify", "illegal_case",
           "illegal_words", "random_case"]

#: Beats of channel 0 where a command's records lie; data lie below.
RECORD, PROGRAM, TOKENS, STATUS_BEAT, RESULTS = 0x18000, 0x19000, 0x1B000, 0x1B100, 0x1B200
RESULT_BEATS = 0x90


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command did, as far as all cards must agree."""

    error: int
    pc: int
    word: int
    steps: int
    sticky: int
    memory: tuple[bytes, ...]


@dataclasses.dataclass
class Case:
    """A command, ready to be written to a card."""

    config: CardConfig
    name: str
    words: list[int]
    images: list[tuple[int, bytes]]     # byte address, data
    registers: dict[int, int]
    given: list[int]
    stops: list[int]
    compared: list[tuple[int, int]]     # byte address, size

    def command(self) -> list[tuple[int, bytes]]:
        """Program, tokens and command record, as images."""
        beat = self.config.beat_bytes
        record = {"magic": COMMAND_MAGIC, "flags": FLAG_LOAD, "program": PROGRAM,
                  "instructions": len(self.words), "status": STATUS_BEAT, "results": RESULTS,
                  "result_beats": RESULT_BEATS, "tokens": TOKENS, "given": len(self.given),
                  **{f"stop{k}": NO_STOP for k in range(4)},
                  **{f"stop{k}": token for k, token in enumerate(self.stops)},
                  **{f"r{k}": value for k, value in self.registers.items()}}
        words = np.array([record.get(name, 0) for name in COMMAND], "<u4")
        program = b"".join(word.to_bytes(isa.WORD_BYTES, "little") for word in self.words)
        return [(PROGRAM * beat, program), (TOKENS * beat, np.array(self.given, "<u4").tobytes()),
                (RECORD * beat, words.tobytes())]

    def run(self, card: Card, timeout: float = 600) -> Outcome:
        """Write everything, run, read back; an error code is an outcome, too."""
        for address, data in (*self.images, *self.command()):
            card.write(address, data)
        try:
            status = card.run(RECORD * self.config.beat_bytes, timeout)
        except CardStopped as stopped:
            status = stopped.status
        return Outcome(status.error, status["pc"], status.instruction, status["steps"],
                       status["sticky"],
                       tuple(card.read(address, size) for address, size in self.compared))


def random_case(config: CardConfig, seed: int | str, *, phrases: int = 12,
                steps: int | None = None) -> Case:
    """A random legal program in a loop of one to three decode steps.

    Parameters
    ----------
    config : CardConfig
    seed : int or str
    phrases : int
        Phrases of the loop's body; an instruction to half a dozen each.
    steps : int, optional
        Rounds of the loop; drawn if not given.
    """
    rng = random.Random(f"{config.name} {seed}")
    given = [rng.randrange(1 << 20) for _ in range(rng.randrange(4))]
    writer = Writer(config, rng, wild=rng.random() < 0.2, given=len(given))
    writer.start()
    writer.ledger.add("NOP", barrier=1)
    body = len(writer.ledger.steps)
    for phrase in rng.choices(list(PHRASES), list(PHRASES.values()), k=phrases):
        getattr(writer, phrase)()
    writer.ledger.add("NEXT", target=body)
    writer.ledger.add("STORE", [("scratch", 0, WORDS)], [("hbm", OUT + 64, OUT + 64 + WORDS)],
                      address=OUT + 64, words=WORDS, src=0)
    writer.ledger.add("HALT")
    rounds = steps or rng.randrange(1, 4)
    registers = {3: rng.randrange(100), 4: 1, 6: rounds, 15: 2}
    for pos, length in zip(isa.POSITIONS, isa.LENGTHS, strict=True):
        registers[pos] = rng.randrange(POSITIONS - config.tokens - rounds)
        registers[length] = registers[pos] + 1

    beat, size = config.beat_bytes, config.channel_bytes
    compared = [(channel * size + first * beat, count * beat) for channel in range(config.channels)
                for first, count in ((KEYS, 0x800), (VALUES, 0x800), (OUT, 0x400), (LOGS, 0x80))]
    compared.append((RESULTS * beat, 4 * RESULT_BEATS * beat))
    clear = [(address, bytes(count)) for address, count in compared]
    return Case(config, f"{config.name} {seed}", writer.ledger.encode(), clear + writer.images,
                registers, given, [rng.randrange(1 << 20)], compared)


# ---- Illegal words. ----

def classify(config: CardConfig, word: int, registers: dict[int, int], program_words: int,
             given: int = 0) -> Error:
    """What the contract says of a word, with operands from registers and so many given tokens."""
    try:
        name, values = isa.decode(word)
    except ValueError:
        return Error.ILLEGAL_OPCODE
    values["pos"] = registers.get(isa.POSITIONS[values.get("sequence", 0)], 0)
    for field in ("rows", "beats"):
        if values.get(f"{field}_reg"):
            values[field] = registers.get(values[f"{field}_reg"], 0)
    if "address" in values:
        values["address"] = (values["address"] + registers.get(values["address_reg"], 0)
                             + registers.get(values.get("index_reg", 0), 0)
                             * values.get("stride", 0)) & 0xFFFFFFFF
    if name == "GIVEN":
        values["number"] = (registers.get(values["rs"], 0) + values["imm"]) & 0xFFFFFFFF
    return rules.check(config, name, values, program_words, given)


def illegal_words(config: CardConfig, seed: int | str, registers: dict[int, int],
                  program_words: int, given: int = 0) -> list[tuple[int, Error]]:
    """Words that are not legal, with their errors: fields at their limits, stray bits, any bits."""
    rng = random.Random(f"illegal {config.name} {seed}")
    found = []
    while len(found) < 40:
        name = rng.choice(list(isa.FORMATS))
        values = {}
        for field in isa.fields(name)[3:]:
            limits = field.limits
            values[field.name] = rng.choice([
                0, 1, min(2, limits[-1]), limits[0], limits[-1], rng.choice(limits),
                rng.choice(limits[:64])])
        word = isa.encode(name, **values)
        kind = rng.randrange(8)
        if kind == 0:
            word |= 1 << rng.randrange(sum(f.width for f in isa.fields(name)), 256) \
                if sum(f.width for f in isa.fields(name)) < 256 else 0
        elif kind == 1:
            word = rng.getrandbits(256)
        error = classify(config, word, registers, program_words, given)
        if error:
            found.append((word, error))
    return found


def illegal_case(config: CardConfig, seed: int | str, *, phrases: int = 4) -> tuple[Case, Outcome]:
    """A random program with an illegal word somewhere, and what must come of it.

    The outcome's memory is left empty: what earlier instructions did is for another card to say.
    """
    case = random_case(config, f"illegal {seed}", phrases=phrases, steps=1)
    rng = random.Random(f"{config.name} {seed}")
    # Registers must be those of the start: before the first control instruction of the body.
    control = next(k for k, word in enumerate(case.words)
                   if isa.FORMATS[isa.decode(word)[0]][1] == Queue.CONTROL)
    place = rng.randrange(control + 1)
    word, error = rng.choice(illegal_words(
        config, seed, case.registers, len(case.words), len(case.given)))
    # What was ordered behind the replaced instruction never comes.
    case.words[place] = word
    return case, Outcome(error, place, word, 0, 0, ())


