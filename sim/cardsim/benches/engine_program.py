# SPDX-License-Identifier: Apache-2.0
"""Random MATMULs for the engine, and what must come of them."""

import numpy as np
import numpy.typing as npt

from rtl_gen.spec import isa, rules
from rtl_gen.spec.config import ACC_BITS, HEAD, CardConfig
from rtl_gen.spec.formats import PATTERNS, Pattern, index, reach

from .engine_model import EngineModel, Job, Values


def _index(pattern: Pattern, slot: int, place: int) -> int:
    """-1 for an activation that the slot cannot meet."""
    try:
        return index(pattern, slot, place)
    except ValueError:
        return -1


class Program:
    """Instructions with all that they need, in an order that any interleaving must respect.

    Parameters
    ----------
    config : CardConfig
    seed : str
    garbage : bool
        Some weights are −128, as in parts of the K and V caches that nobody has written, and some
        activations, which nobody writes.

    Attributes
    ----------
    planes, fresh : two lists and a list of (word, after)
        Words for the ports of the planes, and of fresh K and V.  ``after`` counts what must have
        ended before: instructions without (``done``) and with ``last``.
    given : list of (job, needs)
        Instructions; ``needs`` counts the words that must have been taken before: ``planes`` at
        either port, ``fresh``.
    jobs : list of Job
        The same with their entries.
    rows, given_on, done, written
        What must come out, in order: finished rows, instructions with ``last``, signals of the
        others, and of each channel (address, beat).
    ends : list
        Of each instruction: how much of ``rows``, ``done`` and each channel's ``written`` is there
        when it ends.
    """

    def __init__(self, config: CardConfig, seed: str, *, garbage: bool = True):
        self.config, self.seed, self.garbage = config, seed, garbage
        self.rng = np.random.default_rng(list(seed.encode()))
        self.model = EngineModel(config)
        self.planes: tuple[list[tuple[Values, Values]], ...] = [], []
        self.fresh: list[tuple[Values, Values]] = []
        self.given: list[tuple[Values, Values]] = []
        self.jobs: list[Job] = []
        self.rows: list[Values] = []
        self.given_on: list[Values] = []
        self.done: list[int] = []
        self.written: list[list[tuple[int, int]]] = [[] for _ in range(config.channels)]
        self.ends: list[tuple[int, int, list[int]]] = []
        self._reader: dict[tuple[str, int], int] = {}   # the last instruction that reads it

    def _after(self, key: tuple[str, int]) -> Values:
        ended = [job.last for job in self.jobs[:self._reader.get(key, -1) + 1]]
        return {"done": ended.count(0), "last": ended.count(1)}

    def _digits(self, *shape: int) -> npt.NDArray[np.int64]:
        return self.rng.integers(-127 - self.garbage, 128, shape)

    def write_planes(self, *, act: int, blocks: int, columns: int, digits: int, two_beat: int,
                     exponent: int) -> None:
        """Fill blocks for all tokens."""
        config, rng = self.config, self.rng
        for token in range(columns):
            for block in range(act, act + blocks):
                scale = min(exponent + int(rng.choice([0, 31, int(rng.integers(32))])), 127)
                for part in range(config.beat_bytes // config.vector_lanes):
                    word = {"block": block, "part": part, "low": self._digits(config.vector_lanes),
                            "high": self._digits(config.vector_lanes), "exponent": scale,
                            "digits": digits, "two_beat": two_beat, "token": token}
                    self.planes[rng.integers(2)].append((word, self._after(("block", block))))
                    self.model.write_plane(word)

    def write_fresh(self, *, kind: int, head: int, columns: int, first: int = 0) -> None:
        """Fill one head of some tokens."""
        lanes = self.config.vector_lanes
        for token in range(first, first + columns):
            for part in range(HEAD // lanes):
                word = {"kind": kind, "token": token, "head": head, "part": part,
                        "low": self._digits(lanes), "high": self._digits(lanes)}
                self.fresh.append((word, self._after(("head", head))))
                self.model.write_fresh(word)

    def matmul(self, *, rows: int, beats: int, pos: int = 0, address: int = 0, keep: bool = False,
               **fields: int) -> Job:
        """Add an instruction, with activations (and fresh K and V) of its own unless ``keep``."""
        config, rng = self.config, self.rng
        pattern = PATTERNS[fields.get("pattern", 0)]
        fields = {field.name: 0 for field in isa.fields("MATMUL")} | {
            "columns": 1, "opcode": isa.FORMATS["MATMUL"][0]} | fields
        values = fields | {"rows": rows, "beats": beats, "pos": pos, "address": address}
        broken = [rule for rule, holds in rules.RULES["MATMUL"] if not holds(config, values)]
        assert not broken or fields["dest"], broken
        blocks = beats * pattern.ratio
        if not keep:
            self.write_planes(act=fields["act"], blocks=blocks, **{
                name: fields[name] for name in ("columns", "digits", "two_beat", "exponent")})
        if fields["merge"] and not keep:
            self.write_fresh(kind=fields["merge"] - 1, head=fields["head"],
                             columns=fields["columns"], first=fields["sequence"])

        entries = rows * beats * pattern.entries << fields["wide"]
        shape = config.channels, entries, config.beat_bytes
        weights = rng.integers(-127, 128, shape)
        if self.garbage:
            weights[rng.random(shape) < 0.05] = -128
        slots = np.arange(config.beat_bytes)
        place = np.stack([rng.choice(reach(pattern, slot), size=shape[:2])
                          for slot in slots.tolist()], axis=-1)
        known = np.array([[_index(pattern, slot, at) for at in range(17)]
                          for slot in slots.tolist()])
        job = Job(fields=fields, rows=rows, beats=beats, address=address, pos=pos, weights=weights,
                  place=place, index=known[slots, place])
        for block in range(fields["act"], fields["act"] + blocks):
            self._reader["block", block] = len(self.jobs)
        if fields["merge"]:
            self._reader["head", fields["head"]] = len(self.jobs)
        self.jobs.append(job)

        word = isa.encode("MATMUL", **{
            name: value for name, value in fields.items() if name != "opcode"})
        full = {"word": word, "rows": rows, "beats": beats, "address": address, "pos": pos,
                "len": pos + 1, "sequence": len(self.jobs)}
        self.given.append((full, {"planes": [len(words) for words in self.planes],
                                  "fresh": len(self.fresh)}))

        out, written = self.model.run(job)
        self.rows += [
            {"acc": [int(a) % (1 << ACC_BITS) for a in acc], "token": token,
             "last_token": last_token, "last_row": last_row}
            for acc, token, last_token, last_row in out]
        if fields["last"]:
            self.given_on.append(full)
        else:
            self.done.append(fields["signal"])
        for all_written, more in zip(self.written, written, strict=True):
            all_written += more
        self.ends.append((len(self.rows), len(self.done), [len(w) for w in self.written]))
        return job

    def entries(self) -> int:
        """Entries of each channel in all instructions."""
        return sum(job.weights.shape[1] for job in self.jobs)


#: Blocks for each way of using the columns that are filled once and read again and again.
REGION = 16


def shuffle(program: Program, count: int) -> None:
    """Add ``count`` random instructions: chunks of several products side by side, others between.

    Most find their activations in place, so that instructions follow one another at once.
    """
    config, rng = program.config, program.rng

    def some(high: int) -> int:
        return int(rng.integers(high))

    shapes = [(digits, two_beat) for digits in range(2) for two_beat in range(2)
              if 1 << digits << two_beat <= config.tokens]
    regions = {}
    for number, (digits, two_beat) in enumerate(shapes):
        regions[digits, two_beat] = number * REGION, some(100) - 50
        program.write_planes(
            act=number * REGION, blocks=REGION, columns=config.tokens >> digits >> two_beat,
            digits=digits, two_beat=two_beat, exponent=regions[digits, two_beat][1])
    for kind in range(2):
        program.write_fresh(kind=kind, head=0, columns=config.tokens)
    # Products of which more chunks come: (first row, rows, tokens).
    opened: list[tuple[int, int, int]] = []
    for _ in range(count):
        fields = {"signal": some(1 << 16), "exponent": some(120) - 60, "head": some(config.heads)}
        if opened and rng.random() < 0.6:
            acc_row, rows, columns = opened.pop(some(len(opened)))
        else:
            columns, rows = 1 + some(config.tokens), 1 + some(rng.choice([2, 3, 8]))
            acc_row = some(config.acc_rows - rows)
            fields["first"] = 1
        fits = [(digits, two_beat) for digits, two_beat in shapes
                if columns << digits << two_beat <= config.tokens]
        fields["digits"], fields["two_beat"] = fits[some(len(fits))]
        fields["last"] = some(2)
        dense = rng.random() < 0.6
        if dense:
            fields["wide"] = some(2)
            if fields["wide"] or not fields["two_beat"]:
                fields["k_outer"] = some(2)
            fields["merge"] = some(3)
            fields["sequence"] = some(config.tokens - columns + 1)
            beats = 1 + some(5)
        else:
            fields["pattern"] = 1 + some(len(PATTERNS) - 1)
            beats = 1 + some(4)
        taken = any(a < acc_row + rows and acc_row < a + n for a, n, _ in opened)
        if fields.get("first") and taken:
            # Only rows that are finished at once leave the bank as it is.
            fields |= {"last": 1, "k_outer": 0}
        if not fields["last"]:
            opened.append((acc_row, rows, columns))
        else:
            fields |= {"scale": some(3), "norm": some(3), "bias": some(2), "gelu": some(3)}
        pos = 0
        if fields.get("merge") == 1:
            beats = min(beats, config.head_beats)
            pos = some(rows * config.channels + 1)
        elif fields.get("merge") == 2:
            rows_of_head = config.head_words
            beats = 1 + some(3)
            pos = some(beats * config.beat_bytes)
            if rows > rows_of_head:
                fields["merge"] = 0
        if rng.random() < 0.5:
            pos = max(0, pos - columns)
        ratio = PATTERNS[fields.get("pattern", 0)].ratio
        keep = rng.random() < 0.8
        if keep:
            beats = min(beats, REGION // ratio)
            start, fields["exponent"] = regions[fields["digits"], fields["two_beat"]]
            fields["head"] = 0
            room = REGION
        else:
            start = len(shapes) * REGION
            room = config.plane_blocks - start if rng.random() < 0.2 else 2 * REGION
            beats = min(beats, room // ratio)
        act = some(room - beats * ratio + 1) // min(ratio, 4) * min(ratio, 4)
        program.matmul(
            rows=rows, beats=beats, pos=pos, address=some(1 << 20), columns=columns,
            acc_row=acc_row, act=start + act, keep=keep, **fields)
