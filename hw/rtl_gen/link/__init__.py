# SPDX-License-Identifier: Apache-2.0
"""Links between neighbours of a ring: frames, repair, flow control, hello."""

from .link import Link

__all__ = ["Link"]
