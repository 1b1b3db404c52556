# SPDX-License-Identifier: Apache-2.0
"""Control: registers, commands, dispatch, queues, dependency counters, errors."""

from .control import Control
from .dispatch import QUEUES, Owner, Reporter

__all__ = ["QUEUES", "Control", "Owner", "Reporter"]
