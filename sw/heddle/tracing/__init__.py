# SPDX-License-Identifier: Apache-2.0
"""Where the cycles of a command go, from the events that a card recorded."""

from .account import Account, Wait, account
from .recorder import Recorder, Recording
from .timeline import Instruction, Timeline

__all__ = ["Account", "Instruction", "Recorder", "Recording", "Timeline", "Wait", "account"]
