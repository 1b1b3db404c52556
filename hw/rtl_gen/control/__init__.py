# SPDX-License-Identifier: Apache-2.0
"""Control: registers, commands, dispatch, queues, dependency counters, errors."""

from .control import Control
from .dispatch import Owner, Reporter, queues, reporters

__all__ = ["Control", "Owner", "Reporter", "queues", "reporters"]
