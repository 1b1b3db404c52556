# SPDX-License-Identifier: Apache-2.0
"""What several units share: queues, memories, AXI4, and the layouts of jobs."""

from .queue import Queue
from .ram import Ram, wide_style
from .skid import Skid
from .tree import tree_sum

__all__ = ["Queue", "Ram", "Skid", "tree_sum", "wide_style"]
