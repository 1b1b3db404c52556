# SPDX-License-Identifier: Apache-2.0
"""A card with SDRAM for its memory and a serial line to its host."""

from amaranth import ClockSignal, Instance, Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..card.shell import CONTROL, channel_prefix
from ..card.shell import pins as card_pins
from ..spec import serial
from ..spec.config import CardConfig
from . import sdram
from .frames import Frames
from .host import Host
from .port import Arbiter, Port
from .sdram import Chip, Sdram
from .uart import Receiver, Transmitter

#: Silence on the line after which a frame has ended, in seconds: more than a host that does other
#: things, or its USB, leaves between two bytes.
GAP = 20e-3


class Board(wiring.Component):
    """Everything between the pins of FPGA and card.

    Channel c has the bytes from ``c · channel_bytes`` of the SDRAM on; the driver says so to the
    card.

    Parameters
    ----------
    config : CardConfig
        Its channels fill the chip, or a part of it.
    chip : Chip
    clock_hz, baud : float
    gap : float
        Seconds, see :data:`GAP`.
    power_up : float, optional
        See :class:`~rtl_gen.boards.sdram.Sdram`.

    Members
    -------
    rx, tx : ``In(1)``, ``Out(1)``
        The serial line.
    sdram : see :func:`~rtl_gen.boards.sdram.pins`

    The card itself is an instance of the module that ``emit.card`` writes.
    """

    def __init__(self, config: CardConfig, *, chip: Chip, clock_hz: float, baud: float,
                 gap: float = GAP, power_up: float | None = None) -> None:
        if config.cards != 1:
            raise ValueError(f"cards must be 1 on a board without links, not {config.cards}")
        if config.channels * config.channel_bytes > chip.bytes:
            raise ValueError(
                f"channels · channel_bytes must be at most the SDRAM's {chip.bytes} bytes, not "
                f"{config.channels * config.channel_bytes}")
        self.config, self.chip, self.clock_hz, self.baud = config, chip, clock_hz, baud
        self.gap, self.power_up = gap, power_up
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1),
                          "sdram": Out(sdram.pins(chip))})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.sdram = memory = Sdram(
            self.chip, clock_hz=self.clock_hz, beat_bytes=config.beat_bytes,
            power_up=self.power_up)
        connect(m, flipped(self.sdram), memory.pins)
        sizes = {"beat_bytes": config.beat_bytes, "address_bits": memory.address_bits}
        # Reads and writes of each channel, and the host.
        m.submodules.arbiter = arbiter = Arbiter(ways=2 * config.channels + 1, **sizes)
        connect(m, arbiter.o, memory.i)
        m.d.comb += arbiter.read.eq(memory.o)

        # The host.
        m.submodules.receiver = receiver = Receiver(clock_hz=self.clock_hz, baud=self.baud)
        m.submodules.transmitter = transmitter = Transmitter(
            clock_hz=self.clock_hz, baud=self.baud)
        m.submodules.frames = frames = Frames(gap=round(self.gap * self.clock_hz))
        m.submodules.host = host = Host(hello=self.hello, **sizes)
        connect(m, frames.line, transmitter.i)
        m.d.comb += [receiver.line.eq(self.rx), self.tx.eq(transmitter.line),
                     frames.bytes.eq(receiver.o)]
        for name in ("request", "asks", "read_data"):
            m.d.comb += getattr(host, name).eq(getattr(frames, name))
        for name in ("done", "code", "size", "read_addr", "write_en", "write_addr", "write_data"):
            m.d.comb += getattr(frames, name).eq(getattr(host, name))
        connect(m, host.memory, arbiter.i[-1])
        m.d.comb += [host.came.eq(arbiter.came[-1]), host.reading.eq(arbiter.reading)]

        # The card.
        reset = Signal(init=1)
        m.d.sync += reset.eq(host.reset)
        ports = [Port(**sizes) for _ in range(config.channels)]
        for k, port in enumerate(ports):
            m.submodules[f"port_{k}"] = ResetInserter(reset)(port)
            connect(m, port.read, arbiter.i[2 * k])
            connect(m, port.write, arbiter.i[2 * k + 1])
            m.d.comb += port.came.eq(arbiter.came[2 * k])
        self._card(m, reset, host.registers, ports)
        return m

    def _card(self, m, reset, registers, ports):
        """The card's pins: a slave for the host's registers, a master for each port."""
        pins = {"i_ap_clk": ClockSignal(), "i_ap_rst_n": ~reset}
        buses = {CONTROL: registers} | {
            channel_prefix(k): port.axi for k, port in enumerate(ports)}
        for name, member in card_pins(self.config).items():
            prefix = next((prefix for prefix in buses if name.startswith(f"{prefix}_")), None)
            if prefix is not None:
                flow = "o" if member.flow == Out else "i"
                pins[f"{flow}_{name}"] = getattr(buses[prefix], name.removeprefix(f"{prefix}_"))
        m.submodules.card = Instance(f"heddle_{self.config.name}", **pins)

    @property
    def hello(self) -> tuple[int, ...]:
        """What the board says of itself, the words of ``serial.HELLO_WORDS``."""
        return (serial.REVISION, self.config.beat_bytes, self.chip.bytes, round(self.clock_hz),
                round(self.gap * 1e6))
