# SPDX-License-Identifier: Apache-2.0
"""``python -m heddle`` is ``heddle``."""

from .cli import main

main()
