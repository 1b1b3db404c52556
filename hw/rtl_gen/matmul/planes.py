# SPDX-License-Identifier: Apache-2.0
"""Quantised activations on chip, column by column, read a window a cycle."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram, layouts
from ..spec.config import CardConfig
from .select import Align, half_bits, half_columns, window_bits


class Planes(wiring.Component):
    """One memory of windows and one of exponents for each column, and the alignment by ratio.

    Both halves of the columns have an address of their own.  Reading has two stages, which the
    reader moves on: ``read_en`` fetches the windows, ``align_en`` aligns what was fetched.

    Parameters
    ----------
    config : CardConfig
        Its beats are at least as long as its words have elements.

    Members
    -------
    write : ``In(stream(layouts.plane_write(config))).array(2)``
        The first goes first.  Reads two cycles after a write was taken see it; a block that is
        read while it is written is lost.
    read_en : ``In(1)``
    block : ``In(16).array(2)``
        The first block that each half's entry reads.
    align_en : ``In(1)``
    ratio, cross : ``In(2)``, ``In(1)``
        Of what was fetched, as :class:`Align` takes them.
    candidates : ``Out(half_bits(config)).array(2)``
        Aligned, from the cycle after ``align_en`` to the next.
    exponents : ``Out(T signed bytes)``
        Of what was fetched, from the cycle after ``read_en`` to the next.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "write": In(stream.Signature(layouts.plane_write(config))).array(2),
            "read_en": In(1), "block": In(16).array(2),
            "align_en": In(1), "ratio": In(2), "cross": In(1),
            "candidates": Out(half_bits(config)).array(2),
            "exponents": Out(data.ArrayLayout(signed(8), config.tokens))})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        columns, words = half_columns(config), config.beat_bytes // config.vector_lanes
        word_bits = 8 * config.vector_lanes

        # Writes, one a cycle; a register between the arbiter and so many memories.
        write, valid = Signal(layouts.plane_write(config), reset_less=True), Signal()
        m.d.comb += [self.write[0].ready.eq(1), self.write[1].ready.eq(~self.write[0].valid)]
        m.d.sync += valid.eq(self.write[0].valid | self.write[1].valid)
        with m.If(self.write[0].valid):
            m.d.sync += write.eq(self.write[0].payload)
        with m.Else():
            m.d.sync += write.eq(self.write[1].payload)
        part = Cat(write.part[:(words - 1).bit_length()], write.block[:2])     # of the window

        block = [Signal(2, name=f"block_{half}", reset_less=True) for half in range(2)]
        with m.If(self.read_en):
            m.d.sync += [
                now.eq(address[:2]) for now, address in zip(block, self.block, strict=True)]
        for half in range(2):
            m.submodules[f"align_{half}"] = align = Align(config)
            windows = []
            for column in range(half * columns, (half + 1) * columns):
                m.submodules[f"windows_{column}"] = window = Ram(
                    window_bits(config), depth=config.plane_windows, parts=4 * words, apart=words)
                m.submodules[f"exponents_{column}"] = exponent = Ram(
                    signed(8), depth=config.plane_blocks, apart=1)
                windows.append(window.read_data)

                # Token t writes column t, or 2t and 2t + 1; with two beats in each half.
                place = column % columns
                here = Mux(
                    write.digits,
                    write.token == Mux(write.two_beat, place // 2, column // 2),
                    write.token == Mux(write.two_beat, place, column))
                value = Mux(write.digits & (column % 2 == 0), write.high.as_value(),
                            write.low.as_value())
                m.d.comb += [
                    window.write_en.eq(Mux(valid & here, 1 << part, 0)),
                    window.write_addr.eq(write.block[2:]),
                    window.write_data.eq(value.replicate(window_bits(config) // word_bits)),
                    window.read_en.eq(self.read_en), window.read_addr.eq(self.block[half][2:]),
                    exponent.write_en.eq(valid & here), exponent.write_addr.eq(write.block),
                    exponent.write_data.eq(write.exponent),
                    exponent.read_en.eq(self.read_en), exponent.read_addr.eq(self.block[half]),
                    self.exponents[column].eq(exponent.read_data)]
            candidates = Signal(half_bits(config), name=f"candidates_{half}", reset_less=True)
            m.d.comb += [
                align.windows.eq(Cat(windows)), align.block.eq(block[half]),
                align.ratio.eq(self.ratio), align.cross.eq(self.cross),
                self.candidates[half].eq(candidates)]
            with m.If(self.align_en):
                m.d.sync += candidates.eq(align.candidates)
        return m
