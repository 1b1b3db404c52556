# SPDX-License-Identifier: Apache-2.0
"""The control port: start, done, interrupt, addresses, and a window onto the status record."""

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..common import axi
from ..spec import registers as spec
from ..spec.config import CardConfig

#: Address bits of the control port.
ADDRESS_BITS = 12
#: Response to an address that is no register, or cannot be written now.
SLVERR = 2


class Registers(wiring.Component):
    """AXI4-Lite slave with the registers of ``rtl_gen.spec.registers``.

    Start, done, idle, ready and the interrupt follow ``ap_ctrl_hs`` of the Vitis kernels.  An
    access to an address that is no register, a write to the status window, and a write to an
    address register while a command runs answer SLVERR and change nothing.  Writes to the words
    between the arguments are taken and change nothing either: XRT writes all words from the first
    argument to the last one's end before every start.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    bus : AXI4-Lite slave
    start : ``Out(1)``
        Pulse: the host starts a command.
    finish : ``In(1)``
        Pulse: the command has ended.
    running : ``Out(1)``
        From ``start`` to ``finish``.
    command : ``Out(64)``
        Byte address of the command record.
    base : ``Out(ArrayLayout(64, channels))``
        Byte address of each channel.
    status : ``In(ArrayLayout(32, len(spec.STATUS)))``
        Words of the status window, as they are now.
    index : ``In(range(len(spec.STATUS)))``, word : ``Out(32)``, held : ``Out(1)``
        A word of the window for somebody else, who shares the multiplexer with the host; not in a
        cycle in which the host reads one.
    interrupt : ``Out(1)``
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "bus": In(axi.lite(ADDRESS_BITS)),
            "start": Out(1), "finish": In(1), "running": Out(1),
            "command": Out(64),
            "base": Out(data.ArrayLayout(unsigned(64), config.channels)),
            "status": In(data.ArrayLayout(unsigned(32), len(spec.STATUS))),
            "index": In(range(len(spec.STATUS))), "word": Out(32), "held": Out(1),
            "interrupt": Out(1)})

    def elaborate(self, platform):
        m = Module()
        bus = self.bus

        done, ready, enable, on_done, pending = (
            Signal(name=name) for name in ("done", "ready", "enable", "on_done", "pending"))
        m.d.sync += self.start.eq(0)
        m.d.comb += self.interrupt.eq(enable & pending)

        command = [Signal(32, name=f"command_{part}") for part in ("low", "high")]
        base = [Signal(32, name=f"base_{k // 2}_{('low', 'high')[k % 2]}")
                for k in range(2 * self.config.channels)]
        m.d.comb += [self.command.eq(Cat(*command)), self.base.as_value().eq(Cat(*base))]
        #: Registers that hold an address: fixed while a command runs.
        plain = {spec.CONTROL["command_low"]: command[0], spec.CONTROL["command_high"]: command[1]}
        plain |= {spec.CHANNEL_BASE + 4 * k: register for k, register in enumerate(base)}

        reserved = range(spec.CONTROL["command_high"] + 4, spec.CHANNEL_BASE, 4)

        # Writes: address and data are taken separately, as they come.
        address, addressed = Signal(ADDRESS_BITS), Signal()
        value, strobe, valued = Signal(32), Signal(4), Signal()
        m.d.comb += [bus.awready.eq(~addressed), bus.wready.eq(~valued)]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [address.eq(bus.awaddr), addressed.eq(1)]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [value.eq(bus.wdata), strobe.eq(bus.wstrb), valued.eq(1)]
        with m.If(bus.bvalid & bus.bready):
            m.d.sync += bus.bvalid.eq(0)

        def written(register):
            """The register's bytes, replaced where the strobe says so."""
            return Cat(Mux(strobe[k], value[8 * k:8 * k + 8], register[8 * k:8 * k + 8])
                       for k in range(4))

        with m.If(addressed & valued & ~bus.bvalid):
            m.d.sync += [addressed.eq(0), valued.eq(0), bus.bvalid.eq(1), bus.bresp.eq(axi.OKAY)]
            with m.Switch(address):
                with m.Case(spec.CONTROL["ap_ctrl"]):
                    with m.If(value[0] & strobe[0] & ~self.running):
                        m.d.sync += [self.start.eq(1), self.running.eq(1)]
                with m.Case(spec.CONTROL["gie"]):
                    with m.If(strobe[0]):
                        m.d.sync += enable.eq(value[0])
                with m.Case(spec.CONTROL["ier"]):
                    with m.If(strobe[0]):
                        m.d.sync += on_done.eq(value[0])
                with m.Case(spec.CONTROL["isr"]):
                    with m.If(strobe[0]):
                        m.d.sync += pending.eq(pending ^ value[0])
                for place, register in plain.items():
                    with m.Case(place):
                        with m.If(self.running):
                            m.d.sync += bus.bresp.eq(SLVERR)
                        with m.Else():
                            m.d.sync += register.eq(written(register))
                with m.Case(*reserved):
                    pass
                with m.Default():
                    m.d.sync += bus.bresp.eq(SLVERR)

        # Reads: a cycle to decode, a cycle to answer.
        wanted, asked = Signal(ADDRESS_BITS), Signal()
        m.d.comb += bus.arready.eq(~asked & ~bus.rvalid)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [wanted.eq(bus.araddr), asked.eq(1)]
        with m.If(bus.rvalid & bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        place, window = Signal(ADDRESS_BITS - 2), Signal()
        m.d.comb += [
            place.eq(wanted[2:] - spec.STATUS_BASE // 4),
            window.eq((place < len(spec.STATUS)) & ~wanted[:2].any()),
            self.held.eq(asked & window),
            self.word.eq(self.status[Mux(self.held, place[:len(self.index)], self.index)])]
        with m.If(asked):
            m.d.sync += [asked.eq(0), bus.rvalid.eq(1), bus.rresp.eq(axi.OKAY)]
            with m.Switch(wanted):
                with m.Case(spec.CONTROL["ap_ctrl"]):
                    m.d.sync += [bus.rdata.eq(Cat(self.running, done, ~self.running, ready)),
                                 done.eq(0), ready.eq(0)]
                for place, flag in (("gie", enable), ("ier", on_done), ("isr", pending)):
                    with m.Case(spec.CONTROL[place]):
                        m.d.sync += bus.rdata.eq(flag)
                for place, register in plain.items():
                    with m.Case(place):
                        m.d.sync += bus.rdata.eq(register)
                with m.Default():
                    m.d.sync += [bus.rdata.eq(Mux(window, self.word, 0)),
                                 bus.rresp.eq(Mux(window, axi.OKAY, SLVERR))]

        # Last, so that an end is never lost to a read or write of the same cycle.
        with m.If(self.finish):
            m.d.sync += [self.running.eq(0), done.eq(1), ready.eq(1)]
            with m.If(on_done):
                m.d.sync += pending.eq(1)
        return m
