# SPDX-License-Identifier: Apache-2.0
"""Decoded value beats, read two at a time."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram, layouts
from ..spec.config import CardConfig


class EntryFifo(wiring.Component):
    """Queue of entries, of which the first two are visible and up to two leave in a cycle.

    Even and odd entries lie in memories of their own.  Weights and indices are written apart, each
    in order: the weights need not wait for their indices to be decoded.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    reserve : ``In(1)``
        An entry will be written; only while ``room``.
    room : ``Out(1)``
    weights_en, weights : ``In(1)``, ``In(8 * beat_bytes)``
    index_en, index : ``In(1)``, ``In(4 * beat_bytes)``
        Completes the entry, no earlier than its weights come.
    entries : ``Out(layouts.entry(config), as bits).array(2)``
        The next two, each where its memory shows it.
    swap : ``Out(1)``
        The first of them is ``entries[1]``, the second ``entries[0]``.
    some : ``Out(2)``
        Bit 0: at least one of them is there; bit 1: both are.
    take : ``In(2)``
        How many leave now, at most as many as there are.
    """

    #: Cycles from ``index_en`` until the entry is visible in an empty queue.
    LATENCY = 2

    def __init__(self, config: CardConfig):
        self.config = config
        width = config.beat_bytes
        super().__init__({
            "reserve": In(1), "room": Out(1),
            "weights_en": In(1), "weights": In(8 * width),
            "index_en": In(1), "index": In(4 * width),
            "entries": Out(layouts.entry(config).size).array(2), "swap": Out(1),
            "some": Out(2), "take": In(2)})

    def elaborate(self, platform):
        m = Module()
        depth, width = self.config.fifo_beats, self.config.beat_bytes

        free, count = Signal(range(depth + 1), init=depth), Signal(range(depth + 1))
        written = Signal()
        m.d.sync += [
            free.eq(free + self.take - self.reserve),
            # An entry written in one cycle is read in the next and there in the one after.
            written.eq(self.index_en), count.eq(count + written - self.take)]
        m.d.comb += self.room.eq(free != 0)

        # What all channels have decides what is taken, in the same cycle: it comes from registers
        # that follow `count` with little logic behind `take`.
        one, two = self.take            # never both
        for least, known in enumerate(self.some, 1):
            plus, same, less, lesser = (count >= least + gone if least + gone else Const(1)
                                        for gone in (-1, 0, 1, 2))
            m.d.sync += known.eq(Mux(
                two, Mux(written, less, lesser),
                Mux(one, Mux(written, same, less), Mux(written, plus, same))))

        # Next place to be read in each memory, and which of them holds the older entry.
        # What is taken is known late: the places behind are worked out without it.
        place = [Signal(range(depth // 2), name=f"place_{bank}") for bank in range(2)]
        behind = [Signal.like(place[bank], name=f"behind_{bank}", init=1) for bank in range(2)]
        after = [Signal.like(place[bank], name=f"after_{bank}") for bank in range(2)]
        for bank in range(2):
            mine = two | (one & (self.swap == bank))
            m.d.comb += after[bank].eq(Mux(mine, behind[bank], place[bank]))
            m.d.sync += place[bank].eq(after[bank])
            with m.If(mine):
                m.d.sync += behind[bank].eq(behind[bank] + 1)
        m.d.sync += self.swap.eq(self.swap ^ one)

        outputs = [[], []]
        for name, bits in (("weights", 8 * width), ("index", 4 * width)):
            enable, value = getattr(self, f"{name}_en"), getattr(self, name)
            tail = Signal(range(depth), name=f"{name}_tail")
            with m.If(enable):
                m.d.sync += tail.eq(tail + 1)
            for bank in range(2):
                m.submodules[f"{name}_{bank}"] = ram = Ram(bits, depth=depth // 2)
                m.d.comb += [
                    ram.write_en.eq(enable & (tail[0] == bank)), ram.write_addr.eq(tail[1:]),
                    ram.write_data.eq(value), ram.read_en.eq(1), ram.read_addr.eq(after[bank])]
                outputs[bank].append(ram.read_data)
        # Who takes them swaps them, in multiplexers that are there anyhow.
        m.d.comb += [shown.eq(Cat(*parts))
                     for shown, parts in zip(self.entries, outputs, strict=True)]
        return m
