# SPDX-License-Identifier: Apache-2.0
"""Drives a card: writes its memory, gives it commands, reads what it wrote."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from rtl_gen.spec import registers
from rtl_gen.spec.isa import Register
from rtl_gen.spec.registers import Sticky

from .card import Card, Status
from .compile import SILENT, Compiler
from .errors import RunError, UserError
from .image import Block
from .layout import Layout
from .program import Program

#: Seconds that one decode step may take on the slowest simulated card.
STEP_TIMEOUT = 600.0
#: Stop tokens that a command record holds.
STOPS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A result record: what the card says of one step's logits."""

    #: The best token, and its logit.
    token: int
    logit: float
    #: log Σ exp of all logits.
    log_sum: float
    #: Logit of the token given for the next step; None if there was none.
    target_logit: float | None
    #: Best tokens, best first, and their logits.
    candidates: npt.NDArray[np.uint32]
    candidate_logits: npt.NDArray[np.float32]


@dataclasses.dataclass
class Totals:
    """Counters of all commands since the last reset, by their names in the status record."""

    steps: int = 0
    counters: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, status: Status, steps: int) -> None:
        self.steps += steps
        for name, value in status.counters.items():
            self.counters[name] = self.counters.get(name, 0) + value


class Runtime:
    """One model on one card.

    Parameters
    ----------
    card : Card
    layout : Layout
    """

    def __init__(self, card: Card, layout: Layout) -> None:
        self.card, self.layout = card, layout
        self.totals = Totals()
        self._programs: dict[tuple[int, bool, bool], Program] = {}
        #: The program that the card holds.
        self._loaded: Program | None = None

    def load(self, blocks: Iterable[Block]) -> None:
        """Write a model's memory."""
        for block in blocks:
            self._write_beats(block.address, block.data)

    def program(self, candidates: int = 0, store_logits: bool = False,
                probe: bool = False) -> Program:
        """The decode program; compiled when first asked for."""
        key = candidates, store_logits, probe
        if key not in self._programs:
            self._programs[key] = Compiler(self.layout, candidates=candidates, probe=probe,
                                           store_logits=store_logits).program()
        return self._programs[key]

    def notes(self) -> dict[int, str]:
        """By number, what instructions of the program that the card holds begin."""
        return dict(self._loaded.notes) if self._loaded is not None else {}

    def run(self, tokens: Sequence[int], position: int, steps: int, *, stops: Sequence[int] = (),
            silent: int = 0, candidates: int = 0, store_logits: bool = False,
            probe: bool = False) -> list[Result]:
        """Carry out decode steps with one command.

        Parameters
        ----------
        tokens : sequence of int
            Inputs of the first steps, at least one; later steps take the best token of the step
            before.
        position : int
            Of the first token; K and V of all positions before must have been made.
        steps : int
        stops : sequence of int
            Tokens (the first four) after which the card ends early, if it chose them itself.
        silent : int
            First steps whose logits nobody wants; they are not computed.
        candidates, store_logits, probe
            See :class:`~heddle.compile.Compiler`.

        Returns
        -------
        list of Result
            One for every step done but the silent ones.
        """
        config, memory = self.layout.config, self.layout.memory
        if not 1 <= len(tokens) <= config.context or steps < 1:
            raise ValueError("there must be 1 to `context` tokens and a step")
        if not 0 <= silent <= min(steps, len(tokens)):
            raise ValueError("there must be a token for every silent step")
        if position + steps > self.layout.context:
            raise UserError(f"prompt and new tokens must fit the context of {self.layout.context}, "
                            f"not need {position + steps} positions")
        if candidates > config.top_k:
            raise ValueError(f"candidates must be at most {config.top_k}, not {candidates}")
        program = self.program(candidates, store_logits, probe)
        record = self.layout.result_beats(candidates)
        flags = 0
        if self._loaded is not program:
            self._write(memory.program, program.image())
            flags = registers.FLAG_LOAD
        # Until the command has ended well, nothing is known of what the card holds.
        self._loaded = None
        self._write(memory.tokens, np.asarray(tokens, "<u4").tobytes())
        stop = [*stops[:STOPS], *[registers.NO_STOP] * STOPS][:STOPS]
        values = {
            "magic": registers.COMMAND_MAGIC, "flags": flags, "program": memory.program,
            "instructions": len(program), "entry": 0, "status": memory.status,
            "results": memory.results, "result_beats": record, "tokens": memory.tokens,
            "given": len(tokens), **{f"stop{k}": value for k, value in enumerate(stop)},
            f"r{Register.POS}": position, f"r{Register.LEN}": position + 1,
            f"r{Register.TOKEN}": tokens[0], f"r{Register.LEFT}": steps,
            f"r{SILENT}": silent + 1}
        words = [values.get(name, 0) for name in registers.COMMAND]
        self._write(memory.command, np.asarray(words, "<u4").tobytes())
        status = self.card.run(memory.command * config.beat_bytes, STEP_TIMEOUT * steps)
        self._loaded = program
        done = status["steps"]
        self.totals.add(status, done)
        _judge(status)
        return self._results(silent, done, record, candidates)

    def logits(self) -> npt.NDArray[np.float32]:
        """All logits of the last step; the command must have stored them."""
        return self._vector(self.layout.memory.logits, self.layout.shape.vocabulary)

    def probes(self) -> dict[str, npt.NDArray[np.float32]]:
        """The residual stream in the last step, by the names that the reference gives; with
        ``probe``."""
        memory, found = self.layout.memory, {}
        for number in range(self.layout.shape.layers):
            left = self.layout.shape.layers - number
            for which, part in enumerate(("attention", "mlp")):
                beat = memory.probes + (2 * left + which) * memory.vector
                found[f"layer {number} {part}"] = self._vector(beat, self.layout.shape.width)
        return found

    def _vector(self, beat: int, elements: int) -> npt.NDArray[np.float32]:
        """FP32 elements that lie striped over all channels."""
        channels = self.layout.config.channels
        words = -(-elements // channels)
        lanes = [np.frombuffer(self._read(beat, 4 * words, channel), "<f4")
                 for channel in range(channels)]
        return np.stack(lanes, axis=1).reshape(-1)[:elements].astype(np.float32)

    def _results(self, first: int, end: int, beats: int, candidates: int) -> list[Result]:
        """The records of steps ``first`` to ``end`` - 1, of so many beats each."""
        if first >= end:
            return []
        size = beats * self.layout.config.beat_bytes
        data = self._read(self.layout.memory.results + first * beats, (end - first) * size)
        rows = np.frombuffer(data, "<u4").reshape(end - first, size // 4)
        return [_result(row, candidates) for row in rows]

    def _write_beats(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        for channel, beats in enumerate(data):
            self._write(address, np.ascontiguousarray(beats).data.cast("B"), channel)

    def _at(self, beat: int, channel: int) -> int:
        return channel * self.layout.config.channel_bytes + beat * self.layout.config.beat_bytes

    def _write(self, beat: int, data: bytes | memoryview, channel: int = 0) -> None:
        self.card.write(self._at(beat, channel), data)

    def _read(self, beat: int, size: int, channel: int = 0) -> bytes:
        return self.card.read(self._at(beat, channel), size)


def _result(words: npt.NDArray[np.uint32], candidates: int) -> Result:
    fixed = dict(zip(registers.RESULT, words, strict=False))

    def fp32(name: str) -> float:
        return float(fixed[name].view(np.float32))

    start = len(registers.RESULT)
    pairs = words[start:start + 2 * candidates].reshape(-1, 2)
    pairs = pairs[pairs[:, 0] != registers.NO_TARGET]
    return Result(
        token=int(fixed["token"]), logit=fp32("logit"),
        log_sum=fp32("max") + float(np.log(fp32("sum"))),
        target_logit=None if fixed["target"] == registers.NO_TARGET else fp32("target_logit"),
        candidates=pairs[:, 0].copy(), candidate_logits=pairs[:, 1].copy().view(np.float32))


def _judge(status: Status) -> None:
    """:class:`RunError` if the numbers of a command are not to be trusted."""
    if status["sticky"] & Sticky.NONFINITE:
        raise RunError("the model computed a NaN or an infinity: its weights or activations are "
                       "too large for FP32")
    if status["sticky"] & Sticky.RANGE:
        raise RunError("an activation was too large to be quantised: the model's activations are "
                       "larger than those of any GPT-2 that this compiler knows")
