# SPDX-License-Identifier: Apache-2.0
"""A simple dual-port memory, one Verilog module per size."""

from amaranth import ClockSignal, Instance, Module, Shape
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

#: Bits from which a memory is wide.
_WIDE = 512

_VERILOG = """\
// Simple dual-port memory: one write port with {parts} enables, one read port a cycle later.  A
// read of what is being written {both}.  No initial content.
module {name} (
    input clk,
    input [{en_high}:0] write_en, input [{addr_high}:0] write_addr, input [{high}:0] write_data,
    input read_en, input [{addr_high}:0] read_addr, output reg [{high}:0] read_data
);
    {attribute}reg [{high}:0] content [0:{last}];
    always @(posedge clk) begin
{writes}
        if (read_en) read_data <= content[read_addr];
{lost}    end
endmodule
"""
_LOST = """\
`ifdef VERILATOR
        if (read_en && read_addr == write_addr) begin
{pieces}
        end
`endif
"""


def wide_style(bits: int) -> str:
    """The style of memories that are wide and shallow: eight blocks of UltraRAM take the place of
    hundreds of LUTs, and block memories are for what is deep."""
    return "ultra" if bits >= _WIDE else ""


class Ram(wiring.Component):
    """Simple dual-port memory.

    Amaranth emits every memory with an initial value per word; memories of a card have none, so
    this one is its own Verilog module.  Simulation in Amaranth uses ``lib.memory`` (zero at first).

    Parameters
    ----------
    shape : shape of a word
    depth : int
        Words, at least 2.
    parts : int
        Write enables; part k writes the k-th of ``parts`` equal pieces of the word.
    style : str
        Vendor hint ("block", "ultra", "distributed"), or empty.
    apart : int, optional
        So many parts in a row, from part 0 on, are never used as they are read while one of them
        is written: whoever uses the memory sees to it, and synthesis may do as it likes.
        Verilator's model of the memory then gives the complement of what they were.

    Members
    -------
    write_en : ``In(parts)``
    write_addr, write_data
    read_en : ``In(1)``
        The word at ``read_addr`` appears on ``read_data`` a cycle later and stays until the next
        read.  It is the old word if that one is written at the same time, but for ``apart``.
    """

    READ_LATENCY = 1

    def __init__(self, shape, *, depth: int, parts: int = 1, style: str = "",
                 apart: int | None = None):
        width = Shape.cast(shape).width
        if depth < 2:
            raise ValueError(f"depth must be at least 2, not {depth!r}")
        if parts < 1 or width % parts:
            raise ValueError(f"parts must divide the {width} bits of a word, not {parts!r}")
        if apart is not None and (apart < 1 or parts % apart):
            raise ValueError(f"apart must divide the {parts} parts, not {apart!r}")
        self.shape, self.depth, self.parts, self.style = shape, depth, parts, style
        self.apart = apart
        super().__init__({
            "write_en": In(parts), "write_addr": In(range(depth)), "write_data": In(shape),
            "read_en": In(1), "read_addr": In(range(depth)), "read_data": Out(shape)})

    def verilog(self) -> tuple[str, str]:
        """Name and text of the module."""
        width = Shape.cast(self.shape).width
        style = f"_{self.style}" if self.style else ""
        parts = f"_{self.parts}" if self.parts > 1 else ""
        apart = f"_apart_{self.apart}" if self.apart else ""
        name = f"heddle_ram_{width}x{self.depth}{parts}{style}{apart}"
        piece = width // self.parts
        writes = "\n".join(
            f"        if (write_en[{k}]) content[write_addr][{(k + 1) * piece - 1}:{k * piece}]"
            f" <= write_data[{(k + 1) * piece - 1}:{k * piece}];" for k in range(self.parts))
        attributes = [f'ram_style = "{self.style}"'] * bool(self.style)
        lost = ""
        if self.apart:
            attributes.append("no_rw_check")
            size = self.apart * piece
            lost = _LOST.format(pieces="\n".join(
                f"            if (|write_en[{(k + 1) * self.apart - 1}:{k * self.apart}])"
                f" read_data[{(k + 1) * size - 1}:{k * size}]"
                f" <= ~content[read_addr][{(k + 1) * size - 1}:{k * size}];"
                for k in range(self.parts // self.apart)))
        return name, _VERILOG.format(
            name=name, parts=self.parts, en_high=self.parts - 1, high=width - 1,
            addr_high=(self.depth - 1).bit_length() - 1, last=self.depth - 1, writes=writes,
            lost=lost, both="is lost" if self.apart else "gives the old word",
            attribute=f"(* {', '.join(attributes)} *) " if attributes else "")

    def elaborate(self, platform):
        m = Module()
        modules = getattr(platform, "modules", None)
        if modules is not None:
            name, text = self.verilog()
            modules[name] = text
            plain = lambda value: getattr(value, "as_value", lambda: value)()   # noqa: E731
            m.submodules.ram = Instance(
                name, i_clk=ClockSignal(), i_write_en=self.write_en, i_write_addr=self.write_addr,
                i_write_data=plain(self.write_data), i_read_en=self.read_en,
                i_read_addr=self.read_addr, o_read_data=plain(self.read_data))
            return m
        width = Shape.cast(self.shape).width
        m.submodules.content = content = memory.Memory(shape=width, depth=self.depth, init=[])
        write = content.write_port(granularity=width // self.parts)
        read = content.read_port()
        m.d.comb += [
            write.addr.eq(self.write_addr), write.data.eq(self.write_data),
            write.en.eq(self.write_en), read.addr.eq(self.read_addr), read.en.eq(self.read_en),
            self.read_data.eq(read.data)]
        return m
