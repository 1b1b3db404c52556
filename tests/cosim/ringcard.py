# SPDX-License-Identifier: Apache-2.0
"""Two cards in a ring behind the pins of one that has as many channels as both.

The host's writes go to both; it reads the first.  Card k has the channels from 4 · k on.  A
register of the ways between them, ``FAULTS``, lies where the base of a channel that neither has
would be.
"""

import dataclasses

from amaranth import Cat, Const, Instance, Module, Mux, Signal, Value
from amaranth.lib.wiring import Out

from rtl_gen import emit
from rtl_gen.card import Card
from rtl_gen.card.shell import CONTROL, SIDES, Shell, channel_prefix, pins
from rtl_gen.spec.config import TINY, CardConfig
from rtl_gen.spec.registers import CHANNEL_BASE
from rtl_gen.spec.registers import CONTROL as PLACES

CARDS = 2
CARD = dataclasses.replace(TINY, name="of_two", cards=CARDS)
#: What the pins are those of.
PINS = dataclasses.replace(TINY, name="two", channels=8, vector_lanes=8)
#: Cycles that a frame is under way.
LATENCY = 20
#: Control port: CUT cuts what joins next of card 0 and previous of card 1, NOISE spoils some beats.
FAULTS = CHANNEL_BASE + 8 * PINS.channels - 4
CUT, NOISE = 2, 4


class Ring(Shell):
    """Both cards, and the ways between them."""

    def elaborate(self, platform):
        m = Module()
        self.clock(m, Const(0, 1))
        cards = []
        for k in range(CARDS):
            card = {name: Signal(member.shape, name=f"card{k}_{name}")
                    for name, member in pins(CARD).items()}
            m.submodules[f"card_{k}"] = Instance(f"heddle_{CARD.name}", **{
                f"{'o' if member.flow == Out else 'i'}_{name}": card[name]
                for name, member in pins(CARD).items()})
            m.d.comb += [card["ap_clk"].eq(self.ap_clk), card["ap_rst_n"].eq(self.ap_rst_n)]
            cards.append(card)
        m.d.comb += self.interrupt.eq(Cat(card["interrupt"] for card in cards).all())
        self._host(m, cards)
        for k, card in enumerate(cards):
            for channel in range(CARD.channels):
                self._channel(m, card, channel, k * CARD.channels + channel)
        faults = self._faults(m)
        for k, card in enumerate(cards):
            other = cards[1 - k]
            for side, back in (SIDES, SIDES[::-1]):
                cut = faults[1] & ((k == 0) == (side == "next"))
                self._way(m, card, f"m_axis_{side}", other, f"s_axis_{back}", cut, faults[2])
        return m

    def _host(self, m, cards):
        for name, member in pins(PINS).items():
            if not name.startswith(CONTROL):
                continue
            pin = getattr(self, name)
            if member.flow == Out:
                m.d.comb += pin.eq(cards[0][name])
                continue
            value = pin
            if name.endswith("awaddr"):
                # Bases of channels that no card has: something that does no harm.
                beyond = (pin >= CHANNEL_BASE + 8 * CARD.channels) & (pin <= FAULTS)
                value = Mux(beyond, PLACES["isr"], pin)
            m.d.comb += [card[name].eq(value) for card in cards]

    def _faults(self, m):
        """What was written to ``FAULTS``."""
        address, word, faults = Signal(12), Signal(32), Signal(32)
        pin = lambda name: getattr(self, f"{CONTROL}_{name}")   # noqa: E731
        with m.If(pin("awvalid") & pin("awready")):
            m.d.shell += address.eq(pin("awaddr"))
        with m.If(pin("wvalid") & pin("wready")):
            m.d.shell += word.eq(pin("wdata"))
        with m.If(pin("bvalid") & pin("bready") & (address == FAULTS)):
            m.d.shell += faults.eq(word)
        return faults

    def _channel(self, m, card, inner, outer):
        offset = (outer - inner) * CARD.channel_bytes
        for name, member in pins(CARD).items():
            if not name.startswith(channel_prefix(inner)):
                continue
            pin = getattr(self, name.replace(channel_prefix(inner), channel_prefix(outer)))
            if name.endswith(("araddr", "awaddr")):
                m.d.comb += pin.eq(card[name] + offset)
            elif member.flow == Out:
                m.d.comb += pin.eq(card[name])
            else:
                m.d.comb += card[name].eq(pin)

    def _way(self, m, source, there, target, back, cut, noise):
        m.d.comb += source[f"{there}_tready"].eq(1)
        count = Signal(8)
        m.d.shell += count.eq(count + source[f"{there}_tvalid"])
        flip = noise & (count == 77)
        stage = [source[f"{there}_tdata"] ^ Value.cast(flip), source[f"{there}_tlast"],
                 source[f"{there}_tvalid"] & ~cut]
        for k in range(LATENCY):
            later = [Signal(len(part), name=f"{there}_{k}_{n}") for n, part in enumerate(stage)]
            m.d.shell += [new.eq(old) for new, old in zip(later, stage, strict=True)]
            stage = later
        for part, value in zip(("tdata", "tlast", "tvalid"), stage, strict=True):
            m.d.comb += target[f"{back}_{part}"].eq(value)


def modules(config: CardConfig, events: bool) -> dict[str, str]:
    """Verilog of the two cards, in the form of ``rtl_gen.emit.card``."""
    card = emit.convert(Card(CARD, commit=0), f"heddle_{CARD.name}", clocked=True)
    return emit.convert(Ring(config, events=events), "heddle_two", clocked=True) | card
