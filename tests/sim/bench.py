# SPDX-License-Identifier: Apache-2.0
"""Programs on a card: writes the command record, the program and the data, and runs them."""

import numpy as np

from cardsim.functional import FunctionalCard
from rtl_gen.spec import isa
from rtl_gen.spec.config import TINY
from rtl_gen.spec.registers import COMMAND, COMMAND_MAGIC, FLAG_LOAD, NO_STOP, RESULT

#: Beats of channel 0 where commands keep their records; data lie below.
COMMAND_BEAT, PROGRAM_BEAT, STATUS_BEAT = 0x40000, 0x41000, 0x43000
TOKENS_BEAT, RESULTS_BEAT, RESULT_BEATS = 0x43100, 0x44000, 0x100


def words(*instructions):
    """Encoded instructions: each a word, or (name, fields)."""
    return [item if isinstance(item, int) else isa.encode(item[0], **item[1])
            for item in instructions]


class Bench:
    """A card with tools; any object with the card's interface will do as ``card``."""

    def __init__(self, config=TINY, card=None):
        self.config = config
        self.card = card or FunctionalCard(config)

    def put(self, beat, data, channel=0):
        """Write an array to a channel."""
        address = channel * self.config.channel_bytes + beat * self.config.beat_bytes
        self.card.write(address, np.ascontiguousarray(data).tobytes())

    def get(self, beat, count, channel=0, dtype=np.uint32):
        """Read ``count`` elements of a channel."""
        address = channel * self.config.channel_bytes + beat * self.config.beat_bytes
        size = count * np.dtype(dtype).itemsize
        return np.frombuffer(self.card.read(address, size), dtype)

    def put_words(self, beat, values):
        """Write scratchpad-like words [n, C] (32 bits each) as rows that LOAD reads."""
        for channel, column in enumerate(np.asarray(values).T):
            self.put(beat, column, channel)

    def get_words(self, beat, count, dtype=np.float32):
        """What STORE wrote: words [count, C]."""
        return np.array([self.get(beat, count, channel, dtype)
                         for channel in range(self.config.channels)]).T

    def run(self, *instructions, registers=(), given=(), stops=(), halt=True, timeout=60,
            **command):
        """Load and run a program; returns the status record."""
        program = words(*instructions, *([("HALT", {})] if halt else []))
        self.put(PROGRAM_BEAT, np.frombuffer(
            b"".join(word.to_bytes(isa.WORD_BYTES, "little") for word in program), np.uint8))
        self.put(TOKENS_BEAT, np.array(given, np.uint32))
        record = {
            "magic": COMMAND_MAGIC, "flags": FLAG_LOAD, "program": PROGRAM_BEAT,
            "instructions": len(program), "entry": 0, "status": STATUS_BEAT,
            "results": RESULTS_BEAT, "result_beats": RESULT_BEATS, "tokens": TOKENS_BEAT,
            "given": len(given), **{f"stop{k}": NO_STOP for k in range(4)}, "watchdog": 0,
            "ring": 0, **{f"r{k}": 0 for k in isa.Register}, "r2": 1}
        record |= {f"stop{k}": token for k, token in enumerate(stops)}
        record |= {f"r{int(k)}": value for k, value in dict(registers).items()}
        record |= command
        self.put(COMMAND_BEAT, np.array([record[name] for name in COMMAND], np.uint32))
        return self.card.run(COMMAND_BEAT * self.config.beat_bytes, timeout=timeout)

    def record(self, step=0, k=0):
        """The result record of a step: its words by name, and the pairs."""
        raw = self.get(RESULTS_BEAT + step * RESULT_BEATS, len(RESULT) + 2 * k)
        return dict(zip(RESULT, raw.tolist(), strict=False)), raw[len(RESULT):].reshape(k, 2)


def bits(x):
    """FP32 numbers as bits, for comparison."""
    return np.asarray(x, np.float32).view(np.uint32)
