# SPDX-License-Identifier: Apache-2.0
"""The process that simulates a board."""

import re
import subprocess
from collections.abc import Callable
from types import TracebackType

from heddle.card import CardError
from rtl_gen.boards import Board

from . import build

#: Of the chip, in the order of ``heddle::Chip``.
_CHIP = ("row_bits", "column_bits", "cas", "mrd", "rcd", "rp", "rc", "ras", "rrd", "wr", "rfc",
         "retention")


class BoardProcess:
    """A simulated board, until it is closed.

    Parameters
    ----------
    board : Board
    faults : int
        Of a thousand bytes on the line, in each direction, so many are changed, lost or doubled.
    seed : int
        Of faults, and of registers that the design does not set.
    say : callable
        Is told in a few words what takes long.

    Attributes
    ----------
    port : str
        The serial port of the board.
    cycles : int
        Clock cycles that were simulated; known when it is closed.
    """

    def __init__(self, board: Board, *, faults: int = 0, seed: int = 1,
                 say: Callable[[str], None] = lambda text: None) -> None:
        program = build.program(board, say)
        power_up = board.chip.power_up if board.power_up is None else board.power_up
        values = (board.clock_hz, board.baud, power_up, faults, seed,
                  *(getattr(board.chip, name) for name in _CHIP))
        self.cycles = 0
        self._process = subprocess.Popen(
            [program, *(f"{value:.17g}" for value in values)], text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = self._process.stdout.readline().strip()
        if not self.port:
            self.close()
            raise CardError("the simulated board has ended at once")

    def __enter__(self) -> "BoardProcess":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the board.

        Raises
        ------
        CardError
            It ended before, because the SDRAM was given a command at a wrong time.
        """
        if self._process.poll() is None:
            self._process.terminate()
        output, errors = self._process.communicate()
        if found := re.search(r"(\d+) cycles", output):
            self.cycles = int(found[1])
        if self._process.returncode:
            raise CardError(f"the simulated board ended with status {self._process.returncode}: "
                            f"{errors.strip()}")
