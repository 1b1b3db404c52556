# SPDX-License-Identifier: Apache-2.0
"""cocotb bench: a whole card between AXI masters and memories of cocotbext-axi.

Host code runs unchanged, in a thread of its own: ``PinCard`` is a ``heddle.card.Card``.
"""

import itertools
import logging
import random

import cocotb
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam, AxiResp

from cardsim.functional import FunctionalCard
from heddle.card import CardStopped, CardTimeout, Identity, Status, check
from rtl_gen.card.shell import CONTROL, channel_prefix
from rtl_gen.spec import isa, registers
from rtl_gen.spec.registers import Error
from tests import programs
from tests.cosim.test_card_axi import CONFIG

NS = 4


def base(channel: int) -> int:
    """Where a channel lies on its port: anywhere, but not at zero."""
    return (channel + 3) << 36


def pauses(seed: str, probability: float):
    """Pauses of one AXI channel."""
    rng = random.Random(seed)
    return (rng.random() < probability for _ in itertools.count())


class PinCard:
    """A card behind its pins, for blocking host code."""

    def __init__(self, dut, stall: float = 0.0):
        self.dut, self.config = dut, CONFIG
        logging.getLogger(f"cocotb.{dut._name}").setLevel(logging.WARNING)
        Clock(dut.ap_clk, NS, unit="ns").start()
        dut.ap_rst_n.value = 0
        pins = {"clock": dut.ap_clk, "reset": dut.ap_rst_n, "reset_active_level": False}
        self.control = AxiLiteMaster(AxiLiteBus.from_prefix(dut, CONTROL), **pins)
        self.memory = [AxiRam(AxiBus.from_prefix(dut, channel_prefix(channel)),
                              size=CONFIG.channel_bytes, **pins)
                       for channel in range(CONFIG.channels)]
        for number, memory in enumerate(self.memory):
            for name in ("read_if.ar", "read_if.r", "write_if.aw", "write_if.w", "write_if.b"):
                side, way = name.split(".")
                channel = getattr(getattr(memory, side), f"{way}_channel")
                if stall:
                    channel.set_pause_generator(pauses(f"{number} {name}", stall))

    async def begin(self) -> None:
        """Reset, and what a shell tells the card once."""
        self.dut.ap_rst_n.value = 0
        await ClockCycles(self.dut.ap_clk, 16)
        self.dut.ap_rst_n.value = 1
        await ClockCycles(self.dut.ap_clk, 8)
        for channel in range(CONFIG.channels):
            for part in range(2):
                await self.control.write_dword(
                    registers.CHANNEL_BASE + 8 * channel + 4 * part,
                    base(channel) >> 32 * part & 0xFFFFFFFF)
        for name in ("gie", "ier"):
            await self.control.write_dword(registers.CONTROL[name], 1)

    def _place(self, address: int):
        channel, offset = divmod(address, CONFIG.channel_bytes)
        return self.memory[channel], offset

    def write(self, address: int, data) -> None:
        memory, offset = self._place(address)
        memory.write(offset, bytes(data))

    def read(self, address: int, size: int) -> bytes:
        memory, offset = self._place(address)
        return bytes(memory.read(offset, size))

    async def _status(self) -> Status:
        return Status(tuple([
            await self.control.read_dword(registers.STATUS_BASE + 4 * k)
            for k in range(len(registers.STATUS))]))

    @resume
    async def identity(self) -> Identity:
        status = await self._status()
        return Identity(contract=status["contract"], configuration=status["configuration"],
                        commit=status["commit"], board="pins")

    @resume
    async def run(self, command_address: int, timeout: float) -> Status:
        place, control = base(0) + command_address, registers.CONTROL
        await self.control.write_dword(control["command_low"], place & 0xFFFFFFFF)
        await self.control.write_dword(control["command_high"], place >> 32)
        await self.control.write_dword(control["ap_ctrl"], 1)
        if not self.dut.interrupt.value:
            try:
                await with_timeout(RisingEdge(self.dut.interrupt), 400, "us")
            except TimeoutError as error:
                raise CardTimeout("the command did not end") from error
        await self.control.write_dword(control["isr"], 1)
        assert await self.control.read_dword(control["ap_ctrl"]) & 2
        status = await self._status()
        if status.error:
            raise CardStopped(status)
        return status


@cocotb.test(timeout_time=4, timeout_unit="ms")
@cocotb.parametrize(stall=[0.0, 0.3])
async def programs_give_the_memory_of_the_functional_card(dut, stall):
    card = PinCard(dut, stall)
    await card.begin()

    def host():
        check(card, config=CONFIG)
        sim = FunctionalCard(CONFIG)
        for number in range(3):
            case = programs.random_case(CONFIG, f"pins {stall} {number}", phrases=4, steps=1)
            assert case.run(card) == case.run(sim), case.name
        case, expected = programs.illegal_case(CONFIG, f"pins {stall}", phrases=2)
        found = case.run(card)
        assert found == case.run(sim)
        assert found.error == expected.error != Error.NONE
    await bridge(host)()


@cocotb.test(timeout_time=100, timeout_unit="us")
async def registers_that_are_none_answer_with_an_error(dut):
    card = PinCard(dut)
    await card.begin()
    for address in (0x18, 0x0FC):       # between the arguments, where XRT writes zeros
        assert (await card.control.read(address, 4)).resp == AxiResp.SLVERR
        assert (await card.control.write(address, bytes(4))).resp == AxiResp.OKAY
    for address in (registers.CHANNEL_BASE + 8 * CONFIG.channels, 0x7FC, 0xFFC):
        assert (await card.control.read(address, 4)).resp == AxiResp.SLVERR
        assert (await card.control.write(address, bytes(4))).resp == AxiResp.SLVERR
    assert (await card.control.write(registers.STATUS_BASE, bytes(4))).resp == AxiResp.SLVERR


@cocotb.test(timeout_time=400, timeout_unit="us")
async def a_reset_in_the_middle_of_a_command_brings_the_card_back(dut):
    card = PinCard(dut)
    await card.begin()
    words = [isa.encode("ADDI", rd=8, imm=20),
             isa.encode("LOAD", address=programs.DATA, rows=1, words=64),
             isa.encode("STORE", address=programs.OUT, words=64, wait=0),
             isa.encode("LOOP", rd=8, target=1), isa.encode("HALT")]
    case = programs.Case(CONFIG, "reset", words, [], {}, [], [], [])
    for address, data in case.command():
        card.write(address, data)
    place = base(0) + programs.RECORD * CONFIG.beat_bytes
    for cycles in (100, 400, 900):
        for name, value in (("command_low", place & 0xFFFFFFFF), ("command_high", place >> 32),
                            ("ap_ctrl", 1)):
            await card.control.write_dword(registers.CONTROL[name], value)
        await ClockCycles(dut.ap_clk, cycles)
        await card.begin()
        assert not dut.interrupt.value
        assert await card.control.read_dword(registers.CONTROL["ap_ctrl"]) == 4
    status = await bridge(card.run)(programs.RECORD * CONFIG.beat_bytes, 1)
    assert status["instructions"] == 62
