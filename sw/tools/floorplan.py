# SPDX-License-Identifier: Apache-2.0
"""Sites for multipliers and block memories, from a first placement by nextpnr.

    python sw/tools/floorplan.py first.json top.json floorplan.json

nextpnr places cells of few sites badly: whoever comes last gets what is left, and the four
multipliers of one product end up in four corners of the chip.  Here the other cells stay where the
first placement has them, and simulated annealing (Kirkpatrick, Gelatt and Vecchi, 1983) moves
these over their sites until the wires to them are short.  ``floorplan.json`` is ``top.json``,
Yosys' netlist, with their sites fixed; the next placement has the others follow.  It also has the
router's settings, which nextpnr takes from a netlist before those of its command line.
"""

import argparse
import collections
import json
import pathlib
import re
from typing import Any

import numba
import numpy as np

#: Types of cells that are placed here.
TYPES = ("MULT18X18D", "DP16KD")
#: Pins from which a net is not counted: a clock or reset has no wires that could be shorter.
WIDE = 3000
#: Moves that are tried for each cell, and the temperature of the first, in tiles of wire.
MOVES, HOT = 20_000, 300.0
#: Tiles around the box of a net's pins in which router2 looks for a way (its own: 3).
MARGIN = 8
#: What router2 charges for a wire that another net has: so much in the first round, so much more in
#: each that follows, and for good for every round in which it was wanted twice; and how much of the
#: way that is left counts.  With its own charges ``histCongWeight`` outgrows the others: nets then
#: rather share a wire than take a free one that was wanted before, and the rounds go back and
#: forth.
CONGESTION = {"initCurrCongWeight": 5.0, "currCongWeightMult": 3.0, "histCongWeight": 0.1,
              "estimateWeight": 1.0}
_SITE = re.compile(r"X(\d+)/Y(\d+)/(.*)")


def sites(cells: dict[str, Any], kind: str) -> list[tuple[int, int, str]]:
    """Column, row and name of the sites of a type of cell.

    The rows with such sites are alike: where one row uses a column, all have it.  Rows and columns
    that no cell is in are not known and not used.
    """
    names: dict[int, str] = {}
    rows = set()
    for cell in cells.values():
        if cell["type"] == kind:
            column, row, name = _site(cell)
            rows.add(row)
            if names.setdefault(column, name) != name:
                raise ValueError(f"sites of {kind} must have the same names in all rows: column "
                                 f"{column} has {names[column]} and {name}")
    return [(column, row, name) for row in sorted(rows) for column, name in sorted(names.items())]


def _site(cell: dict[str, Any]) -> tuple[int, int, str]:
    column, row, name = _SITE.fullmatch(cell["attributes"]["NEXTPNR_BEL"]).groups()
    return int(column), int(row), name


def floorplan(placed: dict[str, Any], seed: int = 1) -> tuple[dict[str, str], int, int]:
    """The site of each multiplier and block memory, and tiles of wire to them before and after.

    Parameters
    ----------
    placed : dict
        nextpnr's netlist after placement.
    seed : int
    """
    cells = {name: cell for name, cell in placed["modules"]["top"]["cells"].items()
             if _SITE.fullmatch(cell["attributes"].get("NEXTPNR_BEL", ""))}
    moved = [name for name, cell in cells.items() if cell["type"] in TYPES]
    if not moved:
        return {}, 0, 0
    number = {name: k for k, name in enumerate(moved)}
    places = [(kind, *site) for kind in TYPES for site in sites(cells, kind)]
    where = {(kind, column, row): k for k, (kind, column, row, _) in enumerate(places)}
    at = np.array([where[cells[name]["type"], *_site(cells[name])[:2]] for name in moved])
    kinds = np.array([TYPES.index(cells[name]["type"]) for name in moved])
    first = np.searchsorted([TYPES.index(kind) for kind, *_ in places], range(len(TYPES) + 1))

    pins = collections.defaultdict(set)
    for name, cell in cells.items():
        for bits in cell["connections"].values():
            for bit in bits:
                if isinstance(bit, int):
                    pins[bit].add(name)
    boxes, members = [], []
    for names in pins.values():
        inside = [number[name] for name in names if name in number]
        if not inside or not 2 <= len(names) < WIDE:
            continue
        spots = [_site(cells[name])[:2] for name in names if name not in number]
        box = []
        for along in zip(*spots, strict=True) if spots else ((), ()):
            box += [min(along, default=1 << 20), max(along, default=-1)]
        boxes.append(box)
        members.append(inside)
    nets: list[list[int]] = [[] for _ in moved]
    for net, inside in enumerate(members):
        for k in inside:
            nets[k].append(net)
    before, after = _anneal(
        np.array(boxes), *_table(members), *_table(nets),
        np.array([[column, row] for _, column, row, _ in places]), first, kinds, at,
        MOVES * len(moved), seed)
    return {name: "X{1}/Y{2}/{3}".format(*places[at[k]]) for k, name in enumerate(moved)}, \
        int(before), int(after)


