# SPDX-License-Identifier: Apache-2.0
"""The memory side: channels, and the unit that executes LOAD and STORE."""

from .channel import Channel
from .turns import ConstantsArbiter
from .unit import MemoryUnit

__all__ = ["Channel", "ConstantsArbiter", "MemoryUnit"]
