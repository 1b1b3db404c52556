# SPDX-License-Identifier: Apache-2.0
"""What an instruction reads and writes on the card, and where: the ground of ordering programs.

A MATMUL goes through up to three stages: the engine (planes, fresh K and V), the epilogue
(scratchpad, statistics, K scales) and, for scores, softmax (V scales, probabilities).  Each stage
takes the instructions in program order, so that what one instruction does in a stage comes before
what a later one does in the same or a later stage.  Softmax may still write while the engine
already reads for the next instruction: that needs a counter, as between queues.
"""

import dataclasses
import enum

from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.formats import PATTERNS
from rtl_gen.spec.isa import RECEIVES, SENDS, SUMS, Queue, VectorFn
from rtl_gen.spec.rules import span

from .trace import Step

_BINARY = {VectorFn.ADD, VectorFn.SUB, VectorFn.MUL, VectorFn.MAX, VectorFn.MADD}
_REDUCING = {VectorFn.SUM, VectorFn.MAXIMUM}


class Stage(enum.IntEnum):
    """Where on the card something happens; within one of them, in program order."""

    CONTROL = 0
    MEMORY = 1
    SEND_PREVIOUS = 2
    SEND_NEXT = 3
    RECEIVE_PREVIOUS = 4
    RECEIVE_NEXT = 5
    VECTOR = 6
    ENGINE = 7
    EPILOGUE = 8
    SOFTMAX = 9


@dataclasses.dataclass(frozen=True)
class Access:
    """Cells of on-chip state that an instruction reads or writes."""

    cells: slice
    write: bool
    stage: Stage


@dataclasses.dataclass(frozen=True)
class Span:
    """Beats of HBM, in every channel."""

    start: int
    stop: int


