# SPDX-License-Identifier: Apache-2.0
"""Random MATMULs with ``last`` for the epilogue, and what must come of them: docs/numerics.md."""

import dataclasses
import random
from typing import Any

import numpy as np
import numpy.typing as npt

from cardsim import numerics as nx
from rtl_gen.spec import isa
from rtl_gen.spec.config import CardConfig

Floats = npt.NDArray[np.float32]
#: Words of the longest row of scores.
LONGEST = 40
#: Fields of a MATMUL that asks for nothing.
NOTHING = {field.name: 0 for field in isa.fields("MATMUL") if field.name != "opcode"}


@dataclasses.dataclass
class Job:
    """One MATMUL as the epilogue sees it."""

    fields: dict[str, int]
    rows: int
    length: int
    #: Python integers [rows, tokens, C].
    acc: npt.NDArray[Any]
    #: ``scale``, ``wg`` and ``bias``, those that the instruction uses, in this order: [rows, C].
    constants: dict[str, Floats]

    @property
    def word(self) -> int:
        """The instruction."""
        return isa.encode("MATMUL", **self.fields)

    def words(self, lane: int) -> list[int]:
        """The constants of one channel in their order."""
        return [int(nx.bits(values[row, lane]))
                for row in range(self.rows) for values in self.constants.values()]

    def sums(self) -> list[dict[str, Any]]:
        """The engine's rows: fields of the payload."""
        columns = self.fields["columns"]
        return [{"acc": [int(x) for x in self.acc[row, token]], "token": token,
                 "last_token": token == columns - 1, "last_row": row == self.rows - 1}
                for row in range(self.rows) for token in range(columns)]


def floats(rng: random.Random, shape: tuple[int, ...], corners: float = 0.0) -> Floats:
    """Numbers of many magnitudes; a share of ``corners`` out of the ordinary."""
    values = np.array([rng.gauss(0, 1) * 2.0 ** rng.randrange(-4, 5)
                       for _ in range(int(np.prod(shape)))], np.float32).reshape(shape)
    spoilt = np.array([rng.random() < corners for _ in range(values.size)]).reshape(shape)
    odd = rng.choice([np.nan, np.inf, -np.inf, 1e-40, -0.0, 3e38])
    return np.where(spoilt, np.float32(odd), values).astype(np.float32)


