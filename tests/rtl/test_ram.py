# SPDX-License-Identifier: Apache-2.0
"""The memory, as Verilator has it."""

import random

import pytest
from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl_gen.common import Ram
from tests.rtl.verilated import Model

PARTS, DEPTH, PIECE = 4, 8, 4


class Commands(wiring.Component):
    """Writes what a command says, and reads in the same cycle."""

    def __init__(self, apart):
        self.ram = Ram(PARTS * PIECE, depth=DEPTH, parts=PARTS, apart=apart)
        super().__init__({
            "command": In(stream.Signature(data.StructLayout({
                "write_en": PARTS, "write_addr": 3, "write_data": PARTS * PIECE, "read_addr": 3}))),
            "word": Out(stream.Signature(PARTS * PIECE))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = self.ram
        given, take = self.command.payload, Signal()
        m.d.comb += [
            self.command.ready.eq(~self.word.valid | self.word.ready),
            take.eq(self.command.valid & self.command.ready),
            ram.write_en.eq(given.write_en & take.replicate(PARTS)),
            ram.write_addr.eq(given.write_addr), ram.write_data.eq(given.write_data),
            ram.read_en.eq(take), ram.read_addr.eq(given.read_addr),
            self.word.payload.eq(ram.read_data)]
        with m.If(take):
            m.d.sync += self.word.valid.eq(1)
        with m.Elif(self.word.ready):
            m.d.sync += self.word.valid.eq(0)
        return m


def expected(commands, apart):
    """Words that are read; old ones, or complements where reading and writing meet."""
    words, found = [[0] * PARTS for _ in range(DEPTH)], []
    for write_en, write_addr, write_data, read_addr in commands:
        seen = list(words[read_addr])
        new = [write_data >> PIECE * k & 15 for k in range(PARTS)]
        for k in range(PARTS):
            if apart and read_addr == write_addr \
                    and write_en >> k // apart * apart & (1 << apart) - 1:
                seen[k] ^= 15
        for k in range(PARTS):
            if write_en >> k & 1:
                words[write_addr][k] = new[k]
        found.append(sum(piece << PIECE * k for k, piece in enumerate(seen)))
    return found


@pytest.mark.parametrize("apart", [None, 1, 2, 4])
def test_reading_what_is_written(build_root, apart):
    rng = random.Random(f"ram {apart}")
    clear = [(15, k, 0, (k + 1) % DEPTH) for k in range(DEPTH)]
    commands = clear + [
        (rng.choice([0, 15, rng.randrange(16)]), rng.randrange(DEPTH), rng.randrange(1 << 16),
         rng.randrange(DEPTH)) for _ in range(2000)]
    given = [en | at << PARTS | word << PARTS + 3 | read << PARTS + 3 + PARTS * PIECE
             for en, at, word, read in commands]
    model = Model(Commands(apart), f"ram_{apart}", build_root)
    run = model.run({"command": given}, {"word": len(given)}, stall=0.2, seed=f"ram {apart}",
                    cycles=20_000)
    skip = DEPTH        # words that nobody has written yet
    assert run.outputs["word"][skip:] == expected(commands, apart)[skip:]


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_bad_parameters():
    for how, sentence in (
            ({"depth": 1}, "depth must be at least 2, not 1"),
            ({"depth": 4, "parts": 3}, "parts must divide the 16 bits of a word, not 3"),
            ({"depth": 4, "parts": 4, "apart": 3}, "apart must divide the 4 parts, not 3"),
            ({"depth": 4, "apart": 0}, "apart must divide the 1 parts, not 0")):
        with pytest.raises(ValueError, match=f"^{sentence}$"):
            Ram(16, **how)
