# SPDX-License-Identifier: Apache-2.0
"""The table of boards, for docs/boards.md."""

from rtl_gen.vitis import board as boards

BEGIN, END = "<!-- boards: written by sw/tools/write_docs.py -->\n", "<!-- end of boards -->\n"


def section() -> str:
    """Markdown: what is known of each board."""
    rows = []
    for name in boards.boards():
        board = boards.find(name)
        links = " and ".join(board.links[side]["kernel"] for side in ("previous", "next")) \
            if board.links else "none"
        tools = ", ".join(f"{tool} {version}" for tool, version in board.tools.items())
        rows.append(f"| `{name}` | {board.title} | `{board.part}` | `{board.platform}` | {tools} | "
                    f"{board.banks} × {board.bank_bytes >> 20} MB | {board.highest_mhz} MHz | "
                    f"{links} |")
    return (f"{BEGIN}| board | | part | platform | written for | HBM | at most | links |\n"
            "| --- | --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows) + f"\n{END}")


def renewed(text: str) -> str:
    """The page's text with the table made anew."""
    before, _, rest = text.partition(BEGIN)
    return before + section() + rest.partition(END)[2]
