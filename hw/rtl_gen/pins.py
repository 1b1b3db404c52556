# SPDX-License-Identifier: Apache-2.0
"""The pins of a component, as tables and as a template for whoever instantiates it."""

from amaranth import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In


def pins(component: wiring.Component) -> list[tuple[str, str, int]]:
    """Name, direction (``input`` or ``output``) and bits of every pin, in the Verilog's names."""
    found = []
    for path, member, value in component.signature.flatten(component):
        name = "__".join(str(part) for part in path)
        found.append((name, "input" if member.flow == In else "output", len(Value.cast(value))))
    return found


def template(component: wiring.Component, top: str) -> str:
    """Verilog that instantiates module ``top``: a wire for every pin, and the instance."""
    listed = pins(component)
    wires = "".join(f"wire {f'[{bits - 1}:0] ' if bits > 1 else ''}{name};\n"
                    for name, _, bits in listed)
    joins = ",\n".join(f"    .{name}({name})" for name, _, _ in listed)
    return f"{wires}\n{top} u_{top.removeprefix('heddle_')} (\n{joins}\n);\n"
