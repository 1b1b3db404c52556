# SPDX-License-Identifier: Apache-2.0
"""Accumulators of one lane: running sums, the bank of partial sums, and rows on their way out."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram, wide_style
from ..spec.config import ACC_BITS, CardConfig

#: Finished rows that wait for the epilogue: as many as the engine has in flight, and some.
ROWS = 32


class Base(enum.Enum, shape=2):
    """What a step adds to."""

    ZERO = 0
    LAST = 1        #: the sums of the step before it
    OLDER = 2       #: the sums of the step before that one
    BANK = 3


def control(config: CardConfig) -> data.StructLayout:
    """What the bank does with one step."""
    return data.StructLayout({
        "base": Base, "valid": 1, "keep": 1, "out": 1, "row": range(config.acc_rows),
        "slot": range(ROWS)})


class Bank(wiring.Component):
    """Sums of one lane, T tokens of 80 bits a row.

    A step reads the bank, is added a cycle later and written a cycle after that: a row written by
    one of the two steps before it is not in the bank yet, so those sums are at hand too.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    control : ``In(control(config))``
        Of a step whose terms come in the next cycle.
    terms : ``In(T × 80 bits)``
        What the step adds, a cycle after its control.
    read_en, read_slot : ``In(1)``, ``In(range(ROWS))``
        The finished row to show.
    token : ``In(range(T))``
        The token to show of it.
    result : ``Out(80)``
        The cycle after ``read_en``, and until the next; follows ``token`` at once.
    """

    #: Cycles from the terms of a step that ends a row until ``read_en`` may ask for it.
    LATENCY = 2

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "control": In(control(config)), "terms": In(ACC_BITS * config.tokens),
            "read_en": In(1), "read_slot": In(range(ROWS)), "token": In(range(config.tokens)),
            "result": Out(ACC_BITS)})

    def elaborate(self, platform):
        m = Module()
        tokens, width = self.config.tokens, ACC_BITS * self.config.tokens
        m.submodules.bank = bank = Ram(width, depth=self.config.acc_rows)
        m.submodules.rows = rows = Ram(
            width, depth=ROWS, style=wide_style(8 * self.config.beat_bytes) or "distributed")

        add, write = (Signal(control(self.config), name=name) for name in ("add", "write"))
        sums, older = Signal(width, reset_less=True), Signal(width, reset_less=True)
        m.d.comb += [bank.read_en.eq(self.control.valid), bank.read_addr.eq(self.control.row)]
        m.d.sync += [add.eq(self.control), write.eq(add)]
        with m.If(add.valid):
            m.d.sync += older.eq(sums)
            for token in range(tokens):
                old = Signal(signed(ACC_BITS), name=f"old_{token}")
                part = lambda value: value.word_select(token, ACC_BITS)     # noqa: B023, E731
                with m.Switch(add.base):
                    with m.Case(Base.LAST):
                        m.d.comb += old.eq(part(sums))
                    with m.Case(Base.OLDER):
                        m.d.comb += old.eq(part(older))
                    with m.Case(Base.BANK):
                        m.d.comb += old.eq(part(bank.read_data))
                m.d.sync += part(sums).eq(old + part(self.terms).as_signed())
        m.d.comb += [
            bank.write_en.eq(write.valid & write.keep), bank.write_addr.eq(write.row),
            bank.write_data.eq(sums),
            rows.write_en.eq(write.valid & write.out), rows.write_addr.eq(write.slot),
            rows.write_data.eq(sums),
            rows.read_en.eq(self.read_en), rows.read_addr.eq(self.read_slot)]
        shown = rows.read_data.word_select(0, ACC_BITS)
        for token in range(1, tokens):
            shown = Mux(self.token == token, rows.read_data.word_select(token, ACC_BITS), shown)
        m.d.comb += self.result.eq(shown)
        return m
