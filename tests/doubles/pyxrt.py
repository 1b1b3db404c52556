# SPDX-License-Identifier: Apache-2.0
"""A double of pyxrt, the Python part of XRT: the calls that Heddle makes, on simulated boards.

It is put on ``sys.path`` as ``pyxrt`` and knows nothing of Heddle: like XRT it reads from the
bitstream which kernel there is, where its arguments lie and which banks they are connected to, and
drives the kernel through its control port as XRT's driver does: the words from 0x10 to the end of
the last argument, start, wait for the interrupt, clear it.  Buffers have a copy on the host and one
on the board; only ``sync`` moves bytes between them.

Stricter than XRT: a buffer in another bank than its argument's is an error (XRT copies it to the
right one and warns).
"""

import enum
import pathlib
import time
import zipfile

import numpy as np

from tests.doubles import machine
from tests.doubles.machine import CTRL, FIRST, GIER, IP_IER, IP_ISR
from tests.doubles.package import GLOBAL, SCALAR, Package

#: Cycles that are simulated between two looks at the time.
SLICE = 5_000


class ert_cmd_state(enum.Enum):
    ERT_CMD_STATE_NEW = 1
    ERT_CMD_STATE_QUEUED = 2
    ERT_CMD_STATE_COMPLETED = 4
    ERT_CMD_STATE_ERROR = 5
    ERT_CMD_STATE_ABORT = 6
    ERT_CMD_STATE_SUBMITTED = 7
    ERT_CMD_STATE_TIMEOUT = 8
    ERT_CMD_STATE_NORESPONSE = 9


class xclBOSyncDirection(enum.Enum):
    XCL_BO_SYNC_BO_TO_DEVICE = 0
    XCL_BO_SYNC_BO_FROM_DEVICE = 1


class xrt_info_device(enum.Enum):
    bdf = 0
    name = 6


class _Kernel:
    def __init__(self, name):
        self._name = name

    def get_name(self):
        return self._name


class xclbin:
    """A bitstream's metadata."""

    def __init__(self, path):
        if not isinstance(path, str):
            raise TypeError("__init__(): incompatible constructor arguments")
        if not pathlib.Path(path).is_file():
            raise RuntimeError(f"failed to open file '{path}' for reading")
        if not zipfile.is_zipfile(path):
            raise RuntimeError("Invalid xclbin")
        self._package = Package(pathlib.Path(path))

    def get_kernels(self):
        names = [self._package.kernel, *sorted(self._package.links().values())]
        return [_Kernel(name) for name in names]

    def get_xsa_name(self):
        return self._package.platform


class device:
    """A board."""

    def __init__(self, which):
        self._board = machine.here.find(which)

    def get_info(self, what):
        return {xrt_info_device.bdf: self._board.bdf,
                xrt_info_device.name: self._board.shell}[what]

    def load_xclbin(self, what):
        package = what._package if isinstance(what, xclbin) else xclbin(what)._package
        machine.here.load(self._board, package)
        return package.uuid


class kernel:
    """The one instance of a kernel on a board."""

    exclusive, shared = "exclusive", "shared"

    def __init__(self, dev, uuid, name, mode="shared"):
        board = dev._board
        self._board, self._package, self._mode = board, board.package, mode
        self._held = False
        assert uuid == board.package.uuid
        if name.split(":")[0] != board.package.kernel:
            raise RuntimeError(f"No such kernel '{name}'")
        if board.taken:
            raise RuntimeError("failed to open cu context: Device or resource busy")
        self._held = board.taken = mode == kernel.exclusive
        board.write(GIER, 1)
        board.write(IP_IER, 1)

    def __del__(self):
        if getattr(self, "_held", False):
            self._board.taken = False

    def group_id(self, number):
        if self._package.arguments[number].qualifier != GLOBAL:
            raise RuntimeError(f"argument {number} has no memory group")
        return self._package.bank(number)


