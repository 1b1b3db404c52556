# SPDX-License-Identifier: Apache-2.0
"""Whether packages are installed in a version that is asked for, and can be imported.

As a script (``python -m heddle.doctor.imports MODULE...``) it imports modules one after another: a
library that brings its process down must not take the doctor with it.
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

from packaging.requirements import Requirement

from .examine import Missing, output

DISTRIBUTION = "heddle-fpga"


def requirements(extra: str | None) -> list[Requirement]:
    """What Heddle itself asks for, or what one of its extras asks for besides."""
    def asked(one: Requirement, extra: str) -> bool:
        return one.marker is None or one.marker.evaluate({"extra": extra})

    found = [Requirement(line) for line in importlib.metadata.requires(DISTRIBUTION) or ()]
    if extra is None:
        return [one for one in found if asked(one, "")]
    return [one for one in found if asked(one, extra) and not asked(one, "")]


def modules(distribution: str) -> list[str]:
    """Names that a distribution is imported by; none for one that has only programs or types."""
    owners = importlib.metadata.packages_distributions()
    ours = distribution.lower().replace("_", "-")
    return sorted(name for name, names in owners.items() if name.isidentifier()
                  and not name.startswith("_")
                  and any(ours == owner.lower().replace("_", "-") for owner in names))


def missing_or_broken(wanted: Sequence[Requirement]) -> str:
    """Try requirements: all are installed, in those versions, and can be imported.

    Raises
    ------
    Missing
        Some are not installed, or in another version.
    RuntimeError
        One cannot be imported.
    """
    versions, absent = [], []
    for one in wanted:
        try:
            found = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            absent.append(f"{one.name} is not installed")
            continue
        if one.specifier.contains(found, prereleases=True):
            versions.append(f"{one.name} {found}")
        else:
            absent.append(f"{one.name} must be {one.specifier}, not {found}")
    if absent:
        raise Missing("; ".join(absent))
    names = [name for one in wanted for name in modules(one.name)]
    # Not from the current folder: a file there may have the name of a package.
    output([sys.executable, "-P", "-m", __name__, *names])
    return ", ".join(versions)


def main(names: Sequence[str]) -> int:
    """Import modules; the last line on standard error says which one fails."""
    for name in names:
        # In case that it ends this process.
        print(f"importing {name} ends Python", file=sys.stderr, flush=True)   # noqa: T201
        try:
            importlib.import_module(name)
        except Exception as error:
            said = " ".join(str(error).split())
            print(f"{name} cannot be imported: {said}", file=sys.stderr)   # noqa: T201
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
