# SPDX-License-Identifier: Apache-2.0
"""The fenced blocks of the documentation, and whether output is what a page shows."""

import dataclasses
import doctest
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)^```$", re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block.

    Attributes
    ----------
    page : str
        Relative to the repository.
    line : int
        Of the opening fence.
    language : str
        What stands behind the fence, or nothing.
    text : str
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """All pages that users read, relative to the repository."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.count("\n```") % 2 == 0, f"{page} must close every fence"
    return [Block(page=page, line=text.count("\n", 0, found.start()) + 1, language=found[1].strip(),
                  text=found[2]) for found in FENCE.finditer(text)]


def shows(shown: str, got: str) -> bool:
    """Whether output is what is shown; ``...`` stands for anything, any space for any other."""
    return doctest.OutputChecker().check_output(
        shown, got, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


def difference(shown: str, got: str) -> str:
    """Both, for a failed test."""
    return f"the page shows\n\n{shown}\nand it is\n\n{got}"
