# SPDX-License-Identifier: Apache-2.0
"""A unit on its own, with AXI4-Stream ports, for other people's designs."""

from amaranth import Cat, ClockDomain, ClockSignal, Module, ResetSignal, Shape, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

#: Prefix of a unit's AXI4-Lite slave: no unit has two, and a card's is called the same.
LITE = "s_axi_control"


def _streams(component):
    """(name, whether the unit takes it, interface) of every stream, those of arrays by number."""
    for name, member in component.signature.members.items():
        if not (member.is_signature and isinstance(member.signature, stream.Signature)):
            continue
        interface, takes = getattr(component, name), member.flow == In
        if member.dimensions:
            for number in range(*member.dimensions):
                yield f"{name}_{number}", takes, interface[number]
        else:
            yield name, takes, interface


def _buses(component):
    """(prefix of the pins, interface, its members) of every AXI port."""
    for name, member in component.signature.members.items():
        if member.is_signature and "arvalid" in member.signature.members:
            prefix = f"m_{name}" if member.flow == Out else LITE
            yield prefix, getattr(component, name), member.signature.members.items()


def _is_renamed(member) -> bool:
    """Whether a member is a stream, an array of them, or an AXI port."""
    return member.is_signature and (
        isinstance(member.signature, stream.Signature) or "arvalid" in member.signature.members)


def _width(shape) -> tuple[int, bool]:
    """Bits of tdata (whole bytes) for a payload, and whether ``last`` goes to tlast instead."""
    last = isinstance(shape, data.StructLayout) and "last" in shape.members
    bits = Shape.cast(shape).width - last
    return -(-bits // 8) * 8, last


class Standalone(wiring.Component):
    """``component`` with AXI4 and AXI4-Stream ports, and its clock and reset as ports.

    A stream ``i`` that the unit takes becomes ``s_axis_i_tdata``, ``_tvalid``, ``_tready``; one
    that it gives ``m_axis_o_...``; stream 3 of an array ``write`` ``m_axis_write_3_...``.  The
    payload's fields lie in tdata from the lowest bit up; a field ``last`` becomes ``tlast``.  An
    AXI4 master ``axi`` becomes ``m_axi_araddr`` and so on, an AXI4-Lite slave
    ``s_axi_control_araddr``.  Other ports keep their names.  ``aclk`` and ``aresetn`` (synchronous,
    active low) drive the unit.

    Parameters
    ----------
    component : wiring.Component
    """

    def __init__(self, component: wiring.Component):
        self.component = component
        members = {"aclk": In(1), "aresetn": In(1)}
        for name, takes, inner in _streams(component):
            prefix = f"{'s' if takes else 'm'}_axis_{name}"
            there, back = (In, Out) if takes else (Out, In)
            width, last = _width(inner.payload.shape())
            members |= {f"{prefix}_tdata": there(width), f"{prefix}_tvalid": there(1),
                        f"{prefix}_tready": back(1)}
            if last:
                members[f"{prefix}_tlast"] = there(1)
        for prefix, _, ports in _buses(component):
            members |= {f"{prefix}_{port}": one for port, one in ports}
        kept = {name: member for name, member in component.signature.members.items()
                if not _is_renamed(member)}
        super().__init__(members | kept)
        for name in kept:
            setattr(self, name, getattr(component, name))

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain()
        m.d.comb += [ClockSignal().eq(self.aclk), ResetSignal().eq(~self.aresetn)]
        m.submodules.unit = self.component
        for name, takes, inner in _streams(self.component):
            prefix = f"{'s' if takes else 'm'}_axis_{name}"
            tdata, tvalid, tready = (
                getattr(self, f"{prefix}_{part}") for part in ("tdata", "tvalid", "tready"))
            shape = inner.payload.shape()
            if _width(shape)[1]:
                rest = Cat(Value.cast(inner.p[field]) for field in shape.members if field != "last")
                tlast = getattr(self, f"{prefix}_tlast")
                m.d.comb += inner.p.last.eq(tlast) if takes else tlast.eq(inner.p.last)
            else:
                rest = Value.cast(inner.payload)
            m.d.comb += [
                *([rest.eq(tdata), inner.valid.eq(tvalid), tready.eq(inner.ready)] if takes else
                  [tdata.eq(rest), tvalid.eq(inner.valid), inner.ready.eq(tready)])]
        for prefix, bus, ports in _buses(self.component):
            for port, one in ports:
                outer, inner = getattr(self, f"{prefix}_{port}"), getattr(bus, port)
                m.d.comb += outer.eq(inner) if one.flow == Out else inner.eq(outer)
        return m
