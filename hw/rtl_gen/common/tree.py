# SPDX-License-Identifier: Apache-2.0
"""Sums of many integers."""


def tree_sum(terms):
    """Sum of Amaranth values as a balanced tree: log2(n) bits wider, not n as with ``sum()``."""
    terms = list(terms)
    while len(terms) > 1:
        paired = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = paired + terms[len(paired) * 2:]
    return terms[0]
