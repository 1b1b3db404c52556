# SPDX-License-Identifier: Apache-2.0
"""What a simulated card shows of every cycle on its pin ``events``; a board's card has no such pin.

One word of ``BITS`` bits a cycle.  The digest of the contract does not cover it: no host reads it.
"""

from collections.abc import Iterator

#: Name and width of each field, from bit 0 up.
FIELDS = (
    ("running", 1),         # the counters of the status record count what the cycle before did
    ("issue", 1),           # dispatch lets instruction `pc` go into its queue
    ("control", 1),         # dispatch has carried out control instruction `pc`
    ("pc", 16),
    ("fence", 1),           # dispatch waits until earlier writes are in memory
    ("full", 1),            # dispatch waits for room in a queue
    ("offered", 3),         # the head of a queue has its counters; memory, matmul, vector
    ("taken", 3),           # its unit takes it
    ("done", 5),            # a report: memory, bank, epilogue, softmax, vector
    ("held", 1),            # the next product waits for its counters
    ("empty", 1),           # there is no next product
    ("loaded", 1),          # the epilogue begins with a product
    # Entries of every channel that the engine took in the cycle before; 3: at work, none taken.
    ("entries", 2),
    ("last", 1),            # they were the last of a product
    ("wait_weights", 1),    # in the cycle before a channel had no entry for the engine
    ("wait_rows", 1),       # … the epilogue, or a channel's writer, had no room
    ("read_beats", 7),      # of all channels, as the status record counts them
    ("write_beats", 7),
)
#: Width of the pin.
BITS = 64


def places() -> Iterator[tuple[str, int, int]]:
    """(name, lowest bit, width) of every field."""
    at = 0
    for name, width in FIELDS:
        yield name, at, width
        at += width
