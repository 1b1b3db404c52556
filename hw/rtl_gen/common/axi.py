# SPDX-License-Identifier: Apache-2.0
"""AXI4 and AXI4-Lite signatures, seen from the master, with the names of the standard."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

ID_BITS = 1
#: Response codes of R and B; anything but these is an error.
OKAY, EXOKAY = 0, 1


def full(beat_bytes: int) -> wiring.Signature:
    """An AXI4 master: INCR bursts of whole beats, 64-bit addresses."""
    return wiring.Signature({
        "arvalid": Out(1), "arready": In(1),
        "arid": Out(ID_BITS), "araddr": Out(64), "arlen": Out(8),
        "arsize": Out(3), "arburst": Out(2),
        "rvalid": In(1), "rready": Out(1),
        "rid": In(ID_BITS), "rdata": In(8 * beat_bytes), "rresp": In(2),
        "rlast": In(1),
        "awvalid": Out(1), "awready": In(1),
        "awid": Out(ID_BITS), "awaddr": Out(64), "awlen": Out(8),
        "awsize": Out(3), "awburst": Out(2),
        "wvalid": Out(1), "wready": In(1), "wdata": Out(8 * beat_bytes), "wstrb": Out(beat_bytes),
        "wlast": Out(1),
        "bvalid": In(1), "bready": Out(1), "bid": In(ID_BITS), "bresp": In(2)})


def lite(address_bits: int = 12) -> wiring.Signature:
    """An AXI4-Lite master of 32-bit words."""
    return wiring.Signature({
        "awvalid": Out(1), "awready": In(1), "awaddr": Out(address_bits),
        "wvalid": Out(1), "wready": In(1), "wdata": Out(32), "wstrb": Out(4),
        "bvalid": In(1), "bready": Out(1), "bresp": In(2),
        "arvalid": Out(1), "arready": In(1), "araddr": Out(address_bits),
        "rvalid": In(1), "rready": Out(1), "rdata": In(32), "rresp": In(2)})
