# SPDX-License-Identifier: Apache-2.0
"""The geometry of a card, and its digest."""

import dataclasses
import hashlib
import json
import re

from .link import LEAST_BEAT

#: Elements of one attention head; every supported model has heads of this size.
HEAD = 64
#: Bits of one accumulator.
ACC_BITS = 80
#: Longest slice that is quantised with one exponent, in blocks.
SLICE_BLOCKS = 16

#: Parameters that came when there were cards already: the digest of those did not change.
_LATER = ("judges", "queue_depth")


def _power_of_two(name: str, value: int, low: int, high: int) -> None:
    if value < low or value > high or value & value - 1:
        raise ValueError(f"{name} must be a power of two in {low}..{high}, not {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardConfig:
    """One card: what the generator builds and what the compiler compiles for.

    A *block* is ``beat_bytes`` activations, a *window* four blocks: what one cycle of the sparsest
    pattern reads.  A *word* of the scratchpad is ``vector_lanes`` FP32 values.
    """

    name: str
    #: HBM channels = matmul lanes, one output row each (C).
    channels: int
    #: Bytes of one memory beat = INT8 weights a lane takes each cycle (B).
    beat_bytes: int
    #: Token columns that share each weight (T).
    tokens: int = 4
    #: N:M group sizes built in (M).
    group_sizes: tuple[int, ...] = (4, 8, 16)
    #: FP32 lanes (V).  One lane finishes the rows of one channel, so this equals ``channels``.
    vector_lanes: int
    #: Size of the ring the card is built for.
    cards: int = 1
    #: Assumed clock.
    clock_mhz: int
    #: Decoded weight beats a channel reads ahead.
    fifo_beats: int
    #: Beats of row constants (and loads) a channel reads ahead; bounds the rows of one instruction.
    aux_beats: int
    #: Rows of each lane's accumulator bank.
    acc_rows: int = 256
    #: Words of the scratchpad.
    scratch_words: int
    #: Windows of quantised activations, per column.
    plane_windows: int
    #: Scales of K and V (one entry = both, one token, one head) per lane.
    kv_scales: int
    #: Heads whose fresh K and V fit on chip.
    heads: int
    #: Longest context: what one softmax row buffers.
    context: int
    #: Instructions of the program memory.
    program_words: int = 4096
    #: Candidates kept by the sampler.
    top_k: int = 64
    #: Bytes of one HBM channel.
    channel_bytes: int = 1 << 28
    #: Instructions that dispatch judges at the same time: a verdict takes up to 12 cycles, and it
    #: lets an instruction go every three or four.
    judges: int = 4
    #: Instructions that wait in each queue.
    queue_depth: int = 64

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.name, re.ASCII):   # names of modules and files have it
            raise ValueError(f"name must consist of letters, digits and _, not {self.name!r}")
        _power_of_two("channels", self.channels, 1, 32)
        _power_of_two("beat_bytes", self.beat_bytes, 8, 64)
        if self.tokens not in (2, 4):
            raise ValueError(f"tokens must be 2 or 4, not {self.tokens}")
        if self.vector_lanes != self.channels:
            raise ValueError(
                f"vector_lanes must equal channels ({self.channels}), not {self.vector_lanes}")
        if self.vector_lanes > self.beat_bytes:
            raise ValueError(f"vector_lanes must be at most beat_bytes ({self.beat_bytes}), "
                             f"not {self.vector_lanes}")
        if self.cards not in (1, 2, 4, 8):
            raise ValueError(f"cards must be 1, 2, 4 or 8, not {self.cards}")
        if self.cards > 1 and self.beat_bytes < LEAST_BEAT:
            raise ValueError(f"of a card in a ring beat_bytes must be at least {LEAST_BEAT}, "
                             f"a frame's trailer, not {self.beat_bytes}")
        if self.cards > 1 and self.word_bytes < self.beat_bytes:
            raise ValueError(f"of a card in a ring vector_lanes must be at least beat_bytes / 4 "
                             f"({self.beat_bytes // 4}), not {self.vector_lanes}")
        if not set(self.group_sizes) <= {4, 8, 16} or not self.group_sizes:
            raise ValueError(f"group_sizes must be a choice of 4, 8 and 16, not {self.group_sizes}")
        for name in ("fifo_beats", "aux_beats", "acc_rows", "scratch_words", "plane_windows",
                     "kv_scales", "context", "program_words", "channel_bytes"):
            _power_of_two(name, getattr(self, name), 16, 1 << 32)
        _power_of_two("judges", self.judges, 1, 4)
        _power_of_two("queue_depth", self.queue_depth, 4, 64)
        if not 1 <= self.heads <= 64:
            raise ValueError(f"heads must be in 1..64, not {self.heads}")
        if self.top_k not in (8, 16, 32, 64):
            raise ValueError(f"top_k must be 8, 16, 32 or 64, not {self.top_k}")

    @property
    def word_bytes(self) -> int:
        """Bytes of one scratchpad word."""
        return 4 * self.vector_lanes

    @property
    def plane_blocks(self) -> int:
        """Blocks of ``beat_bytes`` activations per column."""
        return 4 * self.plane_windows

    @property
    def channel_beats(self) -> int:
        """Beats of one HBM channel."""
        return self.channel_bytes // self.beat_bytes

    @property
    def head_words(self) -> int:
        """Scratchpad words (and rows per lane) of one head."""
        return HEAD // self.vector_lanes

    @property
    def head_beats(self) -> int:
        """Beats of one head's K row, INT8."""
        return max(1, HEAD // self.beat_bytes)

    @property
    def norm_words(self) -> int:
        """Words of the longest vector that is normed: 1,024 elements or more."""
        return min(512, max(256, 2048 // self.vector_lanes))

    def k_lane(self, position: int, head: int) -> int:
        """The lane of K of a position; other heads have theirs in other lanes."""
        return (position + self.tokens * head) % self.channels

    @property
    def aux_words(self) -> int:
        """32-bit words a channel's constant queue holds."""
        return self.aux_beats * self.beat_bytes // 4

    @property
    def digest(self) -> int:
        """32 bits that change with any parameter; the card's identity register holds them."""
        values = dataclasses.asdict(self)
        for name in _LATER:
            if values[name] == getattr(CardConfig, name):
                del values[name]
        text = json.dumps(values, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


TINY = CardConfig(
    name="tiny", channels=4, beat_bytes=16, vector_lanes=4, clock_mhz=100, fifo_beats=64,
    aux_beats=512, scratch_words=8192, plane_windows=512, kv_scales=16384, heads=32, context=2048)
#: Between the two: wide enough to show what width changes, small enough to simulate at ease.
SMALL = CardConfig(
    name="small", channels=8, beat_bytes=32, vector_lanes=8, clock_mhz=150, fifo_beats=128,
    aux_beats=256, scratch_words=4096, plane_windows=256, kv_scales=8192, heads=32, context=2048)
U280 = CardConfig(
    name="u280", channels=32, beat_bytes=64, vector_lanes=32, clock_mhz=200, fifo_beats=512,
    aux_beats=64, scratch_words=4096, plane_windows=128, kv_scales=2048, heads=32, context=2048)
#: An ECP5-85F with one SDRAM of 32 MB: what fits its LUTs and multipliers.
ULX3S = CardConfig(
    name="ulx3s", channels=1, beat_bytes=8, tokens=2, group_sizes=(4,), vector_lanes=1,
    clock_mhz=25, fifo_beats=16, aux_beats=128, acc_rows=128, scratch_words=4096, plane_windows=128,
    kv_scales=1024, heads=4, context=256, program_words=1024, top_k=8, channel_bytes=1 << 25,
    judges=1, queue_depth=16)

CONFIGS = {config.name: config for config in (TINY, SMALL, U280, ULX3S)}


def find(name: str) -> CardConfig:
    """The named configuration, or :class:`ValueError` with the names there are."""
    try:
        return CONFIGS[name]
    except KeyError:
        raise ValueError(
            f"configuration must be one of {', '.join(CONFIGS)}, not {name!r}") from None


def known(config: CardConfig) -> bool:
    """Whether it is one of ``CONFIGS``, or such a card in a ring: a host takes no other."""
    return CONFIGS.get(config.name) == dataclasses.replace(config, cards=1)
