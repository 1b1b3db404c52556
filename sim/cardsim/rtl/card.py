# SPDX-License-Identifier: Apache-2.0
"""The host's end of a Verilated card."""

import dataclasses
import multiprocessing.connection
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from heddle.card import CardError, CardStopped, CardTimeout, Identity, Status
from rtl_gen.spec import registers
from rtl_gen.spec.config import CardConfig

from . import build
from . import events as event_log
from .timing import Timing

#: Cycles after which a command is given up, unless the caller says otherwise.
CYCLE_LIMIT = 2_000_000_000


class RtlCard:
    """A simulated card with true cycles.

    Parameters
    ----------
    config : CardConfig
    timing : Timing
        Of the HBM model.
    waves : str, optional
        Record every command to this VCD file (slow and large).
    trace : bool
        Build the card so that it can record: a command that fails then leaves a waveform of its
        end.
        Also on with ``HEDDLE_TRACE=1`` in the environment.
    events : bool
        Record what happens in every cycle, for :meth:`events`.
    cycle_limit : int
        Give a command up after so many cycles.
    say : callable
        Is told in a few words what takes long.
    """

    def __init__(self, config: CardConfig, *, timing: Timing | None = None,
                 waves: str | None = None, trace: bool = False, events: bool = False,
                 cycle_limit: int = CYCLE_LIMIT,
                 say: Callable[[str], None] = lambda text: None) -> None:
        self.config, self._cycle_limit = config, cycle_limit
        self._timing = timing or Timing()
        self._trace = bool(trace or waves or os.environ.get("HEDDLE_TRACE"))
        library = build.library(config, trace=self._trace, say=say)
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cardsim.rtl.server", str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._pipe = multiprocessing.connection.Connection(ours.detach())
        self._end = weakref.finalize(self, _end, self._process, self._pipe)
        self._folder = tempfile.gettempdir()
        self._pipe.send((str(library), dataclasses.asdict(config),
                         dataclasses.asdict(self._timing), waves))
        self._answer()
        self._events = events
        if events:
            self._call("record", event_log.cycles_kept(config))

    def _answer(self) -> Any:
        try:
            kind, value = self._pipe.recv()
        except (EOFError, OSError):
            status = self._process.wait()
            raise CardError(f"the simulated card's process ended with status {status}; "
                            "open the card again") from None
        if kind == "error":
            raise CardError(value)
        return value

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            self._pipe.send((name, arguments))
        except (OSError, ValueError):
            raise CardError("the simulated card is closed or its process has ended; "
                            "open the card again") from None
        return self._answer()

    def identity(self) -> Identity:
        words = self._call("status")
        read = dict(zip(registers.STATUS, words, strict=True))
        return Identity(contract=read["contract"], configuration=read["configuration"],
                        commit=read["commit"], board="rtl")

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self._call("write", address, bytes(data))

    def read(self, address: int, size: int) -> bytes:
        return bytes(self._call("read", address, size))

    def reset(self) -> None:
        self._call("reset")

    @property
    def clock_mhz(self) -> float:
        return self._timing.clock(self.config)

    @property
    def channel_gbps(self) -> float:
        return min(self._timing.port_gbps(self.config), self._timing.average_gbps)

    @property
    def nominal_gbps(self) -> float:
        return self._timing.peak_gbps

    @property
    def cycles(self) -> int:
        """Cycles simulated since the card was opened."""
        return int(self._call("cycles"))

    def events(self) -> npt.NDArray[np.void]:
        """What happened in every cycle since the last call (or the opening); it is forgotten then.

        Returns
        -------
        array of records, one a cycle
            With the fields of ``rtl_gen.spec.events``, and ``channels``: a byte of each channel, of
            the bits :class:`~cardsim.rtl.events.Activity`.

        Raises
        ------
        CardError
            The card does not record, or more cycles have gone by than are kept.
        """
        if not self._events:
            raise CardError("the card records no events: open it with events=True")
        kept = event_log.cycles_kept(self.config)
        found = event_log.decode(self._call("events"), self.config)
        self._call("record", kept)
        if len(found) >= kept:
            raise CardError(f"a command must take less than {kept} cycles while events are "
                            "recorded: give the card fewer steps")
        return found

    def run(self, command_address: int, timeout: float) -> Status:
        waves = str(pathlib.Path(self._folder) / f"heddle-{self._process.pid}.vcd")
        end, cycles, words, violation, recorded = self._call(
            "run", command_address, timeout, self._cycle_limit, waves)
        where = f"; waveform of the last cycles: {recorded}" if recorded else \
            "" if self._trace else "; for a waveform of its end, repeat it with HEDDLE_TRACE=1"
        if violation:
            raise CardError(f"the card broke the AXI protocol: {violation}{where}")
        if end == "finished":
            raise CardError(f"an assertion in the card failed after {cycles} cycles{where}")
        if end == "limit":
            raise CardTimeout(f"the command must end within {timeout:g} s and {self._cycle_limit} "
                              f"cycles, not run on after {cycles} cycles{where}")
        status = Status(tuple(words))
        if status.error:
            stopped = CardStopped(status)
            if where:
                stopped.add_note(where.removeprefix("; "))
            raise stopped
        return status

    def close(self) -> None:
        self._end()


def _end(process: subprocess.Popen[bytes], pipe: Connection) -> None:
    """Close the pipe, which ends the child; kill it if that does not."""
    pipe.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def open_card(config: CardConfig, index: int, *, clock_mhz: float | None = None,
              latency_ns: float | None = None, **options: Any) -> RtlCard:
    """Entry point ``rtl`` of ``heddle.cards``.

    Parameters
    ----------
    config : CardConfig
    index : int
        Number of the card among those opened together.
    clock_mhz, latency_ns : float, optional
        Of the :class:`Timing`, for callers that cannot make one.
    options
        Of :class:`RtlCard`.
    """
    given = {name: value for name, value in (("clock_mhz", clock_mhz), ("latency_ns", latency_ns))
             if value is not None}
    if given:
        options["timing"] = dataclasses.replace(options.get("timing") or Timing(), **given)
    return RtlCard(config, **options)
