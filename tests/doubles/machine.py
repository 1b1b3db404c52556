# SPDX-License-Identifier: Apache-2.0
"""The boards in the double's machine: what is plugged in, which bitstream is loaded, free memory.
"""

import dataclasses
import re

from cardsim.rtl.timing import LinkTiming
from tests.doubles.package import Package
from tests.doubles.simulation import READ, RESET, WRITE, Simulation

#: By platform that a bitstream is linked for: the shell's name, banks, bytes of each.
PLATFORMS = {
    "xilinx_u280_gen3x16_xdma_1_202211_1": ("xilinx_u280_gen3x16_xdma_base_1", 32, 1 << 28),
    "xilinx_u55c_gen3x16_xdma_3_202210_1": ("xilinx_u55c_gen3x16_xdma_base_3", 32, 1 << 29)}
CTRL, GIER, IP_IER, IP_ISR, FIRST = 0x0, 0x4, 0x8, 0xC, 0x10
PAGE = 4096


@dataclasses.dataclass
class Board:
    """A board in a slot."""

    shell: str
    bdf: str
    #: Its place in the ring that cables make of all boards, or the only one.
    place: int = 0
    package: Package | None = None
    simulation: Simulation | None = None
    taken: bool = False
    #: By bank: (offset, bytes) of buffers.
    buffers: dict = dataclasses.field(default_factory=dict)

    @property
    def geometry(self) -> tuple[int, int]:
        return next((banks, size) for shell, banks, size in PLATFORMS.values()
                    if shell == self.shell)

    def allocate(self, bank: int, size: int) -> int:
        """Offset of a new buffer in a bank; the first one does not lie at the bank's start unless
        it must, so that nobody is right who takes one for the other."""
        room, held = self.geometry[1], self.buffers.setdefault(bank, [])
        size = -(-size // PAGE) * PAGE
        for start in (3 * PAGE, 0, *(offset + length for offset, length in held)):
            if start + size <= room and all(
                    start + size <= offset or offset + length <= start for offset, length in held):
                held.append((start, size))
                return start
        raise RuntimeError("[XRT] ERROR: failed to allocate buffer object: Cannot allocate memory")

    def free(self, bank: int, offset: int) -> None:
        self.buffers[bank] = [held for held in self.buffers[bank] if held[0] != offset]

    def write(self, address: int, word: int) -> None:
        self.simulation.access(self.place, WRITE, address, word)

    def read(self, address: int) -> int:
        return self.simulation.access(self.place, READ, address)

    def reset(self) -> None:
        self.simulation.access(self.place, RESET)


class Machine:
    """Boards, and the cables of a ring among them if there are several."""

    def __init__(self, boards: int = 1, shell: str = "xilinx_u280_gen3x16_xdma_base_1",
                 link: LinkTiming | None = None):
        self.link = link or LinkTiming()
        self.boards = [Board(shell, f"0000:{0x3b + 0x20 * k:02x}:00.1", place=k)
                       for k in range(boards)]
        #: What a test wants every run to end with, instead of what it does.
        self.outcome: str | None = None
        #: What a call raises the next time, by its name.
        self.raises: dict[str, BaseException] = {}
        #: Accesses and events, as the driver makes them.
        self.log: list[tuple] = []

    def called(self, name: str) -> None:
        """Raise what a test wants this call to raise, once."""
        if error := self.raises.pop(name, None):
            raise error

    def find(self, which: int | str) -> Board:
        if isinstance(which, int):
            if which >= len(self.boards):
                raise RuntimeError(f"could not open device with index '{which}'")
            return self.boards[which]
        for board in self.boards:
            if re.fullmatch(rf"(0000:)?{board.bdf.removeprefix('0000:')}", which):
                return board
        raise RuntimeError(f"could not open device with BDF '{which}'")

    def load(self, board: Board, package: Package) -> None:
        """Load a bitstream; boards that cables join are one simulation."""
        expected = PLATFORMS[package.platform][0]
        if expected != board.shell:
            raise RuntimeError("failed to load xclbin: Invalid argument")
        if board.package and board.package.uuid == package.uuid:
            return
        links = package.links()
        group = self.boards if links else [board]
        if links:
            assert links == {"previous": "aurora_flow_0", "next": "aurora_flow_1"}, \
                "cables go from QSFP1 to QSFP0 of the next board"
        first = next((other for other in group
                      if other.package and other.package.uuid == package.uuid), None)
        if first is None:
            banks, size = board.geometry
            width = int(package.ports[package.masters[0]].get("dataWidth")) // 8
            board.simulation = Simulation(package.library(len(group)), len(group), banks, size,
                                          width, 100.0, self.link)
        else:
            board.simulation = first.simulation
        board.package = package
        if not links:
            board.place = 0
        board.reset()


#: The machine that `import pyxrt` finds itself in; tests put their own here.
here = Machine()
