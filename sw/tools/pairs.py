# SPDX-License-Identifier: Apache-2.0
"""LUTs that share a place: a LUT6 of UltraScale+ is two functions of the same five inputs too.

Yosys never uses that; the vendor's placer does as a matter of course.  How often it can is a
matching in a large graph, of which this finds a good one quickly: equal inputs first, then most in
common.
"""

import collections
import re
from typing import Any

#: Inputs that the two functions may have together.
SHARED = 5
#: A net that more LUTs read is no sign that two of them belong together: it is an enable.
CROWD = 300


def pairs(module: dict[str, Any]) -> int:
    """Pairs of LUTs and of shift registers that fit in one LUT each.

    Two LUTs pair if they have an input in common and five inputs at most; two SRL16E if they have
    clock and enable in common.
    """
    readers: collections.defaultdict[int, set[int]] = collections.defaultdict(set)
    inputs: list[frozenset[int]] = []
    shifts: collections.Counter[tuple[Any, Any]] = collections.Counter()
    for cell in module["cells"].values():
        pins = cell["connections"]
        if re.fullmatch(r"LUT[1-5]", cell["type"]):
            inputs.append(frozenset(bit for pin, bits in pins.items() if pin != "O"
                                    for bit in bits if isinstance(bit, int)))
        elif cell["type"] == "SRL16E":
            shifts[str(pins.get("CLK")), str(pins.get("CE"))] += 1
    alike: collections.defaultdict[frozenset[int], list[int]] = collections.defaultdict(list)
    for number, nets in enumerate(inputs):
        alike[nets].append(number)
    found = sum(len(numbers) // 2 for numbers in alike.values())
    left = [numbers[-1] for numbers in alike.values() if len(numbers) % 2]
    for number in left:
        for net in inputs[number]:
            readers[net].add(number)
    for number in sorted(left, key=lambda number: (-len(inputs[number]), number)):
        mine = inputs[number]
        if not all(number in readers[net] for net in mine):
            continue        # somebody has taken it
        near = {other for net in mine if len(readers[net]) <= CROWD for other in readers[net]
                if other != number and len(mine | inputs[other]) <= SHARED}
        if near:
            best = max(near, key=lambda other: (len(mine & inputs[other]), -other))
            for taken in (number, best):
                for net in inputs[taken]:
                    readers[net].discard(taken)
            found += 1
    return found + sum(number // 2 for number in shifts.values())
