# SPDX-License-Identifier: Apache-2.0
"""The extras of the package: what comes only when asked for."""

import functools
import importlib.metadata

from .examine import Check
from .imports import DISTRIBUTION, missing_or_broken, requirements


def extras() -> list[Check]:
    """A check for each extra that the package declares."""
    names = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ()
    return [Check(
        name=f"extra {name}", part="extras",
        attempt=functools.partial(missing_or_broken, requirements(name)),
        how=f"Install it in a copy of the repository with pip install --constraint "
            f"constraints.txt '.[{name}]'.") for name in names]