class Cells:
    """All on-chip state of a card that instructions share, numbered through."""

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        self.scratch = 0
        self.planes = config.scratch_words
        self.scales = self.planes + config.plane_blocks
        #: K, then V: by buffer, one cell a head.
        self.fresh = self.scales + config.kv_scales
        self.stats = self.fresh + 2 * config.tokens * config.heads
        self.sums = self.stats + 2
        self.token = self.sums + SUMS
        self.count = self.token + 1

    def name(self, cell: int) -> str:
        """A cell for a message."""
        bases = ("token", "sums", "stats", "fresh", "scales", "planes", "scratch")
        base = next(name for name in bases if cell >= getattr(self, name))
        return f"{base} {cell - getattr(self, base)}"

    def accesses(self, step: Step) -> list[Access]:
        """All accesses of one instruction; overlapping ones are listed once each."""
        if step.name in SENDS + RECEIVES:
            return self._message(step)
        found = getattr(self, f"_{step.name.lower()}", None)
        return [] if found is None else found(step.values)

    def completes(self, step: Step) -> Stage:
        """The stage whose end is the end of the instruction."""
        match step.queue:
            case Queue.MATMUL:
                if step.values["dest"]:
                    return Stage.SOFTMAX
                return Stage.EPILOGUE if step.values["last"] else Stage.ENGINE
            case queue:
                return Stage[queue.name]

    def _range(self, base: int, start: int, count: int, step: int = 1) -> slice:
        first = base + start
        return slice(first, first + max(0, count - 1) * step + 1 if count else first, step)

    def _fresh(self, kind: int, buffer: int, head: int, count: int) -> slice:
        """One head of ``count`` buffers of K (0) or V (1)."""
        heads, tokens = self.config.heads, self.config.tokens
        return self._range(self.fresh, (kind * tokens + buffer) * heads + head, count, heads)

    def _load(self, v: dict[str, int]) -> list[Access]:
        base = self.scales if v["target"] else self.scratch
        return [Access(self._range(base, v["dst"], v["rows"] * v["words"]), True, Stage.MEMORY)]

    def _store(self, v: dict[str, int]) -> list[Access]:
        base, start = self.scratch, v["src"]
        if v["source"]:
            base, start = self.scales, start + v["pos"] // self.config.channels * v["words"]
        return [Access(self._range(base, start, v["words"]), False, Stage.MEMORY)]

    def _matmul(self, v: dict[str, int]) -> list[Access]:
        pattern, last = PATTERNS[v["pattern"]], bool(v["last"])
        found = [Access(self._range(self.planes, v["act"], v["beats"] * pattern.ratio), False,
                        Stage.ENGINE)]
        if v["merge"]:
            found.append(Access(
                self._fresh(v["merge"] - 1, v["sequence"], v["head"], v["columns"]), False,
                Stage.ENGINE))
        scales = self._range(self.scales, v["kv_base"] + v["head"], v["rows"], v["kv_heads"] or 1)
        if v["scale"] == 2:
            found.append(Access(scales, False, Stage.EPILOGUE))
        if v["norm"]:
            found.append(Access(self._range(self.stats, v["norm"] - 1, 1), False, Stage.EPILOGUE))
        if v["divide"]:
            found.append(Access(self._range(self.sums, v["divide"] - 1, 1), False, Stage.EPILOGUE))
        for token in range(v["columns"] if last else 0):
            start = v["dst"] + token * v["dst_stride"]
            if v["dest"]:
                blocks = -(-v["rows"] * self.config.channels // self.config.beat_bytes)
                found.append(Access(self._range(self.planes, start, blocks), True, Stage.SOFTMAX))
            else:
                found.append(Access(self._range(self.scratch, start, v["rows"]), True,
                                    Stage.EPILOGUE))
        if v["dest"]:
            found += [Access(scales, False, Stage.SOFTMAX),
                      Access(self._range(self.sums, v["dest"] - 1, 1), True, Stage.SOFTMAX)]
        return found

    def _vector(self, v: dict[str, int]) -> list[Access]:
        found = [Access(self._range(self.scratch, v["a"], v["words"]), False, Stage.VECTOR)]
        if v["fn"] in _BINARY:
            found.append(Access(self._range(self.scratch, v["b"], v["words"]), False, Stage.VECTOR))
        if v["fn"] not in _REDUCING:
            found.append(Access(self._range(self.scratch, v["dst"], v["words"]), True,
                                Stage.VECTOR))
        return found

    def _quant(self, v: dict[str, int]) -> list[Access]:
        blocks = -(-v["words"] * self.config.vector_lanes // self.config.beat_bytes)
        found = [Access(self._range(self.scratch, v["a"], v["words"]), False, Stage.VECTOR),
                 Access(self._range(self.planes, v["act"], blocks), True, Stage.VECTOR)]
        if v["gamma"]:
            found.append(Access(self._range(self.scratch, v["b"], v["words"]), False, Stage.VECTOR))
        return found

    def _norm(self, v: dict[str, int]) -> list[Access]:
        return [Access(self._range(self.stats, v["set"], 1), True, Stage.VECTOR)]

    def _cache(self, v: dict[str, int]) -> list[Access]:
        row = (v["pos"] + v["token"]) // self.config.channels
        entry = v["kv_base"] + row * v["kv_heads"] + v["head"]
        fresh = self._fresh(v["kind"], v["sequence"] + v["token"], v["head"], 1)
        return [Access(self._range(self.scratch, v["a"], self.config.head_words), False,
                       Stage.VECTOR),
                Access(self._range(self.scales, entry, 1), True, Stage.VECTOR),
                Access(fresh, True, Stage.VECTOR)]

    def _sample(self, v: dict[str, int]) -> list[Access]:
        found = [Access(self._range(self.scratch, v["a"] + column * v["stride"], v["words"]),
                        False, Stage.VECTOR) for column in range(v["columns"])]
        if v["last"]:
            found.append(Access(self._range(self.token, 0, 1), True, Stage.VECTOR))
        return found

    def _message(self, step: Step) -> list[Access]:
        """Those of a SEND or RECEIVE, of whichever side: each is a stage of its own."""
        v, writes = step.values, step.name in RECEIVES
        first = v["dst"] if writes else v["src"]
        return [Access(self._range(self.scratch, first + column * v["stride"], v["words"]), writes,
                       Stage[step.name]) for column in range(v["columns"])]

    def _next(self, v: dict[str, int]) -> list[Access]:
        return [Access(self._range(self.token, 0, 1), False, Stage.CONTROL)]

    def reads_hbm(self, step: Step) -> Span | None:
        """The beats that an instruction streams in, or None."""
        if step.name not in ("LOAD", "MATMUL"):
            return None
        start = step.values["address"]
        return Span(start, start + span(self.config, step.name, step.values))

    def writes_hbm(self, step: Step) -> Span | None:
        """The beats that an instruction writes, or None; of a merge, all that may be written
        back."""
        if step.name != "STORE" and not (step.name == "MATMUL" and step.values["merge"]):
            return None
        start = step.values["address"]
        return Span(start, start + span(self.config, step.name, step.values))
