# SPDX-License-Identifier: Apache-2.0
"""The host's end of a Verilated card."""

import copy
import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from heddle.card import CardError, CardStopped, CardTimeout, Identity, Status
from rtl_gen.spec import registers
from rtl_gen.spec.config import CardConfig

from . import build
from . import events as event_log
from .simulation import Simulation, threads_for
from .timing import LinkTiming, Timing

#: Cycles after which a command is given up, unless the caller says otherwise.
CYCLE_LIMIT = 2_000_000_000


class RtlCard:
    """A simulated card with true cycles; of a ring the first, see :meth:`others`.

    Parameters
    ----------
    config : CardConfig
    timing : Timing
        Of the HBM model.
    link : LinkTiming
        Of the links of a ring.
    threads : int
        On which the cards of a ring are simulated; as many as there are processors.
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
                 link: LinkTiming | None = None, threads: int | None = None,
                 waves: str | None = None, trace: bool = False, events: bool = False,
                 cycle_limit: int = CYCLE_LIMIT,
                 say: Callable[[str], None] = lambda text: None) -> None:
        self.config, self._cycle_limit = config, cycle_limit
        self._timing = timing or Timing()
        self._trace = bool(trace or waves or os.environ.get("HEDDLE_TRACE"))
        self._events, self._index, self._closed = events, 0, False
        library = build.library(config, trace=self._trace, say=say)
        self._simulation = Simulation(
            library, config, self._timing, link or LinkTiming(), waves=waves,
            threads=threads_for(config.cards) if threads is None else threads)
        self._record()

    def _record(self) -> None:
        if self._events:
            self._call("record", event_log.cycles_kept(self.config))

    def others(self) -> "list[RtlCard]":
        """The other cards of this one's ring, from the first: this is card 0."""
        found = []
        for index in range(1, self.config.cards):
            card = copy.copy(self)
            card._index = index
            card._record()
            found.append(card)
        return found

    def _call(self, name: str, *arguments: Any) -> Any:
        if self._closed:
            raise CardError("the simulated card is closed or its process has ended; "
                            "open the card again")
        return self._simulation.call(name, self._index, *arguments)

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
        if self._closed:
            self._call("")
        end, cycles, words, violation, recorded = self._simulation.run(
            self._index, command_address, timeout, self._cycle_limit)
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
        if not self._closed:
            self._closed = True
            self._simulation.close(self._index)


def open_cards(config: CardConfig, *, clock_mhz: float | None = None,
               latency_ns: float | None = None, **options: Any) -> list[RtlCard]:
    """Open the cards of a ring (entry point ``rtl`` of the group ``heddle.cards``).

    Parameters
    ----------
    config : CardConfig
    clock_mhz, latency_ns : float, optional
        Of the :class:`Timing`, for callers that cannot make one.
    options
        Of :class:`RtlCard`.
    """
    given = {name: value for name, value in (("clock_mhz", clock_mhz), ("latency_ns", latency_ns))
             if value is not None}
    if given:
        options["timing"] = dataclasses.replace(options.get("timing") or Timing(), **given)
    first = RtlCard(config, **options)
    return [first, *first.others()]
