# SPDX-License-Identifier: Apache-2.0
"""Which finished row the lanes show, and which token of it."""

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram
from ..spec.config import CardConfig
from .bank import ROWS
from .fresh import TURN_BITS

#: What is kept beside a finished row.
INFO = data.StructLayout({"columns": 3, "last_row": 1, "turn": TURN_BITS})


class RowReader(wiring.Component):
    """Shows finished rows in order, one token a cycle.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    begun, info : ``In(1)``, ``In(INFO)``
        A row will finish.
    finished : ``In(1)``
        The oldest row that had not finished can be read from the next cycle on.
    hold : ``In(1)``
        Do not go on to another row.
    read_en, read_slot : ``Out(1)``, ``Out(range(ROWS))``
        To the lanes: they show that row from the next cycle on.
    valid, ready, token, last_token, last_row :
        The stream to the epilogue, but for the sums.
    turn : ``Out(TURN_BITS)``
        By how many T lanes the row is turned.
    freed : ``Out(1)``
        A row is through.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "begun": In(1), "info": In(INFO), "finished": In(1), "hold": In(1),
            "read_en": Out(1), "read_slot": Out(range(ROWS)),
            "valid": Out(1), "ready": In(1), "token": Out(range(config.tokens)),
            "last_token": Out(1), "last_row": Out(1), "turn": Out(TURN_BITS), "freed": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.info = infos = Ram(INFO, depth=ROWS, style="distributed")
        begun, finished = Signal(range(ROWS)), Signal(range(ROWS + 1))
        m.d.comb += [
            infos.write_en.eq(self.begun), infos.write_addr.eq(begun),
            infos.write_data.eq(self.info), infos.read_en.eq(self.read_en),
            infos.read_addr.eq(self.read_slot)]
        with m.If(self.begun):
            m.d.sync += begun.eq(begun + 1)

        info = infos.read_data
        m.d.comb += [
            self.last_token.eq(self.token == info.columns - 1),
            self.last_row.eq(info.last_row), self.turn.eq(info.turn),
            self.freed.eq(self.valid & self.ready & self.last_token),
            self.read_en.eq((finished != 0) & ~self.hold & (~self.valid | self.freed))]
        m.d.sync += finished.eq(finished + self.finished - self.read_en)
        with m.If(self.valid & self.ready):
            m.d.sync += self.token.eq(self.token + 1)
        with m.If(self.freed):
            m.d.sync += [self.valid.eq(0), self.token.eq(0)]
        with m.If(self.read_en):
            m.d.sync += [self.valid.eq(1), self.read_slot.eq(self.read_slot + 1)]
        return m
