# SPDX-License-Identifier: Apache-2.0
"""The SystemVerilog bench around a card: an HBM model per channel, control and links as pins."""

from collections.abc import Sequence
from typing import Protocol

from rtl_gen.spec.events import BITS

_AXI = (
    "arvalid", "arready", "arid", "araddr", "arlen", "arsize", "arburst",
    "rvalid", "rready", "rid", "rdata", "rresp", "rlast",
    "awvalid", "awready", "awid", "awaddr", "awlen", "awsize", "awburst",
    "wvalid", "wready", "wdata", "wstrb", "wlast", "bvalid", "bready", "bid", "bresp")
_WIDTH = {"araddr": 64, "awaddr": 64, "arlen": 8, "awlen": 8, "arsize": 3, "awsize": 3,
          "arburst": 2, "awburst": 2, "rresp": 2, "bresp": 2}
#: Control port: (name, width, driven by the host).
CONTROL = (
    ("awvalid", 1, True), ("awready", 1, False), ("awaddr", 12, True),
    ("wvalid", 1, True), ("wready", 1, False), ("wdata", 32, True), ("wstrb", 4, True),
    ("bvalid", 1, False), ("bready", 1, True), ("bresp", 2, False),
    ("arvalid", 1, True), ("arready", 1, False), ("araddr", 12, True),
    ("rvalid", 1, False), ("rready", 1, True), ("rdata", 32, False), ("rresp", 2, False))


#: Of a card in a ring.
SIDES = ("previous", "next")


def links(config: "Geometry") -> list[tuple[str, int, bool]]:
    """Pins of a card in a ring to its neighbours, in the form of :data:`CONTROL`."""
    if config.cards == 1:
        return []
    return [(f"{port}_{side}_{name}", bits, (port == "s_axis") != (name == "tready"))
            for side in SIDES for port in ("m_axis", "s_axis")
            for name, bits in (("tdata", 8 * config.beat_bytes), ("tvalid", 1), ("tready", 1),
                               ("tlast", 1))]


class Geometry(Protocol):
    """What the bench depends on; a ``CardConfig`` has it."""

    @property
    def channels(self) -> int: ...
    @property
    def beat_bytes(self) -> int: ...
    @property
    def cards(self) -> int: ...


def text(config: Geometry, card: str, *, banks: Sequence[int] | None = None,
         events: bool = True) -> str:
    """SystemVerilog of module ``heddle_bench`` around the module ``card``.

    Parameters
    ----------
    config : CardConfig
    card : str
        Name of the card's module.
    banks : sequence of int, optional
        Number of the simulated bank behind each channel's port, by channel; the channel's own if
        not given.
    events : bool
        The card has the pin ``events``.
    """
    width = _WIDTH | {"rdata": 8 * config.beat_bytes, "wdata": 8 * config.beat_bytes,
                      "wstrb": config.beat_bytes}
    ports = ["    input logic clk", "    input logic rst_n", "    output logic irq",
             f"    output logic [{BITS - 1}:0] events"]
    joins = [".ap_clk(clk)", ".ap_rst_n(rst_n)", ".interrupt(irq)"]
    wires, channels = [], []
    if events:
        joins.append(".events(events)")
    else:
        wires.append("    assign events = '0;")
    control = [(f"s_axi_control_{name}", bits, driven) for name, bits, driven in CONTROL]
    for name, bits, driven in control + links(config):
        flow = "input" if driven else "output"
        ports.append(f"    {flow} logic [{bits - 1}:0] {name}")
        joins.append(f".{name}({name})")
    if config.cards > 1:
        joins += [f".s_axis_{side}_tkeep('1), .m_axis_{side}_tkeep()" for side in SIDES]
    for channel in range(config.channels):
        prefix = f"m_axi_hbm{channel:02}"
        for name in _AXI:
            wires.append(f"    logic [{width.get(name, 1) - 1}:0] {prefix}_{name};")
            joins.append(f".{prefix}_{name}({prefix}_{name})")
        pins = ", ".join(f".{name}({prefix}_{name})" for name in _AXI)
        channels.append(
            f"    heddle_hbm #(.INDEX({banks[channel] if banks else channel}), "
            f".BEAT({config.beat_bytes})) hbm{channel:02} (.clk(clk), .rst_n(rst_n), {pins});")
    newline = "\n"
    return ("// SPDX-License-Identifier: Apache-2.0\n"
            f"module heddle_bench (\n{(',' + newline).join(ports)}\n);\n{newline.join(wires)}\n"
            f"    {card} card ({', '.join(joins)});\n{newline.join(channels)}\nendmodule\n")
