# SPDX-License-Identifier: Apache-2.0
"""Counters of the status record."""

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..spec.config import CardConfig
from ..spec.registers import STATUS

#: The 64-bit counters, in the order of the status record.
NAMES = tuple(name.removesuffix("_low") for name in STATUS if name.endswith("_low"))


def events(config: CardConfig) -> data.StructLayout:
    """What moved in one cycle, and why the engine did not."""
    beats = range(config.channels + 1)
    return data.StructLayout({
        "read_beats": beats, "write_beats": beats,      # of all channels
        "entries": 2,           # taken by the engine from every channel; 3: at work, none taken
        "wait_weights": 1,      # a product runs, a channel has no entry
        "wait_rows": 1,         # a product runs, its finished rows are not taken
    })


class Performance(wiring.Component):
    """Counts what a command does.

    A cycle without an entry for the engine has at most one cause: a channel without weights, else
    rows that are not taken, else a product that waits for its dependency counters, else no product
    at all.  Beside that it is counted how often such a cycle is one in which a message is waited
    for, and how often memory does nothing then either.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    clear, enable : ``In(1)``
    events : ``In(events(config))``
    held, empty : ``In(1)``
        The next product waits for counters; there is none.
    waits_link : ``In(1)``
        A message is to be received and its next beat has not come; of cards in a ring.
    retired : ``In(4)``
        Instructions that finished in this cycle.
    retract : ``In(1)``
        One of the instructions that finished so far does not count.
    counts : ``Out(ArrayLayout(64, len(NAMES)))``
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "clear": In(1), "enable": In(1), "events": In(events(config)), "held": In(1),
            "empty": In(1), "waits_link": In(1), "retired": In(4), "retract": In(1),
            "counts": Out(data.ArrayLayout(unsigned(64), len(NAMES)))})

    def elaborate(self, platform):
        m = Module()
        now = Signal(events(self.config))
        held, empty, retired = Signal(), Signal(), Signal(4)
        m.d.sync += [now.eq(self.events), held.eq(self.held), empty.eq(self.empty),
                     retired.eq(self.retired)]
        idle = (now.entries == 0) & ~now.wait_weights
        steps = {
            "cycles": 1, "read_beats": now.read_beats, "write_beats": now.write_beats,
            "engine_beats": Mux(now.entries == 3, 0, now.entries),
            "engine_cycles": now.entries != 0,
            "stall_weights": now.wait_weights & (now.entries == 0),
            "stall_epilogue": idle & now.wait_rows,
            "stall_dependency": idle & ~now.wait_rows & held,
            "stall_idle": idle & ~now.wait_rows & empty,
            "instructions": (retired - self.retract).as_signed()}
        if self.config.cards > 1:
            waits_link = Signal()
            m.d.sync += waits_link.eq(self.waits_link)
            link = idle & ~now.wait_rows & (held | empty) & waits_link
            steps |= {"stall_link": link, "idle_link": link & (now.read_beats == 0)}
        for name, count in zip(NAMES, self.counts, strict=True):
            if name not in steps:       # nothing to count
                continue
            with m.If(self.clear):
                m.d.sync += count.eq(0)
            with m.Elif(self.enable):
                m.d.sync += count.eq(count + steps[name])
        return m
