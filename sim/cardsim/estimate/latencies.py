# SPDX-License-Identifier: Apache-2.0
"""Cycles that the pages of units publish (docs/units), by page."""

import dataclasses
from typing import ClassVar

from rtl_gen.spec import isa
from rtl_gen.spec.config import CardConfig


def _log2(value: int) -> int:
    return value.bit_length() - 1


@dataclasses.dataclass(frozen=True)
class Latencies:
    """Of one configuration.

    Parameters
    ----------
    config : CardConfig
    """

    config: CardConfig

    # ---- control ----

    #: Judges; cycles from word to word fetched, from an instruction that leaves a judge to the next
    #: one there, and from instruction to instruction.
    judges = 4
    fetch = 2
    refetch = 3
    issue = 3
    #: Verdicts, by name; those not named take the last.
    verdicts: ClassVar[dict[str, int]] = {
        "LOAD": 12, "STORE": 12, "MATMUL": 12, "SAMPLE": 12, "CACHE": 10,
        **dict.fromkeys(isa.SENDS + isa.RECEIVES, 12)}
    verdict = 4
    control = 4
    given = 6
    #: Dispatch to the head of a queue; from there, or from the last report, to the unit's job.
    queue = 3
    grant = 1
    report = 1
    #: Instructions that wait in a queue; that may be unfinished of each reporter; runs that wait.
    depth = 64
    flight = 128
    streams = 64
    #: From a command's start to its first instruction, and for given tokens, besides what is read;
    #: from the last report and write to the end of counting.
    begin = 6
    tokens = 4
    end = 4

    def words(self, count: int) -> int:
        """What control's port needs for so many words, besides memory's latency: a cycle a word,
        and one a beat."""
        return count + -(-4 * count // self.config.beat_bytes)

    # ---- channel and memory unit ----

    #: Dispatch to a channel's planner, and from there to the first address; run to run.
    to_planner = 3
    address = 6
    interval = 4
    #: A LOAD without rows; from the last word of a LOAD to its report; a STORE, besides words and
    #: beats.
    load = 2
    store = 4
    #: From a STORE's beat to the writer.
    write = 1

    # ---- engine and epilogue ----

    #: From the job to the first step; from a step to the report of sums kept in the bank.
    engine = 4
    bank = 2
    #: Steps that are under way before they fire.
    ahead = 3
    #: Instructions that may wait for the epilogue; from the engine's job to the epilogue's start;
    #: from one instruction to the next, at least.
    epilogue_jobs = 8
    epilogue_job = 7
    epilogue_next = 4
    #: From a sum to its word, and with gelu; gelu's detour.
    epilogue = 33
    gelu = 15
    #: From a sum to its score at softmax.
    score = 11
    #: Instructions on the way through softmax; sums that form at once in it, and cycles of an
    #: addition.
    softmax_jobs = 8
    sums = 3

    @property
    def row(self) -> int:
        """From a step to the row that it ends."""
        return 10 + min(8, self.config.beat_bytes // 4)

    @property
    def softmax(self) -> int:
        """From the last word of a row of scores to its first numerators."""
        return 24 + _log2(self.config.vector_lanes)

    @property
    def scaled(self) -> int:
        """From numerators to the quantiser's input."""
        return 7

    @property
    def quantiser(self) -> int:
        """From the last word of a slice to its first result."""
        return 9 + -(-self.config.vector_lanes.bit_length() // 2)

    @property
    def plane_parts(self) -> int:
        """Words of a block."""
        return self.config.beat_bytes // self.config.vector_lanes

    @property
    def sum(self) -> int:
        """From the first numerators to 1/sum, besides three cycles a further word; its turn to be
        added comes a cycle later in the mean."""
        return 3 * _log2(self.config.vector_lanes) + 34

    # ---- vector unit ----

    #: Sums that form at once, and cycles of an addition.
    slots = 6
    #: From a word asked for to the quantiser; from the last result to the report.
    product = 6
    reported = 2
    #: An instruction that runs alone, element by element, besides its words; SCALAR.
    vector = 32
    scalar = 9

    @property
    def again(self) -> int:
        """From a head's last word to its second pass."""
        return 13 + -(-self.config.vector_lanes.bit_length() // 2)

    @property
    def statistic(self) -> int:
        """From a first word to the sum's product, besides six cycles a word."""
        return 29 + 5 * _log2(self.config.vector_lanes)

    @property
    def kept_sum(self) -> int:
        """From a word to its sum's place, besides one cycle."""
        return 15 + 5 * _log2(self.config.vector_lanes)

    @property
    def kept(self) -> int:
        """Words of slices that wait for their second pass."""
        longest = 16 * self.config.beat_bytes // self.config.vector_lanes
        return 1 << (longest + 15).bit_length()

    #: From the mean of the squares to the end of a NORM.
    norm = 23

    # ---- exchange and links ----

    #: From the job of a SEND to its first beat; from a frame's last beat to the frame's first on
    #: the link; from a trailer that has come to the frame's first beat, besides that; a RECEIVE,
    #: besides its beats.
    send = 3
    frame_out = 2
    frame_in = 4
    receive = 3
    #: Payload beats of the longest frame.
    frame = 8

    @property
    def word_beats(self) -> int:
        """Beats of a scratchpad word."""
        return max(1, 4 * self.config.vector_lanes // self.config.beat_bytes)

    # ---- sampler ----

    #: Cycles between words of one column, at least, whose sum runs.
    sample_interval = 4
    #: The list of candidates: for a word, and for each of its lanes that enters.
    sample_list = 2
    sample_enter = 2
    #: Before each record.
    sample_show = 2
    #: From the job of a SAMPLE of one word to its report, if it does not end the row.
    sample_next = 6

    @property
    def sample_width(self) -> int:
        """Logits that the exp units take at a time."""
        return min(self.config.vector_lanes, 4 * self.config.tokens)

    @property
    def sample_turns(self) -> int:
        """From word to word of different columns: parts, and the change of the maximum."""
        return self.config.vector_lanes // self.sample_width + 1

    @property
    def sample(self) -> int:
        """From a SAMPLE at hand to the end of its sums, if it has one word."""
        return 34 + 6 * _log2(self.config.vector_lanes) + self.sample_turns

    def records(self, candidates: int, columns: int) -> int:
        """Result records: all but the last go on to the end of their beat."""
        beat_words = self.config.beat_bytes // 4
        words = 8 + 2 * candidates
        padded = -(-words // beat_words) * beat_words
        return (columns - 1) * padded + words + columns * self.sample_show
