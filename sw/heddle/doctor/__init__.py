# SPDX-License-Identifier: Apache-2.0
"""What of an installation works, found by trying it: for ``heddle doctor``."""

from .boards import boards
from .core import core
from .examine import Check, Finding, Missing, State, examine
from .extras import extras
from .toolchain import toolchain

__all__ = ["Check", "Finding", "Missing", "State", "boards", "checks", "core", "examine", "extras",
           "toolchain"]


def checks(*, compile_card: bool = True) -> list[Check]:
    """Everything that is looked at, in the order in which it is shown.

    Parameters
    ----------
    compile_card : bool
        Run the Verilated card too, which takes minutes to compile the first time.
    """
    return [*core(), *toolchain(compile_card=compile_card), *boards(), *extras()]
