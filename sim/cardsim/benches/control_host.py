# SPDX-License-Identifier: Apache-2.0
"""What control has around it: a host on its AXI4-Lite port, and the memory of channel 0."""

import logging
import random
from collections.abc import Sequence
from typing import Any

from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiSlave

from rtl_gen.spec import registers
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.registers import COMMAND, CONTROL, FLAG_LOAD, NO_STOP, STATUS, STATUS_BASE

from .axi import OKAY, hold_back, watch_requests
from .streams import reset

#: Beats from the first that is used, of record, program, given tokens, status and results.
RECORD, PROGRAM, TOKENS, STATUS_AT, RESULTS, END = 0, 0x100, 0x9000, 0xA000, 0xA100, 0xB000
#: ns that a command may take.
LIMIT = 400_000
#: Bits of ``ap_ctrl``.
START, DONE, IDLE, READY = 1, 2, 4, 8


class Store:
    """Beats by byte address: what was never written, and what is in ``bad``, cannot be read."""

    def __init__(self, beat_bytes: int) -> None:
        self.beat_bytes = beat_bytes
        self.beats: dict[int, bytes] = {}
        #: Byte addresses that answer SLVERR.
        self.bad: set[int] = set()

    async def read(self, address: int, length: int) -> bytes:
        if address in self.bad:
            raise KeyError(address)
        return self.beats[address]

    async def write(self, address: int, data: bytes) -> None:
        if address in self.bad:
            raise KeyError(address)
        assert len(data) == self.beat_bytes
        self.beats[address] = bytes(data)

    def put(self, address: int, words: Sequence[int]) -> None:
        """Write 32-bit words, the last beat filled up with zeros."""
        data = b"".join(word.to_bytes(4, "little") for word in words)
        data += bytes(-len(data) % self.beat_bytes)
        for place in range(0, len(data), self.beat_bytes):
            self.beats[address + place] = data[place:place + self.beat_bytes]

    def get(self, address: int, count: int) -> list[int]:
        """The words that lie there."""
        data = b"".join(self.beats[address + place]
                        for place in range(0, 4 * count, self.beat_bytes))
        return [int.from_bytes(data[4 * k:4 * k + 4], "little") for k in range(count)]


class Host:
    """Writes commands, starts them, and reads what they leave.

    Parameters
    ----------
    dut : handle
    config : CardConfig
    stall : float
        Chance that memory, and the host, hold back in a cycle.
    seed : str
    """

    def __init__(self, dut: Any, config: CardConfig, stall: float, seed: str) -> None:
        self.dut, self.config, self.rng = dut, config, random.Random(f"{seed} host")
        for port, level in (("m_axi", logging.ERROR), ("s_axi_control", logging.WARNING)):
            logging.getLogger(f"cocotb.{dut._name}.{port}").setLevel(level)
        self.memory = Store(config.beat_bytes)
        slave = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.aclk, dut.aresetn, self.memory,
                         reset_active_level=False)
        self.lite = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi_control"), dut.aclk,
                                  dut.aresetn, reset_active_level=False)
        hold_back(slave, stall)
        hold_back(self.lite, stall)
        beat = config.beat_bytes
        self.bases = [self.rng.getrandbits(50) * beat for _ in range(config.channels)]
        #: Beat of channel 0 from which on all lies.
        self.origin = self.rng.randrange(config.channel_beats - END)

    async def begin(self) -> None:
        """Reset, then write the addresses and switch the interrupt on."""
        await reset(self.dut)
        watch_requests(self.dut, self.config.beat_bytes)
        await self.set_up()

    async def set_up(self) -> None:
        """What the registers need after a reset."""
        for k, base in enumerate(self.bases):
            for part in range(2):
                await self.write(registers.CHANNEL_BASE + 8 * k + 4 * part,
                                 base >> 32 * part & 0xFFFFFFFF)
        for name in ("gie", "ier"):
            await self.write(CONTROL[name], 1)

    async def write(self, address: int, value: int, response: int = OKAY) -> None:
        """Write a register, which must answer ``response``."""
        done = await self.lite.write(address, value.to_bytes(4, "little"))
        assert done.resp == response, f"{address:#x}: response {done.resp}"

    async def read(self, address: int, response: int = OKAY, count: int = 1) -> list[int]:
        """Read registers, which must answer ``response``."""
        done = await self.lite.read(address, 4 * count)
        assert done.resp == response, f"{address:#x}: response {done.resp}"
        return [int.from_bytes(done.data[4 * k:4 * k + 4], "little") for k in range(count)]

    def address(self, beat: int) -> int:
        """Byte address of a beat of channel 0, counted from ``origin``."""
        return self.bases[0] + (self.origin + beat) * self.config.beat_bytes

    def load(self, program: Sequence[int], prompt: Sequence[int] = (), /,
             **values: int) -> dict[str, int]:
        """Write a command with given tokens; its record by names, changed by ``values``."""
        record = {"magic": registers.COMMAND_MAGIC, "flags": FLAG_LOAD,
                  "program": self.origin + PROGRAM, "instructions": len(program),
                  "tokens": self.origin + TOKENS, "given": len(prompt),
                  "status": self.origin + STATUS_AT, "results": self.origin + RESULTS,
                  "result_beats": 2, **{f"stop{k}": NO_STOP for k in range(4)}} | values
        record = {name: record.get(name, 0) for name in COMMAND}
        self.memory.put(self.address(RECORD), list(record.values()))
        self.memory.put(self.address(PROGRAM),
                        [word >> 32 * k & 0xFFFFFFFF for word in program for k in range(8)])
        self.memory.put(self.address(TOKENS), prompt)
        self.memory.put(self.address(STATUS_AT), [0] * len(STATUS))
        return record

    async def start(self, at: int | None = None) -> None:
        """Start the command whose record is at byte address ``at``."""
        at = self.address(RECORD) if at is None else at
        await self.write(CONTROL["command_low"], at & 0xFFFFFFFF)
        await self.write(CONTROL["command_high"], at >> 32)
        await self.write(CONTROL["ap_ctrl"], START)

    async def end(self, limit: int = LIMIT) -> dict[str, int]:
        """Wait for the interrupt and clear it; the status window by names."""
        if not self.dut.interrupt.value:
            await with_timeout(RisingEdge(self.dut.interrupt), limit, "ns")
        await self.write(CONTROL["isr"], 1)
        assert await self.read(CONTROL["ap_ctrl"]) == [DONE | IDLE | READY]
        return dict(zip(STATUS, await self.read(STATUS_BASE, count=len(STATUS)), strict=True))
