# SPDX-License-Identifier: Apache-2.0
"""``python -m cardsim.board``: simulate the ULX3S until Ctrl-C.

    python -m cardsim.board --baud 6.25e6 &
    HEDDLE_PORT=/dev/pts/5 heddle run sw/models/shakespeare-gpt2 --cards uart:ulx3s --prompt ROMEO.
"""

import argparse
import contextlib
import signal
import sys
from typing import TextIO

from rtl_gen.boards import ulx3s

from .process import BoardProcess


def _tell(text: str, where: TextIO = sys.stdout) -> None:
    where.write(f"{text}\n")
    where.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cardsim.board", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baud", type=float, default=ulx3s.BAUD,
                        help="of the serial line; what is fast here need not exist "
                             "(default: that of the board, %(default)g)")
    parser.add_argument("--faults", type=int, default=0,
                        help="bytes of a thousand that the line changes, loses or doubles")
    arguments = parser.parse_args()
    board = ulx3s.board(baud=arguments.baud, power_up=2000.0)
    with BoardProcess(board, faults=arguments.faults,
                      say=lambda text: _tell(text, sys.stderr)) as process:
        _tell(f"HEDDLE_PORT={process.port}")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    _tell(f"{process.cycles} cycles")


if __name__ == "__main__":
    main()
