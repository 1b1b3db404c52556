# SPDX-License-Identifier: Apache-2.0
"""What the units of a card have in common: jobs, reports, payloads, scratchpad ports."""

from collections.abc import Mapping
from typing import Any

import cocotb
import numpy.typing as npt
from cocotb.triggers import RisingEdge

from rtl_gen.spec.config import ACC_BITS, CardConfig
from rtl_gen.spec.isa import WORD_BITS

from .run import parameters
from .streams import pack

#: An instruction on its way to its unit: fields of the payload and their bits.
JOB = {"word": WORD_BITS, "rows": 12, "beats": 10, "address": 32, "pos": 12, "len": 12, "step": 32,
       "target": 32, "target_valid": 1, "sequence": 16}


def config() -> CardConfig:
    """The configuration of the unit under test."""
    values = parameters()
    return CardConfig(**values | {"group_sizes": tuple(values["group_sizes"])})


def job(word: int, **fields: int) -> tuple[int, int]:
    """Payload of one instruction, its operands resolved; fields that are not given are zero."""
    values = {"word": word} | fields
    return pack([(values.get(name, 0), bits) for name, bits in JOB.items()]), 0


def plane(word: Mapping[str, Any]) -> tuple[int, int]:
    """Payload of a word of activations."""
    return pack([(word["block"], 16), (word["part"], 6), *((v, 8) for v in word["low"]),
                 *((v, 8) for v in word["high"]), (word["exponent"], 8), (word["digits"], 1),
                 (word["two_beat"], 1), (word["token"], 2)]), 0


def fresh(word: Mapping[str, Any]) -> tuple[int, int]:
    """Payload of a word of fresh K or V."""
    return pack([(word["kind"], 1), (word["token"], 2), (word["head"], 6), (word["part"], 6),
                 *((v, 8) for v in word["low"]), *((v, 8) for v in word["high"])]), 0


def row(values: Mapping[str, Any]) -> tuple[int, int]:
    """Payload of a finished row of the engine."""
    return pack([*((acc, ACC_BITS) for acc in values["acc"]), (values["token"], 2),
                 (values["last_token"], 1), (values["last_row"], 1)]), 0


def signals(seen: list[int]) -> list[int]:
    """The signals of the instructions that ended, from all that the port ``done`` showed."""
    return [value >> 1 for value in seen if value & 1]


def serve(dut: Any, port: str, memory: npt.NDArray[Any]) -> None:
    """Answer a read port from ``memory`` [words, lanes], from now on."""
    en, addr, data = (getattr(dut, f"{port}__{part}") for part in ("en", "addr", "data"))

    async def bench() -> None:
        while True:
            await RisingEdge(dut.aclk)
            if en.value:
                data.value = int.from_bytes(memory[int(addr.value)].tobytes(), "little")
    cocotb.start_soon(bench())
