# SPDX-License-Identifier: Apache-2.0
"""Requests to a board on a serial line, and their answers, whatever happens to bytes on the way."""

import contextlib
import time
import zlib

import serial
import serial.tools.list_ports

from rtl_gen.spec.serial import (
    ANSWER,
    ANSWER_BYTES,
    ANSWER_MAGIC,
    CRC_BYTES,
    LONGEST,
    Code,
    Kind,
    request,
)

from .card import CardError, CardTimeout

#: What a port that fails raises; pyserial lets errors of termios through, which are no OSError.
_PORT_ERRORS: tuple[type[Exception], ...] = (OSError, serial.SerialException)
with contextlib.suppress(ImportError):      # Windows has none
    import termios
    _PORT_ERRORS += (termios.error,)

#: Bits a second of the boards' lines.
BAUD = 3_000_000
#: Seconds that a board has for an answer, and how often a request is sent.
PATIENCE, TRIES = 2.0, 5
#: Seconds of silence after which nothing more of a spoilt answer comes.
QUIET = 0.05


class _Spoilt(Exception):
    """What came is no answer to the request: it is to be sent again."""


def ports() -> list[str]:
    """The serial ports of this machine, each with what it says of itself."""
    found = sorted(serial.tools.list_ports.comports(), key=lambda port: port.device)
    return [port.device if port.description in ("n/a", None) else
            f"{port.device} ({port.description})" for port in found]


class SerialLine:
    """One request at a time, sent again until its answer is whole.

    Parameters
    ----------
    port : str
        Device, as ``/dev/ttyUSB0`` or ``COM3``.
    baud : int
    patience : float
        Seconds within which the board answers.

    Attributes
    ----------
    repeats : int
        Requests that were sent again.

    Raises
    ------
    CardError
        If the port cannot be opened.
    """

    def __init__(self, port: str, *, baud: int = BAUD, patience: float = PATIENCE) -> None:
        self.port, self.patience, self.repeats, self._number = port, patience, 0, 0
        self._last_set = -1
        try:
            self._serial = serial.Serial(port, baud, timeout=patience, write_timeout=patience,
                                         exclusive=True)
        except (OSError, ValueError) as error:
            there = ", ".join(ports()) or "none"
            raise CardError(f"the serial port must be one that can be opened, not {port!r} "
                            f"({error}); there are: {there}") from None
        # USB adapters hold short answers back, FTDI's for 16 ms; not all of them can be told.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            self._serial.set_low_latency_mode(True)

    def close(self) -> None:
        """Give the port back."""
        self._serial.close()

    def ask(self, kind: Kind, *, address: int = 0, payload: bytes = b"", size: int | None = None
            ) -> bytes:
        """Send a request; the payload of its answer.

        Parameters
        ----------
        kind : Kind
        address : int
        payload : bytes
            Of WRITE and SET.
        size : int, optional
            Bytes wanted, at most ``LONGEST``; that of ``payload`` if not given.

        Raises
        ------
        CardTimeout
            No answer came, however often the request was sent.
        CardError
            The board refused the request, answers came but none was whole, or the port failed.
        """
        wanted = len(payload) if size is None else size
        if wanted > LONGEST:
            raise ValueError(f"size must be at most {LONGEST}, not {wanted}")
        self._number = (self._number + 1) % 256
        if kind == Kind.SET:
            # One with the number of the last SET would be taken for that one, sent again.
            if self._number == self._last_set:
                self._number = (self._number + 1) % 256
            self._last_set = self._number
        frame = request(kind, self._number, wanted, address, payload)
        reason = ""
        try:
            for attempt in range(TRIES):
                self.repeats += attempt > 0
                try:
                    self._serial.reset_input_buffer()
                    self._serial.write(frame)
                    code, found = self._answer()
                except _Spoilt as spoilt:
                    reason = str(spoilt)
                    self._drain()
                    continue
                if code != Code.DONE:
                    raise CardError(f"the board on {self.port} refused {kind.name} of {wanted} "
                                    f"bytes at {address:#x}: {_meaning(code)}")
                if kind in (Kind.READ, Kind.GET, Kind.HELLO) and len(found) != wanted:
                    raise CardError(f"the board's answer to {kind.name} must have {wanted} bytes, "
                                    f"not {len(found)}")
                return found
        except serial.SerialTimeoutException:
            reason = "it takes no bytes"
        except _PORT_ERRORS as error:
            raise CardError(f"the serial port {self.port} failed: {error}") from None
        what = f"the board on {self.port} must answer {kind.name} within {self.patience:g} s, " \
            f"not {TRIES} times fail to: {reason}"
        raise (CardTimeout if reason in (_SILENT, "it takes no bytes") else CardError)(what)

    def _answer(self) -> tuple[int, bytes]:
        """Code and payload of the next answer."""
        header = self._take(ANSWER_BYTES)
        values, place = {}, 0
        for name, length in ANSWER:
            values[name] = int.from_bytes(header[place:place + length], "little")
            place += length
        if values["magic"] != ANSWER_MAGIC or values["size"] > LONGEST:
            raise _Spoilt("what comes is no answer (another baud rate, or another device?)")
        rest = self._take(values["size"] + CRC_BYTES)
        body, crc = rest[:-CRC_BYTES], rest[-CRC_BYTES:]
        if zlib.crc32(header + body) != int.from_bytes(crc, "little"):
            raise _Spoilt("answers come with bad checksums")
        if values["code"] == Code.FAULT:
            raise _Spoilt("requests reach it spoilt")
        if values["number"] != self._number:
            raise _Spoilt("it answers another request")
        return values["code"], body

    def _take(self, count: int) -> bytes:
        end, found = time.monotonic() + self.patience, b""
        while len(found) < count:
            found += self._serial.read(count - len(found))
            if len(found) < count and time.monotonic() >= end:
                raise _Spoilt(_SILENT if not found else "its answers end early")
        return found

    def _drain(self) -> None:
        """Read until nothing comes."""
        self._serial.timeout = QUIET
        while self._serial.read(4096):
            pass
        self._serial.timeout = self.patience


_SILENT = "nothing came"


def _meaning(code: int) -> str:
    try:
        return Code(code).name
    except ValueError:
        return f"code {code}"
