# SPDX-License-Identifier: Apache-2.0
"""Verilated cards as a board's shell sees them: AXI4-Lite accesses, the interrupt, DMA to HBM.

Only what the C++ of ``cardsim.rtl`` offers is used; no register is written but by the double's
owner.
"""

import ctypes
import pathlib
import types

from cardsim.rtl.timing import LinkTiming, Timing

WRITE, READ, RESET = range(3)
#: How a wait ended, by the number that the library returns.
ENDS = ("done", "limit", "violation", "finished")


class _Access(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("kind", "address", "data", "result")]


class Simulation:
    """The cards of one library, each with so many banks of HBM."""

    def __init__(self, library: pathlib.Path, cards: int, banks: int, bank_bytes: int,
                 beat_bytes: int, clock_mhz: float, link: LinkTiming):
        u32, u64, integer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int
        # As pyxrt does, calls hold the interpreter's lock: another thread runs between them only.
        lib = self._lib = ctypes.PyDLL(str(library))
        for name in ("heddle_hbm_write", "heddle_hbm_read"):
            getattr(lib, name).argtypes = [integer, integer, u64, ctypes.c_void_p, u64]
        lib.heddle_hbm_open.argtypes = [integer, integer, u64, u32, ctypes.c_void_p]
        lib.heddle_open.argtypes = [u32, u64, ctypes.c_void_p, u32]
        lib.heddle_begin.argtypes = [u32, ctypes.c_void_p, u64]
        lib.heddle_run.argtypes = [u64]
        lib.heddle_violation.restype = ctypes.c_char_p
        lib.heddle_cycles.restype = u64
        timing = Timing(clock_mhz=clock_mhz)
        lib.heddle_hbm_open(cards, banks, bank_bytes, beat_bytes,
                            ctypes.byref(timing.structure(None)))
        lib.heddle_open(beat_bytes, timing.seed, ctypes.byref(link.structure(clock_mhz)), 2)
        lib.heddle_cut.argtypes = [u32, u32, u64]
        for cut in link.cuts(types.SimpleNamespace(cards=cards)):
            lib.heddle_cut(*cut)

    def access(self, card: int, kind: int, address: int = 0, data: int = 0) -> int:
        """One access to the control port, or a reset; the word read or written."""
        made = _Access(kind, address, data, 0)
        self._lib.heddle_begin(card, ctypes.byref(made), 1)
        self._lib.heddle_settle()
        if made.result:
            raise RuntimeError(f"the AXI firewall tripped: access {kind} at {address:#x} "
                               f"ended with {made.result}")
        return made.data

    def write(self, card: int, bank: int, offset: int, data: memoryview) -> None:
        """DMA to HBM."""
        held = bytes(data)
        self._lib.heddle_hbm_write(card, bank, offset, held, len(held))

    def read(self, card: int, bank: int, offset: int, size: int) -> bytes:
        """DMA from HBM."""
        buffer = ctypes.create_string_buffer(size)
        self._lib.heddle_hbm_read(card, bank, offset, buffer, size)
        return buffer.raw

    def clock(self, card: int, cycles: int) -> bool:
        """Clock all cards until the interrupt of one, for at most so many cycles; if it came."""
        self._lib.heddle_await(card)
        self._lib.heddle_run(cycles)
        end = ENDS[self._lib.heddle_end(card)]
        if end not in ("done", "limit"):
            raise RuntimeError(f"card {card}: {end}: {self._lib.heddle_violation(card).decode()}")
        return end == "done"

    @property
    def cycles(self) -> int:
        return self._lib.heddle_cycles()
