# SPDX-License-Identifier: Apache-2.0
"""The child process of Verilated cards: takes calls from a pipe until it is closed.

Before each command the process forks, and the copy waits: if the command fails, the copy runs it
again from the same state and records the waveform of its end, so a failure costs nothing before it
happens.
"""

import ctypes
import multiprocessing.connection
import os
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from rtl_gen.spec import registers

from .command import INTERRUPT, Command, Outcome
from .model import Model, wave_file

#: Cycles between two looks at the clock and the parent.
SLICE = 20_000
#: Cycles before the end that a failure's waveform covers.
WAVE_CYCLES = 3_000


def die_with_parent() -> None:
    """Let the kernel end this process when its parent ends, however that happens."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Replay:
    """A copy of this process that can run the coming command again.

    Parameters
    ----------
    repeat : callable
        Called in the copy with the path of the waveform and the number of cycles that the command
        took.
    """

    def __init__(self, repeat: Callable[[str, int], None]) -> None:
        asks, self._ask = os.pipe()
        self._answers, answer = os.pipe()
        parent = os.getpid()
        self._child = os.fork()
        if self._child:
            os.close(asks)
            os.close(answer)
            return
        status = 1
        try:
            die_with_parent()
            os.close(self._ask)
            os.close(self._answers)
            request = os.read(asks, 4096) if os.getppid() == parent else b""
            if request:
                path, _, cycles = request.decode().rpartition(" ")
                repeat(path, int(cycles))
                os.write(answer, b"done")
                status = 0
        finally:
            os._exit(status)

    def record(self, path: str, cycles: int) -> bool:
        """Have the copy record; True if the waveform is there."""
        os.write(self._ask, f"{path} {cycles}".encode())
        return os.read(self._answers, 16) == b"done"

    def close(self) -> None:
        """End the copy."""
        os.close(self._ask)
        os.close(self._answers)
        os.waitpid(self._child, 0)


class Server:
    """Answers calls: (name, arguments) in, ("ok", result) or ("error", text) out."""

    def __init__(self, model: Model, waves: str | None) -> None:
        self.model, self._waves = model, waves
        self._interrupted = False
        signal.signal(INTERRUPT, self._interrupt)
        self.can_record = model.waves(None)

    def _interrupt(self, number: int, frame: object) -> None:
        self._interrupted = True

    def forget(self) -> None:
        """An interruption that came too late is none of the next command."""
        self._interrupted = False

    def write(self, card: int, address: int, data: bytes) -> None:
        self.model.memory_write(address, data, card)

    def read(self, card: int, address: int, size: int) -> bytes:
        return self.model.memory_read(address, size, card)

    def status(self, card: int) -> list[int]:
        return self.model.acknowledge_all([card])[card]

    def reset(self, card: int) -> None:
        self.model.reset(card)

    def cycles(self, card: int) -> int:
        return self.model.cycles

    def record(self, card: int, cycles: int) -> None:
        self.model.record(cycles, card)

    def events(self, card: int) -> bytes:
        return self.model.events(card)

    def run(self, commands: dict[int, Command], failure_waves: str) -> dict[int, Outcome]:
        """Run commands, by card, that start in one cycle; return when all have ended.

        A failed one leaves a waveform at ``failure_waves``, if there can be one.
        """
        replay = Replay(lambda path, cycles: self._repeat(commands, path, cycles)) \
            if self.can_record and failure_waves else None
        try:
            if self._waves:
                self.model.waves(self._waves)
            ends = self._carry_out(commands)
            words = self.model.acknowledge_all(
                card for card, (end, _) in ends.items() if end == "done")
            failed = {card: cycles for card, (end, cycles) in ends.items()
                      if end != "done" or words[card][registers.STATUS.index("error")]}
            # One card's failure makes the others fail: what happened first is of interest.
            recorded = bool(failed and replay and not self._interrupted
                            and replay.record(failure_waves, min(failed.values())))
            return {card: Outcome(
                end, cycles, words.get(card, []), self.model.violation_of(card),
                wave_file(failure_waves, card, self.model.config)
                if recorded and card in failed else None) for card, (end, cycles) in ends.items()}
        finally:
            if self._waves:
                self.model.waves(None)
            if replay:
                replay.close()

    def _carry_out(self, commands: dict[int, Command]) -> dict[int, tuple[str, int]]:
        """How each command ended, and its cycles."""
        model, before, begun = self.model, self.model.cycles, time.monotonic()
        piece = max(1, SLICE // model.config.cards)
        model.start_all({card: command.address for card, command in commands.items()})
        ends: dict[int, tuple[str, int]] = {}
        waiting = dict(commands)
        while waiting:
            left = min(command.limit for command in waiting.values()) - (model.cycles - before)
            model.clock(min(piece, max(left, 1)), waiting)
            cycles, seconds = model.cycles - before, time.monotonic() - begun
            for card, command in list(waiting.items()):
                end = model.end(card)
                if end != "limit":
                    ends[card] = end, model.ended_at(card) - before
                elif (cycles >= command.limit or seconds >= command.seconds
                      or self._interrupted or os.getppid() == 1):
                    ends[card] = end, cycles
                else:
                    continue
                del waiting[card]
        return ends

    def _repeat(self, commands: dict[int, Command], path: str, cycles: int) -> None:
        before = self.model.cycles
        self.model.start_all({card: command.address for card, command in commands.items()})
        quiet = cycles - WAVE_CYCLES - (self.model.cycles - before)
        if quiet > 0:
            self.model.clock(quiet, commands)
        self.model.waves(path)
        self.model.clock(cycles - (self.model.cycles - before) + 16, commands)
        self.model.waves(None)


def serve(connection: Connection, server: Server) -> None:
    """Answer until the host closes the pipe."""
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        if name.startswith("_"):
            raise RuntimeError(f"no such call: {name}")
        try:
            connection.send(("ok", getattr(server, name)(*arguments)))
        except (ValueError, RuntimeError) as error:
            connection.send(("error", str(error)))


def main() -> None:
    """``python -m cardsim.rtl.server FD``: the first message says which cards."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is the host's affair
    connection = multiprocessing.connection.Connection(int(sys.argv[1]))
    library, config, timing, link, threads, waves = connection.recv()
    try:
        model = Model(pathlib.Path(library), config, timing, link, threads)
        connection.send(("ok", None))
    except Exception:
        connection.send(("error", traceback.format_exc(limit=3)))
        return
    serve(connection, Server(model, waves))


if __name__ == "__main__":
    main()
