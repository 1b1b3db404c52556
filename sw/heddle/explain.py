# SPDX-License-Identifier: Apache-2.0
"""What each card of a ring holds of a model, and what a decode step sends."""

from typing import Any

from rtl_gen.spec.isa import SENDS, Register

from .layout import Layout
from .partition import WHOLE
from .parts import SILENT, Columns, first_pass
from .program import Program
from .trace import trace


def traffic(layout: Layout, program: Program, position: int) -> dict[str, int]:
    """Bytes that a card sends to the card before it and to the next in one decode step."""
    registers = {**first_pass(layout, Columns(), [position]), Register.LEFT: 1, SILENT: 1}
    sent = {"previous": 0, "next": 0}
    for step in trace(program.instructions, registers):
        for name, side in zip(SENDS, sent, strict=True):
            if step.name == name:
                sent[side] += (step.values["words"] * step.values["columns"]
                               * layout.config.word_bytes)
    return sent


def explain(layout: Layout, program: Program) -> dict[str, Any]:
    """What a card holds and sends, for tables and JSON.

    Parameters
    ----------
    layout : Layout
    program : Program
        Of decode steps.

    Returns
    -------
    dict
        ``heads``, and elements of what ``out``, ``up`` and ``down`` give, as [first, end);
        ``vocabulary`` the rows of the LM head, ``whole`` what every card has whole, ``megabytes``
        those of weights, tables and caches on all channels, ``sends`` the bytes of a decode step by
        side, at the last position of the context.
    """
    config, parts, card = layout.config, layout.parts, layout.card
    lanes = config.channels

    def elements(words: range, total: int) -> list[int]:
        return [words.start * lanes, min(words.stop * lanes, total)]

    return {
        "card": card, "heads": [layout.heads.start, layout.heads.stop],
        "out": elements(parts.out[card], layout.shape.width),
        "up": elements(parts.up[card], layout.shape.inner),
        "down": elements(parts.down[card], layout.shape.width),
        "whole": sorted(parts.whole, key=WHOLE.index),
        "vocabulary": layout.matrices["head"].outputs,
        "megabytes": layout.memory.used * config.beat_bytes * lanes / 2**20,
        "instructions": len(program),
        "sends": traffic(layout, program, layout.context - 1)}
