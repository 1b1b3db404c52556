# SPDX-License-Identifier: Apache-2.0
"""Drives the cards of a model: writes their memory, gives them commands, reads what they wrote."""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from rtl_gen.spec import registers
from rtl_gen.spec.isa import Register

from . import ring
from .card import Card, Reserves, Status
from .compile import DECODE, Compiler
from .errors import UserError
from .image import Block, Images, Once
from .layout import Layout
from .parts import SILENT, Columns, first_pass
from .program import Program
from .reference import Source
from .results import Result, Totals, add, judge, result_of

#: Seconds that one decode step may take on the slowest simulated card.
STEP_TIMEOUT = 600.0
#: Stop tokens that a command record holds.
STOPS = 4


#: Candidates, whether logits are stored, whether x is kept: what programs differ in.
_Kind = tuple[int, bool, bool]


class Runtime:
    """One model on one card, or on the cards of a ring.

    Every card computes the results of all: what is read is the first card's.

    Parameters
    ----------
    cards : Card or sequence of Card
    layouts : Layout or sequence of Layout
        By card.
    """

    def __init__(self, cards: Card | Sequence[Card], layouts: Layout | Sequence[Layout]) -> None:
        self.layouts = [layouts] if isinstance(layouts, Layout) else list(layouts)
        self.cards: list[Card] = list(cards) if isinstance(cards, Sequence) else [cards]
        if len(self.cards) != len(self.layouts):
            raise ValueError(f"there must be a layout for each of {len(self.cards)} cards, "
                             f"not {len(self.layouts)}")
        #: The first card, and its layout: what all have in common.
        self.card, self.layout = self.cards[0], self.layouts[0]
        self.totals = Totals()
        #: Counters of all commands, by card.
        self.by_card: list[dict[str, int]] = [{} for _ in self.cards]
        #: By kind, in the order in which they lie on the cards, one behind the other; by card.
        self._programs: dict[_Kind, dict[Columns, list[Program]]] = {}
        #: The kind and number of programs that the cards hold.
        self._loaded: tuple[_Kind, int] | None = None
        #: The kind of the programs that were carried out last.
        self._noted: _Kind | None = None
        self._session = 0

    def reserve(self) -> None:
        """Tell cards that take memory as it is needed how much that is."""
        for card, layout in zip(self.cards, self.layouts, strict=True):
            if isinstance(card, Reserves):
                card.reserve(layout.memory.used * layout.config.beat_bytes)

    def load(self, blocks: Iterable[Block], card: int = 0) -> None:
        """Write a card's part of a model."""
        for block in blocks:
            self._write_beats(block.address, block.data, card)

    def load_model(self, source: Source,
                   progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Write a model's memory, on all cards at the same time.

        ``progress`` is called with parts done and parts.
        """
        self.reserve()
        once = Once(source) if len(self.cards) > 1 else source
        images = [Images(layout, once) for layout in self.layouts]
        for number in range(images[0].stages):
            # What the source computes, it computes once: the first card's thread does.
            self.load(images[0].stage(number))
            ring.on_all(len(self.cards), functools.partial(self._load_stage, images, number))
            progress(number + 1, images[0].stages)

    def _load_stage(self, images: Sequence[Images], number: int, card: int) -> None:
        if card:
            self.load(images[card].stage(number), card)

    def reset(self) -> None:
        """Bring the cards back from an error or an interruption; their memory stays as it is."""
        self._loaded = None
        ring.on_all(len(self.cards), lambda card: self.cards[card].reset())

    def close(self) -> None:
        """Give the cards back."""
        for card in self.cards:
            card.close()

    def program(self, columns: Columns = DECODE, candidates: int = 0, store_logits: bool = False,
                probe: bool = False, card: int = 0) -> Program:
        """A card's program of such passes; compiled when first asked for."""
        kind = candidates, store_logits, probe
        known = self._programs.setdefault(kind, {})
        # A prompt's passes and decode steps take turns: the card holds both at once.
        for wanted in (DECODE, Columns(tokens=self.layout.tokens), columns):
            if wanted not in known:
                known[wanted] = [
                    Compiler(layout, wanted, candidates=candidates, store_logits=store_logits,
                             probe=probe).program() for layout in self.layouts]
        return known[columns][card]

    def notes(self) -> dict[int, str]:
        """By number, what instructions of the programs that the first card holds begin."""
        found: dict[int, str] = {}
        start = 0
        for program, *_ in () if self._noted is None else self._programs[self._noted].values():
            found |= {start + number: text for number, text in program.notes.items()}
            start += len(program)
        return found

    def run(self, tokens: Sequence[int], position: int, steps: int, *, stops: Sequence[int] = (),
            silent: int = 0, slot: int = 0, candidates: int = 0, store_logits: bool = False,
            probe: bool = False) -> list[Result]:
        """Carry out decode steps of one sequence with one command.

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
        slot : int
            Whose K and V: sequences of a batch have a cache each.
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
        done = self._command((candidates, store_logits, probe), DECODE, tokens, [position], steps,
                             silent, slot, stops)
        return self._results(silent, done, candidates)

    def read(self, tokens: Sequence[int], position: int, *, silent: bool = False, slot: int = 0,
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
        slot : int
            As for :meth:`run`.
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
                             slot=slot, candidates=candidates, store_logits=store_logits,
                             probe=probe)
            return found[0] if found else None
        columns = Columns(tokens=size)
        # All passes are full: where the first two overlap they make the same K and V.
        first = len(tokens) % size
        if first:
            self._command(kind, columns, tokens[:size], [position], 1, 1, slot)
        rest = tokens[first:]
        passes = len(rest) // size
        self._command(kind, columns, rest, [position + first], passes, passes - (not silent), slot)
        return None if silent else self._results(len(rest) - 1, len(rest), candidates)[0]

    def batch(self, tokens: Sequence[int], positions: Sequence[int], *, silent: bool = False,
              candidates: int = 0, store_logits: bool = False) -> list[Result]:
        """One decode step of several sequences, which may be of different lengths.

        The bits are those of one sequence after another.

        Parameters
        ----------
        tokens, positions : sequence of int
            Of each sequence; the first has slot 0, and so on.  At least two, at most
            :attr:`Layout.sequences <heddle.layout.Layout.sequences>`.
        silent : bool
            Nobody wants the logits.
        candidates, store_logits
            See :class:`~heddle.compile.Compiler`.

        Returns
        -------
        list of Result
            Of each sequence, unless ``silent``.
        """
        count = len(tokens)
        if not 2 <= count <= self.layout.sequences or len(positions) != count:
            raise ValueError(f"there must be 2 to {self.layout.sequences} sequences, each with a "
                             f"token and a position, not {count} and {len(positions)}")
        self._command((candidates, store_logits, False), Columns(tokens=count, sequences=count),
                      tokens, positions, 1, int(silent), 0)
        return [] if silent else self._results(0, count, candidates)

    def _command(self, kind: _Kind, columns: Columns, tokens: Sequence[int],
                 positions: Sequence[int], passes: int, silent: int, slot: int,
                 stops: Sequence[int] = ()) -> int:
        """Carry out passes with one command; returns the tokens that they took."""
        config = self.layout.config
        end = max(positions) + passes * columns.each
        if end > self.layout.context:
            raise UserError(f"prompt and new tokens must fit the context of {self.layout.context}, "
                            f"not need {end} positions")
        if not 0 <= slot < self.layout.sequences:
            raise ValueError(f"slot must be below {self.layout.sequences}, not {slot}")
        if kind[0] > config.top_k:
            raise ValueError(f"candidates must be at most {config.top_k}, not {kind[0]}")
        self.program(columns, *kind)
        held = kind, len(self._programs[kind])
        load = self._loaded != held
        # Until the command has ended well, nothing is known of what the cards hold.
        self._loaded = None
        # One token of one column comes with the registers; the card need not read it.
        given = tokens if len(tokens) > 1 else ()
        stop = [*stops[:STOPS], *[registers.NO_STOP] * STOPS][:STOPS]
        records = []
        for card, layout in enumerate(self.layouts):
            programs = {key: found[card] for key, found in self._programs[kind].items()}
            starts = dict(zip(programs, itertools.accumulate(
                map(len, programs.values()), initial=0), strict=False))
            if load:
                self._write(layout.memory.program, b"".join(
                    program.moved(starts[key]).image() for key, program in programs.items()), card)
            records.append({
                "flags": registers.FLAG_LOAD * load,
                "instructions": sum(map(len, programs.values())), "entry": starts[columns],
                "results": layout.memory.results, "result_beats": layout.result_beats(kind[0]),
                **{f"stop{k}": value for k, value in enumerate(stop)},
                **{f"r{register}": value for register, value in first_pass(
                    layout, columns, positions, slot=slot).items()},
                f"r{Register.TOKEN}": tokens[0],
                f"r{Register.LEFT}": passes, f"r{SILENT}": silent + 1})
        statuses = self._carry_out(records, given, STEP_TIMEOUT * passes)
        self._loaded, self._noted = held, kind
        done = statuses[0]["steps"] * columns.sequences
        # The slowest card's: the others waited for it.
        self.totals.add(max(statuses, key=lambda status: status["cycles"]), done)
        for totals, status in zip(self.by_card, statuses, strict=True):
            add(totals, status.counters)
        for status in statuses:
            judge(status)
        return done

    def _carry_out(self, records: Sequence[dict[str, int]], given: Sequence[int], timeout: float
                   ) -> list[Status]:
        """One command on all cards, by card: its record, but for what all commands have."""
        self._session = (self._session + 1) % 256
        addresses = []
        for card, (layout, values) in enumerate(zip(self.layouts, records, strict=True)):
            memory = layout.memory
            if len(given):
                self._write(memory.tokens, np.asarray(given, "<u4").tobytes(), card)
            numbers = {"card": card, "session": self._session}
            full = {"magic": registers.COMMAND_MAGIC, "program": memory.program,
                    "status": memory.status, "tokens": memory.tokens, "given": len(given),
                    "ring": sum(numbers[name] << low for name, low in registers.RING.items())
                    if len(self.cards) > 1 else 0,
                    **values}
            words = [full.get(name, 0) for name in registers.COMMAND]
            self._write(memory.command, np.asarray(words, "<u4").tobytes(), card)
            addresses.append(memory.command * layout.config.beat_bytes)
        return ring.run(self.cards, addresses, timeout)

    def carry_out(self, programs: Sequence[Program], timeout: float = STEP_TIMEOUT) -> None:
        """Run programs of the caller's, one a card, instead of the model's."""
        self._loaded = None
        for card, (layout, program) in enumerate(zip(self.layouts, programs, strict=True)):
            self._write(layout.memory.program, program.image(), card)
        records = [{"flags": registers.FLAG_LOAD, "instructions": len(program),
                    "results": layout.memory.results,
                    **{f"stop{k}": registers.NO_STOP for k in range(STOPS)}}
                   for layout, program in zip(self.layouts, programs, strict=True)]
        self._carry_out(records, (), timeout)

    def logits(self, sequence: int = 0) -> npt.NDArray[np.float32]:
        """All logits of the last step, of one sequence; the command must have stored them."""
        memory = self.layout.memory
        return self._vector(memory.logits + sequence * memory.row, self.layout.shape.vocabulary)

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
        return [result_of(row, candidates) for row in rows]

    def _write_beats(self, address: int, data: npt.NDArray[np.uint8], card: int) -> None:
        for channel, beats in enumerate(data):
            self._write(address, np.ascontiguousarray(beats).data.cast("B"), card, channel)

    def _at(self, beat: int, channel: int) -> int:
        return channel * self.layout.config.channel_bytes + beat * self.layout.config.beat_bytes

    def _write(self, beat: int, data: bytes | memoryview, card: int = 0, channel: int = 0) -> None:
        self.cards[card].write(self._at(beat, channel), data)

    def _read(self, beat: int, size: int, channel: int = 0) -> bytes:
        return self.card.read(self._at(beat, channel), size)
