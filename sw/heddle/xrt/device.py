# SPDX-License-Identifier: Apache-2.0
"""One board: bitstream and kernel, as XRT opens them, with errors that name both sides."""

import pathlib
import shutil
from typing import Any

from rtl_gen.spec import registers
from rtl_gen.spec.config import CardConfig

from ..card import CardError

#: What XRT raises: pybind11 makes these of its C++ exceptions.
XRT_ERRORS = (RuntimeError, ValueError, OSError, IndexError)


#: Name of a kernel, before that of its configuration.
PREFIX = "heddle_"


def read(pyxrt: Any, path: pathlib.Path) -> tuple[Any, list[str]]:
    """A bitstream as XRT reads it, and the names of its kernels."""
    try:
        xclbin = pyxrt.xclbin(str(path))
        return xclbin, [kernel.get_name() for kernel in xclbin.get_kernels()]
    except XRT_ERRORS as error:
        raise CardError(f"the bitstream {path} must be an xclbin that XRT can read: "
                        f"{said(error)}") from None


class Device:
    """A board with the bitstream loaded and the kernel held, so that no other process uses it.

    Parameters
    ----------
    pyxrt : module
    board : int or str
        As XRT numbers it, or its PCIe address.
    path : pathlib.Path
        The xclbin file.
    config : CardConfig
        Whose kernel there must be.

    Attributes
    ----------
    name : str
        The board with its shell, as XRT calls it.
    address : str
        Its PCIe address.
    """

    def __init__(self, pyxrt: Any, board: int | str, path: pathlib.Path, config: CardConfig
                 ) -> None:
        self.pyxrt = pyxrt
        try:
            self._device = pyxrt.device(board)
            self.name = str(self._device.get_info(pyxrt.xrt_info_device.name))
            self.address = str(self._device.get_info(pyxrt.xrt_info_device.bdf))
        except XRT_ERRORS as error:
            raise CardError(f"device {board} must be a board that XRT can open, as listed by "
                            f"`{tool()} examine`: {said(error)}") from None
        self._kernel = self._load(path, f"{PREFIX}{config.name}")
        first = registers.FIRST_BUFFER
        try:
            self._groups = [self._kernel.group_id(first + c) for c in range(config.channels)]
        except XRT_ERRORS as error:
            raise CardError(f"the kernel in {path} must have a buffer for each of "
                            f"{config.channels} channels: {said(error)}") from None

    def __str__(self) -> str:
        return f"{self.address} ({self.name})"

    def _load(self, path: pathlib.Path, name: str) -> Any:
        """Load the bitstream; the kernel of that name."""
        xclbin, kernels = read(self.pyxrt, path)
        if name not in kernels:
            raise CardError(f"the bitstream {path} must have the kernel {name}, not "
                            f"{', '.join(kernels) or 'none'}: name the configuration that it was "
                            "built from, or build another with `heddle rtl --board`")
        try:
            uuid = self._device.load_xclbin(xclbin)
        except XRT_ERRORS as error:
            raise CardError(f"board {self} must have the shell that {path} was linked for, "
                            f"{xclbin.get_xsa_name()}, and be free: {said(error)}") from None
        try:
            return self.pyxrt.kernel(self._device, uuid, name, self.pyxrt.kernel.exclusive)
        except XRT_ERRORS as error:
            raise CardError(f"the kernel {name} on board {self} must be free for this process: "
                            f"{said(error)}") from None

    def close(self) -> None:
        """Let other processes have the kernel."""
        self._kernel = self._device = None

    def buffer(self, channel: int, size: int) -> Any:
        """A new buffer of that many bytes in the bank of a channel."""
        try:
            return self.pyxrt.bo(self._device, size, self.pyxrt.bo.normal, self._groups[channel])
        except (*XRT_ERRORS, MemoryError) as error:
            raise CardError(f"channel {channel} must find {size} bytes free in its bank of board "
                            f"{self} and on the host: {said(error)}") from None

    def run(self, command: int, buffers: list[Any]) -> Any:
        """A run of the kernel that has not been started.

        ``command`` is the record's address as the port of channel 0 sees it.
        """
        values = [_signed(command & 0xFFFFFFFF), _signed(command >> 32), *buffers]
        try:
            made = self.pyxrt.run(self._kernel)
            for number, value in enumerate(values):
                made.set_arg(number, value)
        except XRT_ERRORS as error:
            raise CardError(f"a run of the kernel on {self} must be one that XRT can prepare: "
                            f"{said(error)}") from None
        return made


def tool() -> str:
    """XRT's command for boards: `xbutil` has been renamed."""
    return "xbutil" if shutil.which("xbutil") and not shutil.which("xrt-smi") else "xrt-smi"


def _signed(word: int) -> int:
    """32 bits as the C ``int`` that pyxrt takes."""
    return word - (1 << 32) if word >> 31 else word


def said(error: Exception) -> str:
    """What XRT says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
