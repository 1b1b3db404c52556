# SPDX-License-Identifier: Apache-2.0
"""What an instruction is for: the matrix that it multiplies with, the vector that it loads."""

from collections.abc import Sequence

from rtl_gen.spec.isa import Register

from ..layout import Layout
from ..trace import Plain

#: What products are for, in the order of a layer and of a bar from the bottom up.
MATRICES = ("qkv", "keys", "values", "out", "up", "down", "head")


def labels(program: Sequence[Plain], layout: Layout) -> list[str]:
    """A name for every instruction of a program: one of :data:`MATRICES` for a product, what is
    moved for a LOAD or STORE, else the instruction's own name."""
    return [_label(name, fields, layout) for name, fields in program]


def _label(name: str, fields: dict[str, int], layout: Layout) -> str:
    if name not in ("MATMUL", "LOAD", "STORE"):
        return name
    memory, address = layout.memory, fields["address"]
    if name == "MATMUL" and address >= memory.cache:
        return "keys" if fields["dest"] else "values"
    if name == "MATMUL" and address >= memory.head \
            and fields["address_reg"] == Register.ZERO:
        return "head"
    if name == "MATMUL":
        inside = address - memory.layers
        return max((start, matrix) for matrix, start in memory.matrices.items()
                   if start <= inside)[1]
    what = next(what for what, start in (
        ("scales", memory.cache), ("gammas", memory.layers), ("x", memory.probes),
        ("logits", memory.logits), ("positions", memory.positions), ("embedding", 0))
        if address >= start)
    return f"{name} {what}"
