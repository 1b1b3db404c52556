# SPDX-License-Identifier: Apache-2.0
"""A card that computes nothing, but says what commands would cost."""

import numpy as np

from heddle.card import Identity, Status
from heddle.trace import trace
from rtl_gen.spec import contract, isa, registers
from rtl_gen.spec.config import CardConfig

from ..rtl.timing import LinkTiming, Timing
from .link import Ring
from .walk import Count, Walk


class EstimatedCard:
    """Takes commands as any card does; its memory holds what was written last at each address.

    No token that it gives is a stop token: a command takes all its steps.

    Parameters
    ----------
    config : CardConfig
    timing : Timing, optional
        Of the HBM model.
    link : LinkTiming, optional
        Of the links of a ring.
    ring : Ring, optional
        Where the other cards are found that it shares a model with.
    card : int
        Its number in the ring.
    """

    def __init__(self, config: CardConfig, timing: Timing | None = None,
                 link: LinkTiming | None = None, ring: Ring | None = None, card: int = 0) -> None:
        self.config, self._timing, self._link = config, timing or Timing(), link
        self._ring, self._card = ring or Ring(1), card
        self._memory: dict[int, bytes] = {}
        self._program: list[tuple[str, dict[str, int]]] = []

    def identity(self) -> Identity:
        return Identity(contract=contract.DIGEST, configuration=self.config.digest, commit=0,
                        board="estimate")

    @property
    def clock_mhz(self) -> float:
        return self._timing.clock(self.config)

    @property
    def channel_gbps(self) -> float:
        return min(self._timing.port_gbps(self.config), self._timing.average_gbps)

    @property
    def nominal_gbps(self) -> float:
        return self._timing.peak_gbps

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self._memory[address] = bytes(data)

    def read(self, address: int, size: int) -> bytes:
        for start, data in self._memory.items():
            if start <= address < start + len(data):
                return data[address - start:][:size].ljust(size, b"\0")
        return bytes(size)

    def reset(self) -> None:
        self._program.clear()
        self._ring.clear(self._card)

    def close(self) -> None:
        self._memory.clear()

    def run(self, command_address: int, timeout: float) -> Status:
        try:
            return self._run(command_address)
        except BaseException as error:
            # The neighbours must not wait forever.
            for side in range(2):
                self._ring.send(self._card, side, error)
            raise

    def _run(self, command_address: int) -> Status:
        beat = self.config.beat_bytes
        words = np.frombuffer(self.read(command_address, 4 * len(registers.COMMAND)), "<u4")
        command = {name: int(word) for name, word in zip(registers.COMMAND, words, strict=True)}
        if command["flags"] & registers.FLAG_LOAD:
            image = self.read(command["program"] * beat, command["instructions"] * isa.WORD_BYTES)
            self._program = [
                isa.decode(int.from_bytes(image[at:at + isa.WORD_BYTES], "little"))
                for at in range(0, len(image), isa.WORD_BYTES)]
        given = np.frombuffer(self.read(command["tokens"] * beat, 4 * command["given"]), "<u4")
        values = {int(register): command[f"r{register:d}"] for register in isa.Register}
        steps = trace(self._program, values, given=given.tolist(), start=command["entry"],
                      limit=1 << 40)
        count = Walk(self.config, self._timing, self._link, ring=self._ring, card=self._card,
                     given=command["given"]).run(steps)
        self.write(command["results"] * beat, self._record(command["result_beats"])
                   * (count.steps * self.config.tokens))
        return _status(count)

    def _record(self, beats: int) -> bytes:
        """A result: token 0, of a sum of exponentials of 1."""
        words = {"sum": 0x3F80_0000, "target": registers.NO_TARGET}
        return np.array([words.get(name, 0) for name in registers.RESULT], "<u4").tobytes().ljust(
            beats * self.config.beat_bytes, b"\0")


def _status(count: Count) -> Status:
    """A status record with these counters."""
    values = {"steps": count.steps}
    for name in (name for name in registers.STATUS if name.endswith("_low")):
        value = getattr(count, name.removesuffix("_low"))
        values[name] = value & 0xFFFF_FFFF
        values[name.replace("_low", "_high")] = value >> 32
    return Status(tuple(values.get(name, 0) for name in registers.STATUS))
