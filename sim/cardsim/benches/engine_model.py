# SPDX-License-Identifier: Apache-2.0
"""What the engine must give: docs/numerics.md and docs/architecture.md in NumPy, job by job.

Entries are taken as decoded; the order in which the engine adds is none of this model's business.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from rtl_gen.spec.config import HEAD, CardConfig
from rtl_gen.spec.formats import PATTERNS

#: Fields of a payload by name: numbers, or arrays of digits.
Values = dict[str, Any]
#: The sums of all lanes, the token, and whether it and the row are the last ones.
Row = tuple[tuple[int, ...], int, bool, bool]


@dataclasses.dataclass
class Job:
    """One MATMUL, resolved, and its decoded entries."""

    fields: dict[str, int]
    rows: int
    beats: int
    address: int
    pos: int
    weights: npt.NDArray[np.int64]      # [channel, entry, slot]
    #: Which activation of its 16-wide group (dense: of its four) each slot meets, and its index.
    place: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]

    def __getattr__(self, name: str) -> int:
        fields: dict[str, int] = self.__dict__["fields"]
        return fields[name]

    @property
    def per_row(self) -> int:
        """Entries of one digit of a row."""
        return self.beats * PATTERNS[self.fields["pattern"]].entries

    def order(self) -> list[tuple[int, int, int]]:
        """(row, entry of the row, digit of the weight) of each entry of the stream."""
        digits = (1, 0) if self.fields["wide"] else (0,)
        rows, entries = range(self.rows), range(self.per_row)
        if self.fields["k_outer"]:
            return [(r, k, d) for k in entries for r in rows for d in digits]
        return [(r, k, d) for r in rows for k in entries for d in digits]


class EngineModel:
    """Planes, fresh K and V, and the banks."""

    def __init__(self, config: CardConfig):
        self.config = config
        blocks, bank = config.plane_blocks, (config.channels, config.acc_rows, config.tokens)
        self.digit = np.zeros((config.tokens, blocks * config.beat_bytes), np.int64)
        self.exponent = np.zeros((config.tokens, blocks), np.int64)
        self.fresh = np.zeros((2, config.heads, config.tokens, 2, HEAD), np.int64)
        self.bank = np.zeros(bank, object)

    def write_plane(self, word: Values) -> None:
        """One word of activations; the lower half only, of which the upper one is to be a copy."""
        v, t = self.config.vector_lanes, word["token"]
        at = word["block"] * self.config.beat_bytes + word["part"] * v
        columns: tuple[int, ...] = (t,)
        if word["digits"]:
            columns = (2 * t + 1, 2 * t)
        for column, name in zip(columns, ("low", "high"), strict=False):
            self.digit[column, at:at + v] = word[name]
            self.exponent[column, word["block"]] = word["exponent"]

    def write_fresh(self, word: Values) -> None:
        v = self.config.vector_lanes
        at = slice(word["part"] * v, word["part"] * v + v)
        for digit, name in enumerate(("low", "high")):
            self.fresh[word["kind"], word["head"], word["token"], digit, at] = word[name]

    def merge(self, job: Job) -> tuple[npt.NDArray[np.int64], list[list[tuple[int, int]]]]:
        """Weights with fresh K and V, and what is written back: per channel, (address, beat)."""
        config = self.config
        weights = job.weights.copy()
        written: list[list[tuple[int, int]]] = [[] for _ in range(config.channels)]
        if not job.merge:
            return weights, written
        constants = -(-4 * job.rows * ((job.scale == 1) + (job.norm > 0) + job.bias)
                      // config.beat_bytes)
        for number, (r, k, digit) in enumerate(job.order()):
            for c in range(config.channels):
                hit = False
                for t in range(job.columns):
                    p = job.pos + t
                    if job.merge == 1 and p // config.channels == r \
                            and config.k_lane(p, job.head) == c:
                        head = self.fresh[0, job.head, job.sequence + t, digit]
                        at = k * config.beat_bytes % HEAD
                        weights[c, number] = head[at:at + config.beat_bytes]
                        hit = True
                    if job.merge == 2 and p // config.beat_bytes == k:
                        dimension = (r * config.channels + c) % HEAD
                        weights[c, number, p % config.beat_bytes] = \
                            self.fresh[1, job.head, job.sequence + t, digit, dimension]
                        hit = True
                if hit:
                    beat = weights[c, number].astype(np.int8).tobytes()
                    written[c].append((job.address + constants + number,
                                       int.from_bytes(beat, "little")))
        return weights, written

    def run(self, job: Job) -> tuple[list[Row], list[list[tuple[int, int]]]]:
        """(rows as (sums of all lanes, token, last token, last row), what is written back)."""
        config, block_bytes = self.config, self.config.beat_bytes
        ratio = min(PATTERNS[job.pattern].ratio, 4)
        weights, written = self.merge(job)
        order = job.order()
        row, k, digit = (np.array(column) for column in zip(*order, strict=True))
        block = job.act + k * ratio
        slot = np.arange(block_bytes)
        group = {1: 4 * (slot // 4), 2: 16 * (slot // 8), 4: 16 * (slot // 4)}[ratio]
        position = (block * block_bytes)[None, :, None] + group + job.place

        acc = np.zeros((config.channels, job.rows, job.columns), object)
        rows = slice(job.acc_row, job.acc_row + job.rows)
        if not job.first:
            acc += self.bank[:, rows, :job.columns]
        for t in range(job.columns):
            columns = ((2 * t, 8), (2 * t + 1, 0)) if job.digits else ((t, 0),)
            for column, places in columns:
                dot = (weights * self.digit[column][position]).sum(axis=2).astype(object)
                shift = self.exponent[column][block] - job.exponent + places + 8 * digit
                term = dot << shift.astype(object)
                for number, r in enumerate(row):
                    acc[:, r, t] += term[:, number]
        if not job.last:
            self.bank[:, rows, :job.columns] = acc
            return [], written
        if job.merge == 1:      # lanes to positions
            acc = acc[[config.k_lane(p, job.head) for p in range(config.channels)]]
        return [(tuple(acc[:, r, t]), t, t == job.columns - 1, r == job.rows - 1)
                for r in range(job.rows) for t in range(job.columns)], written
