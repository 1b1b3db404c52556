# SPDX-License-Identifier: Apache-2.0
"""Pruning: N:M patterns, methods that choose what stays, and folders with the outcome."""

from .calibrate import samples
from .detect import detect
from .folder import prune_folder
from .oneshot import METHODS
from .patterns import best, broken_group, check_pattern, groups, pattern_of, prune_rows

__all__ = ["METHODS", "best", "broken_group", "check_pattern", "detect", "groups", "pattern_of",
           "prune_folder", "prune_rows", "samples"]
