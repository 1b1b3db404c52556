# SPDX-License-Identifier: Apache-2.0
"""ULX3S: the pins of a board with an ECP5-85F, an SDRAM of 32 MB and a USB UART."""

from amaranth import Cat, Elaboratable, Module
from amaranth.lib import io

from ..spec.config import ULX3S
from .board import Board
from .sdram import Chip

#: The board's oscillator, and what its USB UART (FT231X) does at most.
CLOCK_HZ, BAUD = 25e6, 3e6

#: Names of the SDRAM's pins on ``amaranth_boards``'s resource; there they are all active high.
_SDRAM = {"cke": "clk_en", "cs_n": "cs", "ras_n": "ras", "cas_n": "cas", "we_n": "we",
          "ba": "ba", "a": "a", "dqm": "dqm"}


def board(**parameters: float) -> Board:
    """What is built for the ULX3S; ``parameters`` change what only simulations change."""
    return Board(ULX3S, chip=Chip(), **{"clock_hz": CLOCK_HZ, "baud": BAUD} | parameters)


class Ulx3s(Elaboratable):
    """The top for a platform of ``amaranth_boards``, which knows the pins' places.

    Eight lights: the lowest is on while a request comes or an answer goes.
    """

    def elaborate(self, platform):
        m = Module()
        m.submodules.board = inner = board()
        sdram, uart = (platform.request(name, 0, dir=dict.fromkeys(names, "-")) for name, names in (
            ("sdram", (*_SDRAM.values(), "clk", "dq")), ("uart", ("rx", "tx", "rts", "dtr"))))

        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [inner.rx.eq(rx.i), tx.o.eq(inner.tx)]

        for name, theirs in _SDRAM.items():
            m.submodules[f"sdram_{name}"] = pin = io.Buffer("o", getattr(sdram, theirs))
            ours = getattr(inner.sdram, name)
            m.d.comb += pin.o.eq(~ours if name.endswith("_n") else ours)
        m.submodules.sdram_dq = dq = io.Buffer("io", sdram.dq)
        m.d.comb += [dq.o.eq(inner.sdram.dq_o), dq.oe.eq(inner.sdram.dq_oe),
                     inner.sdram.dq_i.eq(dq.i)]
        # The chip's clock rises in the middle of the cycle, when all pins are settled.
        m.submodules.sdram_clk = clock = io.DDRBuffer("o", sdram.clk)
        m.d.comb += [clock.o[0].eq(0), clock.o[1].eq(1)]

        light = platform.request("led", 0, dir="-")
        m.submodules.light = pin = io.Buffer("o", light)
        m.d.comb += pin.o.eq(Cat(~inner.rx | ~inner.tx))
        return m
