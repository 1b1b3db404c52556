# SPDX-License-Identifier: Apache-2.0
"""Real cards, on stock pyxrt: the entry point ``xrt`` of the group ``heddle.cards``.

pyxrt can neither read nor write a kernel's registers.  All it is asked for are buffers, one in the
bank of each channel, and runs of the kernel; status, identity and counters are records in HBM.
"""

from .card import XrtCard
from .opening import configuration, named, of_another_python, open_cards

__all__ = ["XrtCard", "configuration", "named", "of_another_python", "open_cards"]
