# SPDX-License-Identifier: Apache-2.0
"""An SDR SDRAM as its data sheet has it: what it stores, and which commands it may get when."""

import random

from rtl_gen.boards.sdram import ALL_BANKS, Chip, Command

NEVER = -10**9


class SdramChip:
    """The chip at the pins of a controller, clocked at the falling edge: it sees the pins as they
    are half a cycle after the controller's clock.

    Every command is checked against the times of ``chip``, in ns, from power-up on.  What is
    driven when nothing is read is noise.
    """

    def __init__(self, chip: Chip, *, clock_hz: float, power_up: float, seed: str) -> None:
        self.chip, self.period, self.power_up = chip, 1e9 / clock_hz, power_up
        self.rng = random.Random(seed)
        self.content: dict[tuple[int, int, int], int] = {}
        self.row = [None] * 4                   # open rows
        self.opened, self.closed, self.written = [NEVER] * 4, [NEVER] * 4, [NEVER] * 4
        self.refreshes: list[float] = []
        self.mode, self.mode_set = None, NEVER
        self.now, self.cycle, self.commands = 0.0, 0, 0
        # The word on dq, by cycle; the last cycle of the controller in which the chip drives.
        self.drives: dict[int, int] = {}
        self.busy = 0

    def check(self, holds: bool, what: str) -> None:
        assert holds, f"cycle {self.cycle}: {what}"

    def since(self, moment: float, least: float, what: str) -> None:
        passed = self.now - moment
        self.check(passed >= least - 1e-6, f"{what} must be {least:g} ns ago, not {passed:g}")

    def clock(self, pins: dict[str, int]) -> int:
        """One cycle with these pins; what the controller finds on dq at its next clock edge."""
        self.cycle += 1
        self.now = self.cycle * self.period
        self.check(self.cycle > self.busy or not pins["dq_oe"], "both ends drive dq")
        command = pins["ras_n"] << 2 | pins["cas_n"] << 1 | pins["we_n"]
        if pins["cke"] and not pins["cs_n"] and command != Command.NOP:
            self._carry_out(command, pins)
        reads = self.drives.pop(self.cycle, None)
        return self.rng.getrandbits(Chip.BITS) if reads is None else reads

    def _carry_out(self, command: int, pins: dict[str, int]) -> None:
        chip, bank, address = self.chip, pins["ba"], pins["a"]
        self.commands += 1
        self.since(0, self.power_up, "power-up")
        self.since(self.refreshes[-1] if self.refreshes else NEVER, chip.rfc, "REFRESH")
        self.since(self.mode_set, chip.mrd * self.period, "MODE")
        if command == Command.PRECHARGE:
            every = address >> ALL_BANKS & 1
            for k in range(4) if every else [bank]:
                if self.row[k] is not None:
                    self.since(self.opened[k], chip.ras, f"ACTIVATE of bank {k}")
                    self.since(self.written[k], chip.wr, f"the last word written to bank {k}")
                self.row[k], self.closed[k] = None, self.now
        elif command == Command.REFRESH:
            self.check(self.row == [None] * 4, "REFRESH needs all banks closed")
            self.since(max(self.closed), chip.rp, "PRECHARGE")
            self.refreshes.append(self.now)
        elif command == Command.MODE:
            self.check(self.row == [None] * 4, "MODE needs all banks closed")
            self.check(len(self.refreshes) >= 2, "MODE needs two refreshes before it")
            self.mode, self.mode_set = address, self.now
            self.check(address & 7 == 0 and address >> 4 & 7 == chip.cas and address >> 9 & 1,
                       f"the mode must be single words with CAS latency {chip.cas}")
        else:
            self.check(self.mode is not None, "a command before MODE")
            if command == Command.ACTIVATE:
                self.check(self.row[bank] is None, f"bank {bank} is open")
                self.since(self.closed[bank], chip.rp, f"PRECHARGE of bank {bank}")
                self.since(self.opened[bank], chip.rc, f"ACTIVATE of bank {bank}")
                self.since(max(self.opened), chip.rrd, "ACTIVATE of another bank")
                self.row[bank], self.opened[bank] = address, self.now
            else:
                self._move(command, bank, address, pins)

    def _move(self, command: int, bank: int, address: int, pins: dict[str, int]) -> None:
        self.check(self.row[bank] is not None, f"bank {bank} is closed")
        self.check(address >> self.chip.column_bits == 0, "no automatic precharge")
        self.check(pins["dqm"] == 0, "bytes are masked")
        self.since(self.opened[bank], self.chip.rcd, f"ACTIVATE of bank {bank}")
        place = bank, self.row[bank], address
        if command == Command.READ:
            # Half a cycle ago to CAS latency - 1 cycles later, and for a cycle: at the
            # controller's edge within that the word is there, and with it two of its cycles.
            came = self.cycle + self.chip.cas - 2
            self.drives[came] = self.content.get(place, 0)
            self.busy = came + 2
        else:
            self.check(pins["dq_oe"] == 1, "WRITE without data")
            self.content[place] = pins["dq_o"]
            self.written[bank] = self.now


def bench(chip: SdramChip, pins):
    """Background bench: the chip at the controller's ``pins``."""
    async def run(ctx):
        names = [name for name in pins.signature.members if name != "dq_i"]
        while True:
            _, _, *values = await ctx.tick().sample(*(getattr(pins, name) for name in names))
            # Sampled before this edge: what the controller showed since the last one.
            ctx.set(pins.dq_i, chip.clock(dict(zip(names, values, strict=True))))
    return run
