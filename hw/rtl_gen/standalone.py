# SPDX-License-Identifier: Apache-2.0
"""A unit on its own, with AXI4-Stream ports, for other people's designs."""

from amaranth import Cat, ClockDomain, ClockSignal, Module, ResetSignal, Shape, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


def _is_stream(member) -> bool:
    return (member.is_signature and not member.dimensions
            and isinstance(member.signature, stream.Signature))


def _width(shape) -> tuple[int, bool]:
    """Bits of tdata (whole bytes) for a payload, and whether ``last`` goes to tlast instead."""
    last = isinstance(shape, data.StructLayout) and "last" in shape.members
    bits = Shape.cast(shape).width - last
    return -(-bits // 8) * 8, last


class Standalone(wiring.Component):
    """``component`` with its streams renamed to AXI4-Stream and its clock and reset as ports.

    A stream ``i`` that the unit takes becomes ``s_axis_i_tdata``, ``_tvalid``, ``_tready``; one that
    it gives ``m_axis_o_...``.  The payload's fields lie in tdata from the lowest bit up; a field
    ``last`` becomes ``tlast``.  Other ports keep their names.  ``aclk`` and ``aresetn``
    (synchronous, active low) drive the unit.

    Parameters
    ----------
    component : wiring.Component
    """

    def __init__(self, component: wiring.Component):
        self.component = component
        members = {"aclk": In(1), "aresetn": In(1)}
        for name, member in component.signature.members.items():
            if not _is_stream(member):
                members[name] = member
                continue
            takes = member.flow == In
            prefix = f"{'s' if takes else 'm'}_axis_{name}"
            there, back = (In, Out) if takes else (Out, In)
            width, last = _width(member.signature.members["payload"].shape)
            members |= {f"{prefix}_tdata": there(width), f"{prefix}_tvalid": there(1),
                        f"{prefix}_tready": back(1)}
            if last:
                members[f"{prefix}_tlast"] = there(1)
        super().__init__(members)
        for name, member in component.signature.members.items():
            if not _is_stream(member):
                setattr(self, name, getattr(component, name))

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain()
        m.d.comb += [ClockSignal().eq(self.aclk), ResetSignal().eq(~self.aresetn)]
        m.submodules.unit = self.component
        for name, member in self.component.signature.members.items():
            if not _is_stream(member):
                continue
            takes = member.flow == In
            prefix = f"{'s' if takes else 'm'}_axis_{name}"
            inner = getattr(self.component, name)
            tdata, tvalid, tready = (
                getattr(self, f"{prefix}_{part}") for part in ("tdata", "tvalid", "tready"))
            shape = member.signature.members["payload"].shape
            if _width(shape)[1]:
                rest = Cat(Value.cast(inner.p[field]) for field in shape.members if field != "last")
                tlast = getattr(self, f"{prefix}_tlast")
                m.d.comb += inner.p.last.eq(tlast) if takes else tlast.eq(inner.p.last)
            else:
                rest = Value.cast(inner.payload)
            m.d.comb += [
                *([rest.eq(tdata), inner.valid.eq(tvalid), tready.eq(inner.ready)] if takes else
                  [tdata.eq(rest), tvalid.eq(inner.valid), inner.ready.eq(tready)])]
        return m
