# SPDX-License-Identifier: Apache-2.0
"""The log of a Verilated card: a record a cycle, of the card's pin ``events`` and of its memory."""

import enum

import numpy as np
import numpy.typing as npt

from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.events import places

#: Bytes of the log that are kept between two calls.
LIMIT = 1 << 29


class Activity(enum.IntFlag):
    """What a channel's port did in a cycle; 0 if nothing was asked of it."""

    READ = 1        #: a beat was read
    WRITE = 2       #: a beat was written
    LATE = 4        #: reads were under way, and memory offered none of their beats
    FULL = 8        #: memory offered a beat that the card did not take


def record_bytes(config: CardConfig) -> int:
    """Bytes of one cycle in the log: the card's word, and a byte of each channel."""
    return 8 + config.channels


def cycles_kept(config: CardConfig) -> int:
    """Cycles that the log has room for."""
    return LIMIT // record_bytes(config)


def decode(log: bytes, config: CardConfig) -> npt.NDArray[np.void]:
    """The log as records with a field for each of ``rtl_gen.spec.events``, and ``channels``.

    Parameters
    ----------
    log : bytes
        Whole records.
    config : CardConfig
        Of the card that wrote it.

    Returns
    -------
    array of records, one a cycle
        ``channels`` has :class:`Activity` of every channel.
    """
    raw = np.frombuffer(log, [("word", "<u8"), ("channels", "u1", (config.channels,))])
    fields = list(places())
    kinds = [(name, "u1" if width <= 8 else "<u2") for name, _, width in fields]
    found = np.empty(len(raw), [*kinds, ("channels", "u1", (config.channels,))])
    found["channels"] = raw["channels"]
    for name, at, width in fields:
        found[name] = raw["word"] >> np.uint64(at) & np.uint64((1 << width) - 1)
    return found
