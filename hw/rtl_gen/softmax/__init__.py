# SPDX-License-Identifier: Apache-2.0
"""Streaming softmax."""

from .softmax import Softmax

__all__ = ["Softmax"]
