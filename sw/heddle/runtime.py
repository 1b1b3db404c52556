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
from .compile import Compiler
from .errors import RunError, UserError
from .image import Block
from .layout import Layout
from .parts import SILENT, Columns
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


#: Candidates, whether logits are stored, whether x is kept: what programs differ in.
_Kind = tuple[int, bool, bool]


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
        self._programs: dict[_Kind, tuple[Program, ...]] = {}
        #: The kind of programs that the card holds.
        self._loaded: _Kind | None = None

    def load(self, blocks: Iterable[Block]) -> None:
        """Write a model's memory."""
        for block in blocks:
            self._write_beats(block.address, block.data)

    def programs(self, candidates: int = 0, store_logits: bool = False,
                 probe: bool = False) -> tuple[Program, ...]:
        """The decode program, and that of passes of :attr:`Layout.tokens` tokens if that is more
        than one; compiled when first asked for.  The card holds both, one behind the other."""
        kind = candidates, store_logits, probe
        if kind not in self._programs:
            self._programs[kind] = tuple(
                Compiler(self.layout, Columns(tokens=tokens), candidates=candidates,
                         store_logits=store_logits, probe=probe).program()
                for tokens in sorted({1, self.layout.tokens}))
        return self._programs[kind]

    def notes(self) -> dict[int, str]:
        """By number, what instructions of the programs that the card holds begin."""
        found: dict[int, str] = {}
        start = 0
        for program in () if self._loaded is None else self._programs[self._loaded]:
            found |= {start + number: text for number, text in program.notes.items()}
            start += len(program)
        return found

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
        if not 1 <= len(tokens) <= self.layout.config.context or steps < 1:
            raise ValueError("there must be 1 to `context` tokens and a step")
        if not 0 <= silent <= min(steps, len(tokens)):
            raise ValueError("there must be a token for every silent step")
        kind = candidates, store_logits, probe
        done = self._command(kind, 1, tokens, position, steps, silent, stops)
        return self._results(silent, done, candidates)

    def read(self, tokens: Sequence[int], position: int, *, silent: bool = False,
             candidates: int = 0, store_logits: bool = False, probe: bool = False
             ) -> Result | None:
        """Read a prompt, several tokens a pass where the card has columns for them.

        The bits are those of one token after another.

        Parameters
        ----------
        tokens : sequence of int
            At least one.
        position : int
            Of the first; K and V of all positions before must have been made.
        silent : bool
            Nobody wants the logits of the last token.
        candidates, store_logits, probe
            See :class:`~heddle.compile.Compiler`.

        Returns
        -------
        Result or None
            That of the last token, unless ``silent``.
        """
        kind, size = (candidates, store_logits, probe), self.layout.tokens
        if len(tokens) < size or size == 1:
            found = self.run(tokens, position, len(tokens), silent=len(tokens) - (not silent),
                             candidates=candidates, store_logits=store_logits, probe=probe)
            return found[0] if found else None
        # All passes are full: where the first two overlap they make the same K and V.
        first = len(tokens) % size
        if first:
            self._command(kind, size, tokens[:size], position, 1, 1, ())
        rest = tokens[first:]
        passes = len(rest) // size
        self._command(kind, size, rest, position + first, passes, passes - (not silent), ())
        return None if silent else self._results(len(rest) - 1, len(rest), candidates)[0]

    def _command(self, kind: _Kind, size: int, tokens: Sequence[int], position: int, passes: int,
                 silent: int, stops: Sequence[int]) -> int:
        """Carry out passes of ``size`` tokens with one command; returns the tokens that they
        took."""
        config, memory = self.layout.config, self.layout.memory
        if position + passes * size > self.layout.context:
            raise UserError(f"prompt and new tokens must fit the context of {self.layout.context}, "
                            f"not need {position + passes * size} positions")
        if kind[0] > config.top_k:
            raise ValueError(f"candidates must be at most {config.top_k}, not {kind[0]}")
        programs = self.programs(*kind)
        sizes = [len(program) for program in programs]
        flags = 0
        if self._loaded != kind:
            # One after the other: each moved to where it lies.
            self._write(memory.program, b"".join(
                program.moved(sum(sizes[:k])).image() for k, program in enumerate(programs)))
            flags = registers.FLAG_LOAD
        # Until the command has ended well, nothing is known of what the card holds.
        self._loaded = None
        self._write(memory.tokens, np.asarray(tokens, "<u4").tobytes())
        stop = [*stops[:STOPS], *[registers.NO_STOP] * STOPS][:STOPS]
        values = {
            "magic": registers.COMMAND_MAGIC, "flags": flags, "program": memory.program,
            "instructions": sum(sizes), "entry": 0 if size == 1 else sizes[0],
            "status": memory.status, "results": memory.results,
            "result_beats": self.layout.result_beats(kind[0]), "tokens": memory.tokens,
            "given": len(tokens), **{f"stop{k}": value for k, value in enumerate(stop)},
            f"r{Register.POS}": position, f"r{Register.LEN}": position + 1,
            f"r{Register.TOKEN}": tokens[0], f"r{Register.LEFT}": passes,
            f"r{SILENT}": silent + 1}
        words = [values.get(name, 0) for name in registers.COMMAND]
        self._write(memory.command, np.asarray(words, "<u4").tobytes())
        status = self.card.run(memory.command * config.beat_bytes, STEP_TIMEOUT * passes)
        self._loaded = kind
        done = status["steps"]
        self.totals.add(status, done)
        _judge(status)
        return done

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

    def _results(self, first: int, end: int, candidates: int) -> list[Result]:
        """The records of steps ``first`` to ``end`` - 1."""
        if first >= end:
            return []
        beats = self.layout.result_beats(candidates)
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
