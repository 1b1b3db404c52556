# SPDX-License-Identifier: Apache-2.0
"""The card as a Vitis kernel: its ports and arguments, and kernel.xml, which says them."""

import dataclasses
import xml.etree.ElementTree as ElementTree

from ..card.shell import CONTROL, SIDES, channel_prefix
from ..control.registers import ADDRESS_BITS
from ..spec import registers
from ..spec.config import CardConfig

#: ``addressQualifier`` of an argument.
SCALAR, GLOBAL, STREAM = 0, 1, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Argument:
    """An argument of the kernel; its number is its place in the list."""

    name: str
    qualifier: int
    port: str
    bytes: int
    offset: int
    #: As C++ would declare it.
    type: str


def name(config: CardConfig) -> str:
    """Name of the kernel, and of the card's module."""
    return f"heddle_{config.name}"


def masters(config: CardConfig) -> list[str]:
    """Ports to HBM, by channel."""
    return [channel_prefix(channel) for channel in range(config.channels)]


def streams(config: CardConfig) -> list[str]:
    """AXI4-Stream ports to the neighbours."""
    if config.cards == 1:
        return []
    return [f"{flow}_{side}" for side in SIDES for flow in ("m_axis", "s_axis")]


def arguments(config: CardConfig) -> list[Argument]:
    """The arguments, by number: scalars, buffers, streams."""
    ports = masters(config)
    found = []
    for number, (argument, offset, size) in enumerate(registers.arguments(config.channels)):
        buffer = number >= registers.FIRST_BUFFER
        found.append(Argument(
            name=argument, qualifier=GLOBAL if buffer else SCALAR, bytes=size, offset=offset,
            port=ports[number - registers.FIRST_BUFFER] if buffer else CONTROL,
            type="void*" if buffer else "uint"))
    kind = f"stream<ap_axiu<{8 * config.beat_bytes},0,0,0>>&"
    return found + [Argument(name=port, qualifier=STREAM, port=port, bytes=0, offset=0, type=kind)
                    for port in streams(config)]


def xml(config: CardConfig) -> str:
    """kernel.xml, in the form of UG1393 that ``package_xo -kernel_xml`` takes."""
    root = ElementTree.Element("root", versionMajor="1", versionMinor="6")
    kernel = ElementTree.SubElement(
        root, "kernel", name=name(config), language="ip", attributes="",
        vlnv=f"heddle:kernel:{name(config)}:1.0", preferredWorkGroupSizeMultiple="0",
        workGroupSize="1", interrupt="true", hwControlProtocol="ap_ctrl_hs")
    ports = ElementTree.SubElement(kernel, "ports")
    ElementTree.SubElement(ports, "port", name=CONTROL, mode="slave",
                           range=f"{1 << ADDRESS_BITS:#x}", dataWidth="32",
                           portType="addressable", base="0x0")
    width = str(8 * config.beat_bytes)
    for port in masters(config):
        ElementTree.SubElement(ports, "port", name=port, mode="master",
                               range="0xFFFFFFFFFFFFFFFF", dataWidth=width,
                               portType="addressable", base="0x0")
    for port in streams(config):
        mode = "write_only" if port.startswith("m_axis") else "read_only"
        ElementTree.SubElement(ports, "port", name=port, mode=mode, dataWidth=width,
                               portType="stream")
    listed = ElementTree.SubElement(kernel, "args")
    for number, argument in enumerate(arguments(config)):
        ElementTree.SubElement(
            listed, "arg", name=argument.name, addressQualifier=str(argument.qualifier),
            id=str(number), port=argument.port, size=f"{argument.bytes:#x}",
            offset=f"{argument.offset:#x}", hostOffset="0x0", hostSize=f"{argument.bytes:#x}",
            type=argument.type)
    ElementTree.indent(root)
    return ('<?xml version="1.0" encoding="UTF-8"?>\n'
            + ElementTree.tostring(root, encoding="unicode") + "\n")