def random_job(rng: random.Random, config: CardConfig, *, softmax: bool, corners: float) -> Job:
    """An instruction to softmax or to the scratchpad, with its sums and constants."""
    lanes = config.channels
    f = {"last": 1, "signal": rng.getrandbits(16), "exponent": rng.randrange(-30, -8),
         "columns": rng.randrange(1, config.tokens + 1)}
    rows = rng.randrange(1, min(config.context // lanes, LONGEST) + 1 if softmax else 13)
    length = rng.randrange(1 << 12)
    if softmax:
        f["digits"] = rng.choice([0, 1]) if f["columns"] * 2 <= config.tokens else 0
        f["two_beat"] = int(f["columns"] << f["digits"] << 1 <= config.tokens
                            and rng.random() < 0.5)
        f |= {"dest": rng.randrange(1, isa.SUMS + 1), "scale": rng.choice([0, 1, 2, 2]),
              "exponent": rng.choice([-30, -20]), "dst": rng.randrange(32),
              "dst_stride": rng.randrange(32), "head": rng.randrange(4),
              "kv_base": rng.randrange(64), "kv_heads": rng.randrange(4)}
        length = rng.choice([
            1, max(1, rows * lanes - f["columns"] + 1),
            rng.randrange(1, max(2, rows * lanes - f["columns"] + 2))])
    else:
        f |= {"scale": rng.randrange(3), "norm": rng.choice([0, 0, 1, 2]),
              "bias": rng.randrange(2), "divide": rng.choice([0, 0, 0, 0, *range(1, isa.SUMS + 1)]),
              "gelu": rng.choice([0, 0, 1, 2]), "residual": rng.randrange(2),
              "dst": rng.randrange(24),
              # With equal strides, rows of one product lie between those of another.
              "dst_stride": rng.choice([rows + rng.randrange(3), max(rows, 8)]),
              "head": rng.randrange(4), "kv_base": rng.randrange(64), "kv_heads": 3}
        if rng.random() < 0.3:      # the same words as a neighbour: residuals follow at once
            f |= {"dst": 3, "residual": 1}
    size = rng.choice([10, 24, 40, 79])
    acc = np.array([[[rng.randrange(-1 << size, 1 << size) for _ in range(lanes)]
                     for _ in range(f["columns"])] for _ in range(rows)], object)
    names = [name for name, used in (
        ("scale", f["scale"] == 1), ("wg", f.get("norm", 0) > 0), ("bias", f.get("bias", 0)))
        if used]
    constants = {name: floats(rng, (rows, lanes), corners) for name in names}
    return Job(NOTHING | f, rows, length, acc, constants)


def memories(rng: random.Random, config: CardConfig, corners: float) -> tuple[
        Floats, npt.NDArray[np.uint32], Floats]:
    """Scratchpad, scales of K and V, and norms [set, token, mean or deviation] at the beginning."""
    scratch = floats(rng, (config.scratch_words, config.channels), corners)
    scales = np.array([[rng.getrandbits(1) << 31 | rng.randrange(118, 132) << 23
                        | rng.getrandbits(7) << 16 | rng.randrange(118, 132) << 7
                        | rng.getrandbits(7) for _ in range(config.channels)]
                       for _ in range(config.kv_scales)], np.uint32)
    return scratch, scales, floats(rng, (2, config.tokens, 2))


class EpilogueModel:
    """The memories, and what each instruction does to them, straight from docs/numerics.md.

    Parameters
    ----------
    config : CardConfig
    scratch, scales, norms :
        As of :func:`memories`; the scratchpad changes.

    Attributes
    ----------
    written : list of (address, word)
        Results in the order of the rows.
    scores : list of words
        What goes to softmax.
    results : [result, token]
        1/sum of what went there last.
    done : list of int
        Signals of the instructions to the scratchpad.
    nonfinite : bool
    """

    def __init__(self, config: CardConfig, scratch: Floats, scales: npt.NDArray[np.uint32],
                 norms: Floats) -> None:
        self.config, self.scratch, self.scales, self.norms = config, scratch, scales, norms
        self.results = np.zeros((isa.SUMS, config.tokens), np.float32)
        self.written: list[tuple[int, Floats]] = []
        self.scores: list[Floats] = []
        self.done: list[int] = []
        self.nonfinite = False

    def scale_rows(self, job: Job, half: int) -> Floats:
        """K (0) or V (1) scales [rows, C]."""
        f = job.fields
        entries = self.scales[f["kv_base"] + f["head"] + f["kv_heads"] * np.arange(job.rows)]
        return nx.from_bits((entries >> 16 * half & 0xFFFF) << 16)

    def look(self, values: Floats) -> Floats:
        """Note infinities and NaN."""
        self.nonfinite |= nx.nonfinite(values)
        return values

    def length(self, job: Job, token: int) -> int:
        """Scores of a token that are not masked."""
        return min(job.length + token, job.rows * self.config.channels)

    def run(self, job: Job) -> None:
        """Carry out one instruction."""
        see, f, tokens = self.look, job.fields, range(job.fields["columns"])
        sums = [see(nx.cvt(job.acc[:, token], f["exponent"])) for token in tokens]
        if f["dest"]:
            self.attend(job, [self.score(job, token, sums[token]) for token in tokens])
            return
        values = [self.finish(job, token, sums[token]) for token in tokens]
        self.written += [(f["dst"] + token * f["dst_stride"] + row, values[token][row])
                         for row in range(job.rows) for token in tokens]
        self.done.append(f["signal"])

    def finish(self, job: Job, token: int, v: Floats) -> Floats:
        """Results of one token [rows, C], which go to the scratchpad."""
        see, f = self.look, job.fields
        if f["scale"] == 1:
            v = see(nx.mul(v, job.constants["scale"]))
        elif f["scale"] == 2:
            v = see(nx.mul(v, self.scale_rows(job, 0)))
        if f["norm"]:
            mean, rstd = self.norms[f["norm"] - 1, token]
            v = see(nx.mul(see(nx.sub(v, nx.mul(mean, job.constants["wg"]))), rstd))
        if f["divide"]:
            v = see(nx.mul(v, self.results[f["divide"] - 1, token]))
        if f["bias"]:
            v = see(nx.add(v, job.constants["bias"]))
        if f["gelu"]:
            v = see(nx.gelu(v, f["gelu"] - 1))
        first = f["dst"] + token * f["dst_stride"]
        if f["residual"]:
            v = see(nx.add(self.scratch[first:first + job.rows], v))
        self.scratch[first:first + job.rows] = v
        return v

    def score(self, job: Job, token: int, v: Floats) -> Floats:
        """Scores of one token [rows, C]; those beyond its length are zeros."""
        rows, lanes = job.rows, self.config.channels
        valid = np.arange(rows * lanes).reshape(rows, lanes) < self.length(job, token)
        if job.fields["scale"] == 1:
            v = nx.mul(v, job.constants["scale"])
        elif job.fields["scale"] == 2:
            v = nx.mul(v, self.scale_rows(job, 0))
        return self.look(np.where(valid, v, np.float32(0)))

    def attend(self, job: Job, scores: list[Floats]) -> None:
        """Hand scores over, and take the sums."""
        self.scores += [one[row] for row in range(job.rows) for one in scores]
        for token, one in enumerate(scores):
            result = nx.softmax(one, self.length(job, token))
            self.results[job.fields["dest"] - 1, token] = result.r
