# SPDX-License-Identifier: Apache-2.0
"""Random LOADs and STOREs, and what the functional card makes of them."""

import random

import numpy as np
import numpy.typing as npt

from cardsim.functional.memory import Memory
from cardsim.functional.state import State
from cardsim.functional.transfer import Load, Store
from rtl_gen.spec import isa, rules
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.isa import Register

from .instructions import JOB, job
from .streams import Payload, pack

#: Beats of every channel that LOADs read and STOREs write.
ROOM = 256
#: Words of a long instruction.
LONG = 160


def streams(card: CardConfig) -> list[str]:
    """What the unit gives."""
    return ["m_axis_write", "m_axis_load", "m_axis_row_read",
            *(f"m_axis_beats_{lane}" for lane in range(card.channels))]


class Program:
    """Instructions that run without a pause, and what they are to give.

    Parameters
    ----------
    state, memory : State, Memory
        Of a functional card; they are left as after the program.
    rng : random.Random
    count : int
        Instructions.

    Attributes
    ----------
    jobs : list
        Payload of each instruction.
    constants : list of uint32 arrays [words, channels]
        What the channels read for each LOAD with rows, in whole beats.
    streams : dict
        Payloads by stream.
    ends : list of (int, dict)
        Signal of each instruction, and how many payloads of each stream are out when it ends.
    cycles : list of (int or None)
        From job to report where nothing is held back; None where the scale memory decides.
    """

    def __init__(self, state: State, memory: Memory, rng: random.Random, count: int) -> None:
        self.state, self.memory, self.rng, self.card = state, memory, rng, state.config
        state.wild = True       # words are bits, whatever numbers they are
        self.per_beat = self.card.beat_bytes // 4
        #: Words of scratchpad and scale memory that an instruction reaches.
        self.room = [min(1 << 16, size) for size in (self.card.scratch_words, self.card.kv_scales)]
        #: Where the last LOAD into scratchpad and scales began.
        self.last = [0, 0]
        self.jobs: list[Payload] = []
        self.constants: list[npt.NDArray[np.uint32]] = []
        self.streams: dict[str, list[Payload]] = {name: [] for name in streams(self.card)}
        self.ends: list[tuple[int, dict[str, int]]] = []
        self.cycles: list[int | None] = []
        for _ in range(count):
            rng.choice((self._load, self._load, self._store, self._store_row))()

    def _add(self, name: str, f: dict[str, int], **operands: int) -> None:
        """An instruction in words; what dispatch has resolved, or STORE lacks, may be anything."""
        anything = {field.name: self.rng.getrandbits(field.width) for field in isa.fields(name)
                    if field.name != "opcode"}
        word = isa.encode(name, **anything | f)
        self.jobs.append(job(word, **{field: self.rng.getrandbits(bits)
                                      for field, bits in JOB.items() if field != "word"}
                             | operands))
        self.ends.append((isa.decode(word)[1]["signal"],
                          {name: len(payloads) for name, payloads in self.streams.items()}))

    def _words(self, target: int) -> int:
        """Words of a row: about a beat, some beats, rarely many."""
        per_beat, rng = self.per_beat, self.rng
        return min(self.room[target], rng.choice(
            [1, per_beat, per_beat + 1, rng.randrange(1, 5 * per_beat)])
            if rng.random() < 0.95 else rng.randrange(1, LONG))

    def _place(self, target: int, before: int, words: int) -> int:
        """Where a STORE begins, ``before`` words ahead of what it reads."""
        most = self.room[target] - before - words
        if self.rng.random() < 0.5:     # what was just loaded
            return min(most, max(0, self.last[target] - before))
        return self.rng.randrange(most + 1)

    def _load(self) -> None:
        rng, target = self.rng, self.rng.randrange(2)
        words = self._words(target)
        rows = min(rng.choice([0, 1, 1, 2, 5]) if rng.random() < 0.95 else rng.randrange(100),
                   max(1, LONG // words), self.room[target] // words)
        f = {"words": words, "target": target, "rows": rows,
             "dst": rng.randrange(self.room[target] - rows * words + 1)}
        beats = rules.span(self.card, "LOAD", f)
        address = rng.randrange(ROOM - beats + 1)
        Load(self.state, self.memory, f)([], rows, address)
        if rows:
            width = self.card.beat_bytes
            raw = self.memory.bytes[:, address * width:(address + beats) * width]
            self.constants.append(raw.view(np.uint32).T.copy())
            self.last[target] = f["dst"]
        content = self.state.scales if target else self.state.words
        self.streams["m_axis_load" if target else "m_axis_write"] += [
            (pack([(at, 16), *((word, 32) for word in content[at].tolist())]), 0)
            for at in range(f["dst"], f["dst"] + rows * words)]
        del f["rows"]       # the word's own may have been replaced
        self._add("LOAD", f, rows=rows)
        self.cycles.append(rows * words + 2)

    def _store(self) -> None:
        words = self._words(0)
        f = {"words": words, "source": 0, "src": self._place(0, 0, words)}
        self._run_store(f, self.rng.getrandbits(JOB["pos"]), range(self.card.channels))
        self.cycles.append(words + rules.span(self.card, "STORE", f) + 4)

    def _store_row(self) -> None:
        words, lanes = self._words(1), self.card.channels
        pos = self.rng.randrange(min(1 << JOB["pos"], self.room[1] // words * lanes))
        row, lane = divmod(pos, lanes)
        f = {"words": words, "source": 1, "src": self._place(1, row * words, words)}
        first = f["src"] + row * words
        self.streams["m_axis_row_read"] += [
            (pack([(at, 16), (lane, (lanes - 1).bit_length())]), 0)
            for at in range(first, first + words)]
        self._run_store(f, pos, range(lane, lane + 1))
        self.cycles.append(None)

    def _run_store(self, f: dict[str, int], pos: int, lanes: range) -> None:
        """Let the functional card write near, and the unit anywhere."""
        width, registers = self.card.beat_bytes, [0] * len(Register)
        registers[Register.POS] = pos
        beats = rules.span(self.card, "STORE", f)
        near, far = self.rng.randrange(ROOM - beats + 1), self.rng.randrange(2**32 - beats)
        Store(self.state, self.memory, f | {"sequence": 0})(registers, near)
        for lane in lanes:
            for k in range(beats):
                content = self.memory.bytes[lane, (near + k) * width:(near + k + 1) * width]
                self.streams[f"m_axis_beats_{lane}"].append((pack([
                    (far + k, 32), (int.from_bytes(content.tobytes(), "little"), 8 * width)]), 0))
        self._add("STORE", f, address=far, pos=pos)
