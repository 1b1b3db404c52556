# SPDX-License-Identifier: Apache-2.0
"""The double's bitstream: an archive of a folder that ``heddle rtl --board`` wrote.

What is said in kernel.xml and connectivity.cfg decides argument numbers, offsets, widths and banks,
and the archive's Verilog is what runs; nothing is taken from anywhere else.
"""

import dataclasses
import hashlib
import pathlib
import re
import types
import xml.etree.ElementTree as ElementTree
import zipfile

from cardsim.rtl import bench, build

SCALAR, GLOBAL, STREAM = 0, 1, 4
HERE = pathlib.Path(__file__).parent
#: Models of the vendor's cells, for Verilog that instantiates them.
CELLS = [HERE.parent / "rtl" / name for name in ("DSP48E2.v", "MUXF7.v")]


def archive(folder: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """Make a bitstream of a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for source in sorted(folder.iterdir()):
            file.write(source, source.name)
    return path


@dataclasses.dataclass(frozen=True)
class Argument:
    """An ``arg`` of kernel.xml."""

    name: str
    qualifier: int
    port: str
    size: int
    offset: int


class Package:
    """A bitstream as its tools would have read it."""

    def __init__(self, path: pathlib.Path):
        with zipfile.ZipFile(path) as file:
            texts = {name: file.read(name).decode() for name in file.namelist()}
        self.path = path
        self.uuid = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
        kernel = ElementTree.fromstring(texts["kernel.xml"]).find("kernel")
        assert kernel.get("hwControlProtocol") == "ap_ctrl_hs"
        assert kernel.get("interrupt") == "true"
        self.kernel = kernel.get("name")
        self.ports = {port.get("name"): port for port in kernel.find("ports")}
        arguments = {int(arg.get("id")): Argument(
            arg.get("name"), int(arg.get("addressQualifier")), arg.get("port"),
            int(arg.get("size"), 0), int(arg.get("offset"), 0)) for arg in kernel.find("args")}
        self.arguments = [arguments[number] for number in range(len(arguments))]

        settings = [line.partition("=")[::2] for line in texts["connectivity.cfg"].splitlines()
                    if "=" in line and not line.startswith("#")]
        self.platform = dict(settings)["platform"]
        units = {}
        for key, value in settings:
            if key == "nk":
                name, count, unit = value.split(":")
                assert count == "1"
                units[unit] = name
        unit, = (unit for unit, name in units.items() if name == self.kernel)
        self.banks, self.streams = {}, []
        for key, value in settings:
            if key == "sp":
                port, bank = re.fullmatch(rf"{unit}\.(\w+):HBM\[(\d+)\]", value).groups()
                assert port in self.ports, f"the kernel has no port {port}"
                self.banks[port] = int(bank)
            elif key == "stream_connect":
                self.streams.append(tuple(value.split(":")[:2]))
        self.unit, self._texts = unit, texts

    @property
    def masters(self) -> list[str]:
        return [name for name, port in self.ports.items() if port.get("mode") == "master"]

    def bank(self, number: int) -> int:
        """The bank that an argument's buffer must be in."""
        return self.banks[self.arguments[number].port]

    def links(self) -> dict[str, str]:
        """Link kernel of each side of the ring, from what the streams are connected to."""
        found = {}
        for source, sink in self.streams:
            if source.startswith(f"{self.unit}.m_axis_"):
                side, link = source.removeprefix(f"{self.unit}.m_axis_"), sink.split(".")[0]
                assert (f"{link}.rx_axis", f"{self.unit}.s_axis_{side}") in self.streams
                assert sink == f"{link}.tx_axis"
                found[side] = link
        return found

    def library(self, cards: int) -> pathlib.Path:
        """The Verilog with a bench around it, compiled; ``cards`` of them are linked to a ring."""
        ports = [self.ports[name] for name in self.masters]
        width, = {int(port.get("dataWidth")) for port in ports}
        assert sorted(self.masters) == [f"m_axi_hbm{k:02}" for k in range(len(ports))]
        geometry = types.SimpleNamespace(
            channels=len(ports), beat_bytes=width // 8, cards=cards)
        text = bench.text(geometry, self.kernel, events=False,
                          banks=[self.banks[name] for name in sorted(self.masters)])
        modules = {name.removesuffix(".v"): self._texts[name]
                   for name in self._texts["files.f"].split()}
        assert next(iter(modules)) == self.kernel
        modules |= {path.stem: path.read_text() for path in CELLS
                    if any(f" {path.stem} " in text for text in modules.values())}
        options = build.flags(channels=geometry.channels, cards=cards)
        sources = build.sources(modules, text, geometry.channels)
        known = hashlib.sha256(repr((options, sources)).encode())
        for name in build.SOURCES:
            known.update((build.HERE / name).read_bytes())
        folder = build.cache_folder() / f"{self.kernel}-{known.hexdigest()[:16]}"
        return build.compiled(folder, options, lambda: sources)
