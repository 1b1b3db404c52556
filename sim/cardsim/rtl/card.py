# SPDX-License-Identifier: Apache-2.0
"""The host's end of a Verilated card."""

import dataclasses
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from heddle.card import CardError, CardStopped, CardTimeout, Identity, Status
from rtl_gen.spec import registers
from rtl_gen.spec.config import CardConfig

from . import events as event_log
from .command import Command
from .simulation import Simulation
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
    trace : bool
        Build the card so that it can record: a command that fails then leaves a waveform of its
        end.
        Also on with ``HEDDLE_TRACE=1`` in the environment.
    events : bool
        Record what happens in every cycle, for :meth:`events`.
    cycle_limit : int
        Give a command up after so many cycles.
    simulation : Simulation, optional
        Where the card is simulated; by itself if not given.
    index : int
        Its number there.
    options
        Of :class:`~cardsim.rtl.simulation.Simulation`, if none is given.
    """

    def __init__(self, config: CardConfig, *, timing: Timing | None = None, trace: bool = False,
                 events: bool = False, cycle_limit: int = CYCLE_LIMIT,
                 simulation: Simulation | None = None, index: int = 0, **options: Any) -> None:
        if simulation is None and config.cards > 1:
            raise ValueError(f"a ring of {config.cards} cards must be opened as a whole: use "
                             "open_cards")
        self.config, self.index = config, index
        self._cycle_limit, self._events = cycle_limit, events
        self._timing = timing or Timing()
        self._simulation = simulation or Simulation(
            config, timing=self._timing, trace=traced(trace, options.get("waves")), **options)
        if events:
            self._call("record", event_log.cycles_kept(config))

    def _call(self, name: str, *arguments: Any) -> Any:
        return self._simulation.call(name, self.index, *arguments)

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
        """See :meth:`heddle.card.Card.run`.

        Commands of a ring's cards start in one cycle: a card waits until all have been started, or
        for :data:`~cardsim.rtl.simulation.PATIENCE`, and returns when all that were have ended.
        """
        found = self._simulation.run(
            self.index, Command(command_address, timeout, self._cycle_limit))
        where = f"; waveform of the last cycles: {found.waves}" if found.waves else \
            "" if self._simulation.trace else \
            "; for a waveform of its end, repeat it with HEDDLE_TRACE=1"
        if found.violation:
            raise CardError(f"the card broke the AXI protocol: {found.violation}{where}")
        if found.end == "finished":
            raise CardError(f"an assertion in the card failed after {found.cycles} cycles{where}")
        if found.end == "limit":
            raise CardTimeout(f"the command must end within {timeout:g} s and {self._cycle_limit} "
                              f"cycles, not run on after {found.cycles} cycles{where}")
        status = Status(tuple(found.words))
        if status.error:
            stopped = CardStopped(status)
            if where:
                stopped.add_note(where.removeprefix("; "))
            raise stopped
        return status

    def close(self) -> None:
        self._simulation.close(self.index)


def traced(trace: bool, waves: str | None) -> bool:
    """Whether cards are to be built so that they can record waveforms."""
    return bool(trace or waves or os.environ.get("HEDDLE_TRACE"))


def open_cards(config: CardConfig, *, timing: Timing | None = None, clock_mhz: float | None = None,
               latency_ns: float | None = None, trace: bool = False, events: bool = False,
               cycle_limit: int = CYCLE_LIMIT, **options: Any) -> list[RtlCard]:
    """Open the cards of a ring (entry point ``rtl`` of the group ``heddle.cards``).

    Parameters
    ----------
    config : CardConfig
    timing, trace, events, cycle_limit
        As for :class:`RtlCard`.
    clock_mhz, latency_ns : float, optional
        Of the :class:`Timing`, for callers that cannot make one.
    options
        Of :class:`~cardsim.rtl.simulation.Simulation`.
    """
    parameters = {"clock_mhz": clock_mhz, "latency_ns": latency_ns}
    given: dict[str, Any] = {name: value for name, value in parameters.items() if value is not None}
    timing = dataclasses.replace(timing or Timing(), **given)
    simulation = Simulation(config, timing=timing, trace=traced(trace, options.get("waves")),
                            **options)
    return [RtlCard(config, timing=timing, events=events, cycle_limit=cycle_limit,
                    simulation=simulation, index=index) for index in range(config.cards)]
