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

from rtl_gen.spec.config import CardConfig

from .model import Model
from .timing import LinkTiming, Timing

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
    """Answers calls: (name, arguments) in, ("ok", result) or ("error", kind, text) out."""

    def __init__(self, model: Model, waves: str | None) -> None:
        self.model, self._waves = model, waves
        self.can_record = model.waves(None)

    def write(self, card: int, address: int, data: bytes) -> None:
        self.model.memory_write(address, data, card)

    def read(self, card: int, address: int, size: int) -> bytes:
        return self.model.memory_read(address, size, card)

    def status(self, card: int) -> list[int]:
        return self.model.acknowledge(card)

    def reset(self, card: int) -> None:
        self.model.reset(card)

    def cycles(self, card: int) -> int:
        return self.model.cycles

    def record(self, card: int, cycles: int) -> None:
        self.model.record(cycles, card)

    def events(self, card: int) -> bytes:
        return self.model.events(card)

    def run(self, commands: dict[int, int], seconds: float, limit: int, failure_waves: str,
            ) -> dict[int, tuple[str, int, list[int], str, str | None]]:
        """Run commands, by card the address of their record: how each ended, cycles, status words,
        violation, waveform.

        The last three may be empty.
        """
        replay = Replay(lambda path, cycles: self._repeat(commands, path, cycles)) \
            if self.can_record and failure_waves else None
        try:
            if self._waves:
                self.model.waves(self._waves)
            before, until = self.model.cycles, time.monotonic() + seconds
            self.model.start_all(commands)
            end = "limit"
            while (end == "limit" and self.model.cycles - before < limit
                   and time.monotonic() < until and os.getppid() != 1):
                end = self.model.clock(min(SLICE, limit), commands)
            cycles = self.model.cycles - before
            # Of a ring, those that ended have done so whatever happened to others.
            done = set(commands) if end == "done" else \
                self.model.interrupted & set(commands) if end == "limit" else set()
            words = {card: self.model.acknowledge(card) for card in done}
            failed = len(done) < len(commands) or any(found[4] for found in words.values())
            recorded = bool(failed and replay and replay.record(failure_waves, cycles))
            return {card: ("done" if card in done else end, cycles, words.get(card, []),
                           self.model.violation, failure_waves if recorded else None)
                    for card in commands}
        finally:
            if self._waves:
                self.model.waves(None)
            if replay:
                replay.close()

    def _repeat(self, commands: dict[int, int], path: str, cycles: int) -> None:
        before = self.model.cycles
        self.model.start_all(commands)
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
    """``python -m cardsim.rtl.server FD``: the first message says which card."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is the host's affair
    connection = multiprocessing.connection.Connection(int(sys.argv[1]))
    library, config, timing, link, threads, waves = connection.recv()
    try:
        model = Model(pathlib.Path(library), CardConfig(**config), Timing(**timing),
                      LinkTiming(**link), threads)
        connection.send(("ok", None))
    except Exception:
        connection.send(("error", traceback.format_exc(limit=3)))
        return
    serve(connection, Server(model, waves))


if __name__ == "__main__":
    main()