def _table(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Lists one after the other, and where each begins."""
    return np.cumsum([0, *map(len, lists)]), np.array([k for each in lists for k in each])


@numba.njit(cache=True)
def _length(net, boxes, starts, members, spots, at):
    """Half the circumference of a net's bounding box."""
    left, right, top, bottom = boxes[net]
    for j in range(starts[net], starts[net + 1]):
        column, row = spots[at[members[j]]]
        left, right = min(left, column), max(right, column)
        top, bottom = min(top, row), max(bottom, row)
    return right - left + bottom - top


@numba.njit(cache=True)
def _anneal(boxes, net_starts, members, cell_starts, nets, spots, first, kinds, at, steps, seed):
    """Moves cells to other sites of their type, or exchanges them, in place; tiles before, after.
    """
    np.random.seed(seed)
    holder = np.full(len(spots), -1)
    for cell in range(len(at)):
        holder[at[cell]] = cell
    before = 0
    for net in range(len(boxes)):
        before += _length(net, boxes, net_starts, members, spots, at)
    for step in range(steps):
        heat = HOT * (1 - step / steps) ** 2 + 1e-3
        cell = np.random.randint(len(kinds))
        new = np.random.randint(first[kinds[cell]], first[kinds[cell] + 1])
        old = at[cell]
        other = holder[new]
        if new == old:
            continue
        change = 0
        for sign in (-1, 1):
            for each in (cell, other):
                if each >= 0:
                    for j in range(cell_starts[each], cell_starts[each + 1]):
                        change += sign * _length(nets[j], boxes, net_starts, members, spots, at)
            if sign < 0:
                at[cell] = new
                if other >= 0:
                    at[other] = old
        if change <= 0 or np.random.random() < np.exp(-change / heat):
            holder[new], holder[old] = cell, other
        else:
            at[cell] = old
            if other >= 0:
                at[other] = new
    after = 0
    for net in range(len(boxes)):
        after += _length(net, boxes, net_starts, members, spots, at)
    return before, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    for name in ("placed", "netlist", "output"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--router", default="router2")
    arguments = parser.parse_args()
    found, before, after = floorplan(json.loads(arguments.placed.read_text()), arguments.seed)
    netlist = json.loads(arguments.netlist.read_text())
    top = netlist["modules"]["top"]
    for name, site in found.items():
        top["cells"][name]["attributes"]["BEL"] = site
    top["settings"] = {"router": arguments.router} | {
        f"router2/bbMargin/{axis}": f"{MARGIN:032b}" for axis in "xy"} | {
        f"router2/{name}": str(weight) for name, weight in CONGESTION.items()}
    arguments.output.write_text(json.dumps(netlist))
    print(f"{len(found)} multipliers and block memories: {before} tiles of wire before, "
          f"{after} after")


if __name__ == "__main__":
    main()
