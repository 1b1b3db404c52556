# SPDX-License-Identifier: Apache-2.0
"""Listings of programs, and windows of texts."""

import math

import pytest

from heddle.errors import UserError
from heddle.evaluate import Score, windows
from heddle.listing import line, listing, words
from heddle.program import Program
from rtl_gen.spec import isa


def test_lines():
    assert line(isa.encode("HALT")) == "HALT"
    assert line(isa.encode("ADDI", rd=10, rs=2, imm=-3)) == "ADDI     rd=R10 rs=LEN imm=-3"
    assert line(isa.encode("MATMUL", pattern=1, address=256, address_reg=8, wait=5, signal=2)) == (
        "MATMUL   address=0x100 address_reg=R8 pattern=2:4 wait=0,2 signal=1")
    assert line(isa.encode("VECTOR", fn=3, words=2)) == "VECTOR   fn=MUL words=2"
    assert line(0xFF) == f"?        {0xFF:#066x}  opcode 0xff is no instruction"


def test_a_program_and_its_image_list_alike():
    program = Program(instructions=(("NOP", {"signal": 1}), ("HALT", {"wait": 1})),
                      notes={1: "the end"})
    assert list(listing(program)) == ["    0  NOP      signal=0", "# the end",
                                      "    1  HALT     wait=0"]
    assert words(program.image()) == program.words()
    for bad in (b"", b"123"):
        with pytest.raises(UserError, match="must have a multiple of 32 bytes, and "
                                             f"some, not {len(bad)}"):
            words(bad)


def test_windows_are_whole_and_consecutive():
    assert windows(range(11), 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert windows(range(11), 4, limit=1) == [[0, 1, 2, 3]]
    assert windows(range(8), 4, limit=9) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    for tokens, size, limit, sentence in (
            (range(3), 4, None, "the text must have at least 4 tokens, one window, not 3"),
            (range(9), 4, 0, "limit must be at least 1 window, not 0"),
            (range(9), 1, None, "the context must be at least 2 to score a text, not 1")):
        with pytest.raises(UserError) as caught:
            windows(tokens, size, limit)
        assert str(caught.value) == sentence


def test_perplexity():
    score = Score(windows=1, log_probabilities=(math.log(0.5), math.log(0.125)),
                  best_token_ids=(1, 2))
    assert score.tokens == 2
    assert score.perplexity == pytest.approx(4)