class bo:
    """A buffer: bytes on the host, bytes on the board."""

    normal = "normal"

    def __init__(self, dev, size, flags, group):
        assert flags == bo.normal
        self._board, self._bank, self._size = dev._board, group, size
        self._offset = self._board.allocate(group, size)
        self._host = np.zeros(size, np.uint8)

    def __del__(self):
        if hasattr(self, "_offset"):
            self._board.free(self._bank, self._offset)

    def _inside(self, offset, size):
        if offset < 0 or size < 0 or offset + size > self._size:
            raise RuntimeError(f"attempting to access {size} bytes at {offset} past the buffer's "
                               f"{self._size}")

    def address(self):
        return self._bank * self._board.geometry[1] + self._offset

    def size(self):
        return self._size

    def write(self, buffer, seek):
        data = np.frombuffer(buffer, np.uint8)
        self._inside(seek, len(data))
        self._host[seek:seek + len(data)] = data

    def read(self, size, skip):
        machine.here.called("read")
        self._inside(skip, size)
        return self._host[skip:skip + size].astype(np.int8)

    def sync(self, direction, size, offset):
        self._inside(offset, size)
        board, place = self._board, (self._bank, self._offset + offset)
        if direction == xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE:
            board.simulation.write(board.place, *place, self._host[offset:offset + size].data)
        else:
            assert direction == xclBOSyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE
            self._host[offset:offset + size] = np.frombuffer(
                board.simulation.read(board.place, *place, size), np.uint8)


class run:
    """A run of a kernel."""

    def __init__(self, krnl):
        machine.here.called("run")
        self._board, self._package = krnl._board, krnl._package
        self._kernel = krnl
        last = max(argument.offset + argument.size for argument in self._package.arguments)
        self._words = [0] * (-(-(last - FIRST) // 4))
        self._state = ert_cmd_state.ERT_CMD_STATE_NEW

    def set_arg(self, number, value):
        machine.here.called("set_arg")
        argument = self._package.arguments[number]
        at = (argument.offset - FIRST) // 4
        if isinstance(value, bo):
            if argument.qualifier != GLOBAL:
                raise RuntimeError(f"argument {number} is no buffer")
            if value._bank != self._package.bank(number):
                raise RuntimeError(
                    f"argument {number} is connected to bank {self._package.bank(number)}, and the "
                    f"buffer is in bank {value._bank}")
            self._words[at:at + 2] = [value.address() & 0xFFFFFFFF, value.address() >> 32]
            return
        if type(value) is not int or not -1 << 31 <= value < 1 << 31:
            raise TypeError("set_arg(): incompatible function arguments")
        if argument.qualifier != SCALAR:
            raise RuntimeError(f"argument {number} is a buffer")
        self._words[at] = value & 0xFFFFFFFF

    def start(self):
        machine.here.called("start")
        board = self._board
        assert board.read(CTRL) & 4, "the double takes no run while the kernel is at work"
        for number, word in enumerate(self._words):
            board.write(FIRST + 4 * number, word)
        board.write(CTRL, 1)
        machine.here.log.append(("command", board.place, self._words[0] | self._words[1] << 32))
        machine.here.log.append(("start", board.place, board.simulation.cycles))
        self._state = ert_cmd_state.ERT_CMD_STATE_SUBMITTED

    def wait(self, milliseconds):
        assert type(milliseconds) is int
        machine.here.called("wait")
        if self._state == ert_cmd_state.ERT_CMD_STATE_SUBMITTED:
            board, end = self._board, time.monotonic() + milliseconds / 1000
            while not board.simulation.clock(board.place, SLICE):
                if milliseconds and time.monotonic() >= end:
                    return ert_cmd_state.ERT_CMD_STATE_TIMEOUT
            assert board.read(IP_ISR) == 1
            board.write(IP_ISR, 1)
            assert board.read(IP_ISR) == 0
            assert board.read(CTRL) & 2, "done"
            machine.here.log.append(("done", board.place, board.simulation.cycles))
            outcome = machine.here.outcome or "COMPLETED"
            self._state = ert_cmd_state[f"ERT_CMD_STATE_{outcome}"]
        return self._state

    def state(self):
        return self._state
