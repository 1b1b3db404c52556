# SPDX-License-Identifier: Apache-2.0
"""The area of one lane's selection: from position metadata to the digits that each weight meets."""

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl_gen.matmul.dsp48 import muxf7
from rtl_gen.matmul.select import PAIR, half_bits, half_columns, near_halves
from rtl_gen.memory.decode import Decoder
from rtl_gen.spec.config import U280
from tests.rtl.luts import resources

#: What decoder and multiplexers of one u280 lane may take together.
BUDGET = 6_000


class HalfSelection(wiring.Component):
    """The multiplexers of every slot for one half of the columns."""

    def __init__(self, config):
        self.config = config
        width = config.beat_bytes
        super().__init__({
            "candidates": In(half_bits(config)), "choice": In(3 * width),
            "digits": Out(8 * half_columns(config) * width)})

    def elaborate(self, platform):
        m = Module()
        candidates = Signal.like(self.candidates)
        choice = Signal.like(self.choice)
        m.d.sync += [candidates.eq(self.candidates), choice.eq(self.choice)]
        for slot in range(self.config.beat_bytes):
            pair = candidates.word_select(
                slot // PAIR, len(candidates) // self.config.beat_bytes * PAIR)
            which = choice.word_select(slot, 3)
            chosen = muxf7(m, which[2], *near_halves(pair, slot, which))
            m.d.sync += self.digits.word_select(slot, len(chosen)).eq(chosen)
        return m


@pytest.mark.slow
def test_one_lane_selects_within_its_budget(build_root, record_property):
    """All patterns of u280, metadata to digits."""
    decode = resources(Decoder(U280), "decoder", build_root / "luts")
    half = resources(HalfSelection(U280), "selection", build_root / "luts")
    total = decode["LUT"] + 2 * half["LUT"]
    for name, value in (("decode", decode), ("half", half), ("total", total)):
        record_property(name, value)
    print(f"decode {decode}, half of the multiplexers {half}, together {total} LUT")
    assert decode["LUT"] < 1_850
    assert total < BUDGET
