# SPDX-License-Identifier: Apache-2.0
"""The scratchpad: words of V FP32 values, read by five units at once, in a ring by six."""

from amaranth import Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram, layouts
from ..spec.config import CardConfig

#: Who reads at which port; the last is for a card in a ring.
EPILOGUE, OPERAND_A, OPERAND_B, STORE, SAMPLER, SEND = range(6)
#: Who writes at which port; the last is for a card in a ring.
FROM_EPILOGUE, FROM_LOAD, FROM_VECTOR, FROM_RECEIVE = range(4)
#: The most urgent first.  A RECEIVE goes before the vector unit, because the whole ring may wait
#: for what it passes on.  Links carry 8 beats in 9 cycles: where a word is two beats or more, both
#: sides leave the vector unit at least a ninth of them, else what the messages under way leave.
#: A LOAD goes before it, because it keeps the channels' constants, and so weights, from others.
_URGENCY = (FROM_EPILOGUE, FROM_LOAD, FROM_RECEIVE, FROM_VECTOR)

#: Words of a block of UltraRAM (UG573): memories as deep fill it.
_URAM_WORDS = 4096


def read_port(config: CardConfig) -> wiring.Signature:
    """A read port, seen from the reader; data appear a cycle later and stay until the next read."""
    return wiring.Signature({
        "en": Out(1), "addr": Out(16), "data": In(layouts.word(config))})


def write_layout(config: CardConfig) -> data.StructLayout:
    """One word to be written."""
    return data.StructLayout({"addr": 16, "data": layouts.word(config)})


class Scratchpad(wiring.Component):
    """Words of V FP32 values: five reads and one write a cycle; of a card in a ring, six reads.

    Every read port has a copy of the content; a write goes to all of them.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    read : array of ports {``en`` In(1), ``addr`` In(16), ``data`` Out(word)}
        0 epilogue, 1 and 2 operands of the vector unit, 3 STORE, 4 sampler, in a ring 5 SEND.  Data
        appear a cycle after ``en`` and stay until the next read of the port.
    write : array of ``In(stream.Signature({addr, data}))``
        0 epilogue, 1 LOAD, 2 vector unit, in a ring 3 RECEIVE; the most urgent that is valid is
        taken: epilogue, LOAD, RECEIVE, vector unit.  A read sees it from the next cycle on.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "read": In(read_port(config)).array(6 if config.cards > 1 else 5),
            "write": In(stream.Signature(write_layout(config))).array(
                4 if config.cards > 1 else 3)})

    def elaborate(self, platform):
        m = Module()
        config = self.config

        word = Signal(write_layout(config))
        written = Signal()
        ports = [self.write[k] for k in _URGENCY if k < len(self.write)]
        for port in reversed(ports):    # of several, the last assignment counts
            with m.If(port.valid):
                m.d.comb += word.eq(port.payload)
        taken = Const(0, 1)
        for port in ports:
            m.d.comb += port.ready.eq(~taken)
            taken = taken | port.valid
        m.d.comb += written.eq(taken)

        # As block memory five copies of u280 are 570 RAMB36, of UltraRAM 75 blocks.
        style = "ultra" if config.scratch_words >= _URAM_WORDS else ""
        for k, port in enumerate(self.read):
            m.submodules[f"copy_{k}"] = copy = Ram(
                layouts.word(config), depth=config.scratch_words, style=style)
            m.d.comb += [
                copy.write_en.eq(written),
                copy.write_addr.eq(word.addr), copy.write_data.eq(word.data),
                copy.read_en.eq(port.en), copy.read_addr.eq(port.addr),
                port.data.eq(copy.read_data)]
        return m
