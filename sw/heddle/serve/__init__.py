# SPDX-License-Identifier: Apache-2.0
"""A server of the OpenAI API's completions; needs the extra ``serve``."""

from .app import Limit, create
from .run import server

__all__ = ["Limit", "create", "server"]
