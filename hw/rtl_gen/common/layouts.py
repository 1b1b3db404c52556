# SPDX-License-Identifier: Apache-2.0
"""Payloads between units, derived from the contract."""

from amaranth import signed, unsigned
from amaranth.lib import data

from ..spec import isa
from ..spec.config import CardConfig


def fields(name: str) -> data.StructLayout:
    """The fields of one instruction, from the lowest bit of its word up."""
    return data.StructLayout({
        field.name: (signed if field.signed else unsigned)(field.width)
        for field in isa.fields(name)})


def view(name: str, word):
    """``word`` (256 bits) seen as the instruction ``name``."""
    layout = fields(name)
    return data.View(layout, word[:layout.size])


#: An instruction on its way to its unit, operands resolved at dispatch.
JOB = data.StructLayout({
    "word": isa.WORD_BITS,
    "rows": 12,             # rows and beats with registers applied
    "beats": 10,
    "address": 32,
    "pos": 12,
    "len": 12,
    "step": 32,
    "target": 32,           # the given token that follows the current one
    "target_valid": 1,
    "sequence": 16,         # program order, modulo 2^16
})

#: A unit's report, for one cycle, exactly once per instruction and in order: all effects are
#: visible.
DONE = data.StructLayout({"valid": 1, "signal": isa.COUNTERS})


def stream_job(config: CardConfig) -> data.StructLayout:
    """What a channel is to read for one instruction: row constants or loaded rows, then weights."""
    return data.StructLayout({"address": 32, "aux": 20, "values": 23, "pattern": 4})


def entry(config: CardConfig) -> data.StructLayout:
    """One decoded value beat: weights, and which of its 16 candidates each meets."""
    return data.StructLayout({
        "weights": data.ArrayLayout(signed(8), config.beat_bytes),
        "index": data.ArrayLayout(unsigned(4), config.beat_bytes)})


def channel_write(config: CardConfig) -> data.StructLayout:
    """A beat to be written, at a beat address of the channel."""
    return data.StructLayout({"address": 32, "data": 8 * config.beat_bytes})


def word(config: CardConfig) -> data.ArrayLayout:
    """One scratchpad word: V FP32 values, as bits."""
    return data.ArrayLayout(unsigned(32), config.vector_lanes)


def plane_write(config: CardConfig) -> data.StructLayout:
    """One word of quantised activations."""
    digit = data.ArrayLayout(signed(8), config.vector_lanes)
    return data.StructLayout({
        "block": 16, "part": 6, "low": digit, "high": digit, "exponent": signed(8),
        "digits": 1, "two_beat": 1, "token": 2})


def fresh_write(config: CardConfig) -> data.StructLayout:
    """One word of the current tokens' K or V; not wide: the value is in ``low``."""
    digit = data.ArrayLayout(signed(8), config.vector_lanes)
    return data.StructLayout({
        "kind": 1, "token": 2, "head": 6, "part": 6, "low": digit, "high": digit})
