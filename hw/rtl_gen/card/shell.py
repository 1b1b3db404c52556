# SPDX-License-Identifier: Apache-2.0
"""The pins of a card: those of a Vitis RTL kernel, with plain AXI behind them."""

from amaranth import ClockDomain, ClockSignal, Const, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..common import axi
from ..control.registers import ADDRESS_BITS
from ..spec.config import CardConfig
from ..spec.events import BITS

CONTROL = "s_axi_control"
#: Sides of a ring, as the names of the pins have them.
SIDES = ("previous", "next")


def channel_prefix(channel: int) -> str:
    """First part of the names of a channel's pins."""
    return f"m_axi_hbm{channel:02}"


def pins(config: CardConfig) -> dict[str, wiring.Member]:
    """All pins, flat, with the names that bus inference of the vendor's tools expects."""
    members = {"ap_clk": In(1), "ap_rst_n": In(1), "interrupt": Out(1)}
    for name, member in axi.lite(ADDRESS_BITS).members.items():
        members[f"{CONTROL}_{name}"] = member.flip()
    for channel in range(config.channels):
        for name, member in axi.full(config.beat_bytes).members.items():
            members[f"{channel_prefix(channel)}_{name}"] = member
    if config.cards > 1:
        for side in SIDES:
            for prefix, there, back in (("m_axis", Out, In), ("s_axis", In, Out)):
                members |= {f"{prefix}_{side}_tdata": there(8 * config.beat_bytes),
                            f"{prefix}_{side}_tkeep": there(config.beat_bytes),
                            f"{prefix}_{side}_tvalid": there(1),
                            f"{prefix}_{side}_tready": back(1), f"{prefix}_{side}_tlast": there(1)}
    return members


class Shell(wiring.Component):
    """A component with a card's pins.

    It has two domains on one clock: ``shell``, which only the reset pin resets, and ``sync``, which
    control resets too.

    Parameters
    ----------
    config : CardConfig
    events : bool
        One pin more, ``events``, for simulation.
    """

    def __init__(self, config: CardConfig, *, events: bool = False):
        self.config, self.has_events = config, events
        super().__init__(pins(config) | ({"events": Out(BITS)} if events else {}))

    def clock(self, m: Module, reset_units) -> None:
        """Make the domains; ``reset_units`` resets ``sync`` alone."""
        m.domains.pin = ClockDomain(reset_less=True)
        m.domains.shell = ClockDomain()
        m.domains.sync = ClockDomain()
        m.d.comb += [ClockSignal(name).eq(self.ap_clk) for name in ("pin", "shell", "sync")]
        # The pin's reset has a long way: registered twice, and once more for the many units.
        pin, shell, units = Signal(init=1), Signal(init=1), Signal(init=1)
        m.d.pin += [pin.eq(~self.ap_rst_n), shell.eq(pin), units.eq(pin | reset_units)]
        m.d.comb += [ResetSignal("shell").eq(shell), ResetSignal("sync").eq(units)]

    def join_link(self, m: Module, side: str, tx, rx) -> None:
        """Connect frames to and from a neighbour: ``m_axis_<side>``, ``s_axis_<side>``.

        Frames are of whole beats; link kernels have the pin ``tkeep`` all the same.
        """
        there, back = ({part: getattr(self, f"{prefix}_{side}_{part}") for part in (
            "tdata", "tvalid", "tready", "tlast")} for prefix in ("m_axis", "s_axis"))
        m.d.comb += [
            there["tdata"].eq(tx.p.data), there["tlast"].eq(tx.p.last),
            getattr(self, f"m_axis_{side}_tkeep").eq(Const(-1, self.config.beat_bytes)),
            there["tvalid"].eq(tx.valid), tx.ready.eq(there["tready"]),
            rx.p.data.eq(back["tdata"]), rx.p.last.eq(back["tlast"]),
            rx.valid.eq(back["tvalid"]), back["tready"].eq(rx.ready)]

    def join(self, m: Module, prefix: str, port) -> None:
        """Connect the pins ``prefix`` to ``port``, which faces the same way as the pins."""
        for name in port.signature.members:
            pin, inner = getattr(self, f"{prefix}_{name}"), getattr(port, name)
            # A pin that the card drives is driven by the inner port, and the other way round.
            if self.signature.members[f"{prefix}_{name}"].flow == Out:
                m.d.comb += pin.eq(inner)
            else:
                m.d.comb += inner.eq(pin)
