# SPDX-License-Identifier: Apache-2.0
"""Measures a workload on a card, and holds its results against the functional card's, bit by bit.

Nothing is measured on a card that computes something else: hidden state, logits, result records, K
and V must all be equal.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rtl_gen.spec import registers

from .card import Card, Identity, Reserves, Status
from .errors import RunError, UserError
from .layout import Layout
from .program import Program
from .results import Result
from .runtime import Runtime
from .useful import UsefulBytes, useful_bytes

#: Seconds that one pass may take on the slowest simulated card.
PASS_TIMEOUT = 3600.0


class Pass(NamedTuple):
    """One pass of a workload."""

    #: Positions in memory before it, of all its sequences together.
    cached: int
    #: Its tokens, of all sequences.
    tokens: int
    #: Whether the LM head is computed.
    head: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is measured: a prompt, if there is one, and decode steps of one sequence or several."""

    #: Positions whose K and V are in memory before all, of the longest sequence.
    context: int
    #: Tokens of the prompt, of which the first new token comes; 0: there is none.
    prompt: int = 0
    #: New tokens of each sequence.
    new: int = 1
    #: Independent sequences, which share the passes; each has K and V of its own.
    batch: int = 1
    #: Positions by which a sequence is shorter than the one before; none is shorter than 0.
    spread: int = 0
    #: With the LM head, sampling, and all logits written to memory; else layers alone.
    full: bool = True

    def __post_init__(self) -> None:
        for name, least in (("context", 0), ("prompt", 0), ("new", 1), ("batch", 1),
                            ("spread", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.batch > 1 and self.prompt:
            raise UserError(f"prompt must be left out with a batch of {self.batch}: a prompt is "
                            "that of one sequence")
        if self.spread and self.batch == 1:
            raise UserError("spread must be left out without a batch: it makes sequences differ in "
                            "length")

    @property
    def lengths(self) -> list[int]:
        """Positions in memory before all, by sequence."""
        return [max(0, self.context - number * self.spread) for number in range(self.batch)]

    @property
    def steps(self) -> int:
        """Decode steps."""
        return self.new - bool(self.prompt)

    @property
    def positions(self) -> int:
        """Positions that the context must have."""
        return self.context + self.prompt + self.steps

    @property
    def tokens(self) -> int:
        """Tokens that go through the model, of all sequences."""
        return self.prompt + self.batch * self.steps

    def run(self, runtime: Runtime, rng: np.random.Generator,
            read: Callable[[], None] = lambda: None) -> list[list[int]]:
        """Carry it out; ``read`` is called when the prompt is read.

        Returns
        -------
        list of list of int
            New tokens, by sequence; none without the LM head.  The prompt, or the first token, is
            random.
        """
        given = rng.integers(runtime.layout.shape.vocabulary, size=self.tokens).tolist()
        if self.batch > 1:
            return self._batch(runtime, given)
        results: list[Result] = []
        if self.prompt:
            last = runtime.read(given[:self.prompt], self.context, silent=not self.full,
                                store_logits=self.full)
            results += [last] if last else []
        read()
        if self.steps:
            start, silent = self.context + self.prompt, 0 if self.full else self.steps
            first = [results[-1].token] if results else given[self.prompt:][:silent or 1]
            results += runtime.run(first, start, self.steps, silent=silent,
                                   store_logits=self.full)
        return [[result.token for result in results]]

    def _batch(self, runtime: Runtime, given: list[int]) -> list[list[int]]:
        """Decode steps of several sequences, a command each."""
        made: list[list[int]] = [[] for _ in range(self.batch)]
        tokens = given[:self.batch]
        for step in range(self.steps):
            results = runtime.batch(tokens, [length + step for length in self.lengths],
                                    silent=not self.full, store_logits=self.full)
            for tokens_of, result in zip(made, results, strict=False):
                tokens_of.append(result.token)
            # Without the LM head no token follows from those before.
            start = (step + 1) * self.batch
            tokens = [result.token for result in results] or given[start:start + self.batch]
        return made

    def prefill(self, layout: Layout) -> list[Pass]:
        """The passes that read the prompt, as :meth:`heddle.runtime.Runtime.read` makes them."""
        size = layout.tokens if self.prompt >= layout.tokens else 1
        first = self.prompt % size
        starts = [0] * bool(first) + list(range(first, self.prompt, size))
        return [Pass(self.context + start, size, self.full and start + size == self.prompt)
                for start in starts]

    def decode(self) -> list[Pass]:
        """The decode steps."""
        start = sum(self.lengths) + self.prompt
        return [Pass(start + self.batch * step, self.batch, self.full)
                for step in range(self.steps)]

    def needs(self, layout: Layout) -> list[UsefulBytes]:
        """What each pass must read."""
        return [useful_bytes(layout, part.cached, tokens=part.tokens, head=part.head)
                for part in (*self.prefill(layout), *self.decode())]


class Meter:
    """A card that says what its commands cost.

    It has programs loaded by commands of their own that end at once: what is counted are commands
    whose program is on the card already, as all are but the first.
    """

    def __init__(self, card: Card) -> None:
        self.card, self.config = card, card.config
        self._session = 0
        #: Counters of the status records, and seconds, of all commands so far.
        self.counters: dict[str, int] = {}
        self.seconds = 0.0

    def identity(self) -> Identity:
        return self.card.identity()

    def reserve(self, channel_bytes: int) -> None:
        if isinstance(self.card, Reserves):
            self.card.reserve(channel_bytes)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self.card.write(address, data)

    def read(self, address: int, size: int) -> bytes:
        return self.card.read(address, size)

    def reset(self) -> None:
        self.card.reset()

    def close(self) -> None:
        self.card.close()

    def run(self, command_address: int, timeout: float) -> Status:
        size = 4 * len(registers.COMMAND)
        words = np.frombuffer(self.read(command_address, size), "<u4").copy()
        flags, entry, count, ring = (registers.COMMAND.index(name)
                                     for name in ("flags", "entry", "instructions", "ring"))
        # Each command of a ring has a session of its own, and there are more than its owner knows.
        words[ring] &= ~np.uint32(0xFF << registers.RING["session"])

        def session() -> np.uint32:
            self._session = (self._session + 1) % 256
            return np.uint32(self._session << registers.RING["session"])

        if words[flags] & registers.FLAG_LOAD:
            loading = words.copy()
            loading[entry] = words[count] - 1       # a program's last instruction is HALT
            loading[ring] |= session()
            self.write(command_address, loading.tobytes())
            self.card.run(command_address, timeout)
            words[flags] &= ~np.uint32(registers.FLAG_LOAD)
        words[ring] |= session()
        self.write(command_address, words.tobytes())
        start = time.monotonic()
        status = self.card.run(command_address, max(timeout, PASS_TIMEOUT))
        self.seconds += time.monotonic() - start
        for name, value in status.counters.items():
            self.counters[name] = self.counters.get(name, 0) + value
        return status


def fill_cache(card: Card, layout: Layout, positions: int, rng: np.random.Generator,
               slot: int = 0) -> None:
    """Write random K and V, and their scales, of at least the first ``positions`` positions of the
    sequence in ``slot``.

    Elements are evenly distributed and below about 0.8; so are scores, then, as in a trained model:
    neither equal nor far apart.
    """
    config, shape, memory = layout.config, layout.shape, layout.memory
    digits = 1 + layout.options.wide
    lane_rows = -(-positions // config.channels)
    blocks = -(-positions // config.beat_bytes)
    if not positions:
        return
    beats = (lane_rows * config.head_beats * digits, blocks * config.head_words * digits)
    # Rows of scales start at beats.
    words = memory.scale_row * config.beat_bytes // 4
    for layer in range(shape.layers):
        first = memory.cache + slot * memory.slot + layer * memory.cache_stride
        bits = rng.uniform(0.4, 0.8, (config.channels, lane_rows, words, 2)).astype(np.float32)
        bits /= np.float32(127 << 8 * layout.options.wide)
        # BF16 is the high half of FP32; K's scale is the low half of an entry.
        _write(card, first + memory.scales, (bits.view(np.uint32) >> 16).astype("<u2"))
        for start, stride, count in zip((memory.keys, memory.values), memory.head_stride, beats,
                                        strict=True):
            for head in range(len(layout.heads)):
                # Every pair of digits within ±127 is a legal 16-bit value.
                data = rng.integers(-127, 128, (config.channels, count * config.beat_bytes),
                                    np.int8)
                _write(card, first + start + head * stride, data)


def _write(card: Card, beat: int, data: npt.NDArray[np.generic]) -> None:
    """Write data [channels, ...] at one beat address of every channel."""
    config = card.config
    for channel, part in enumerate(data):
        card.write(channel * config.channel_bytes + beat * config.beat_bytes, part.tobytes())


def store_hidden(runtime: Runtime, tokens: int) -> None:
    """Have the cards write the residual stream, of so many tokens of a pass, to ``memory.probes``.

    The scratchpad keeps it from one command to the next: a command of its own does it, behind the
    one that is measured.
    """
    def program(layout: Layout) -> Program:
        words = tokens * -(-layout.shape.width // layout.config.vector_lanes)
        return Program(instructions=(
            ("STORE", {"address": layout.memory.probes, "src": layout.scratch.x, "words": words}),
            ("HALT", {})), notes={})

    runtime.carry_out([program(layout) for layout in runtime.layouts], PASS_TIMEOUT)


def compare(cards: tuple[Card, Card], names: tuple[str, str], layout: Layout) -> None:
    """:class:`RunError` with the first difference between what two cards left in memory."""
    memory, config = layout.memory, layout.config
    # Of a column: a token of a pass.
    beats = {"hidden state": memory.vector, "logits": memory.row}
    for what, start, end in (
            ("hidden state", memory.probes, memory.probes + layout.tokens * memory.vector),
            ("logits", memory.logits, memory.probes),
            ("result records", memory.results, memory.embedding),
            ("K and V", memory.cache, memory.used)):
        size = (end - start) * config.beat_bytes
        for channel in range(config.channels):
            at = channel * config.channel_bytes + start * config.beat_bytes
            ours, theirs = (card.read(at, size) for card in cards)
            if ours == theirs:
                continue
            one, other = (np.frombuffer(data, "<u4") for data in (ours, theirs))
            word = int(np.argmax(one != other))
            place = f"word {word} of channel {channel}"
            if what in beats:
                column, word = divmod(word, beats[what] * config.beat_bytes // 4)
                place = f"element {word * config.channels + channel} of column {column}"
            raise RunError(f"the {what} must be equal bit for bit on {names[0]} and {names[1]}, "
                           f"but {place} is {one[word]:#010x} and {other[word]:#010x}")
