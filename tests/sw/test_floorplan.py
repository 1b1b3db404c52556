# SPDX-License-Identifier: Apache-2.0
"""Sites of multipliers and block memories."""

import random

import floorplan as tool
import pytest


def cell(kind, site, *nets):
    return {"type": kind, "attributes": {"NEXTPNR_BEL": site},
            "connections": {"A": list(nets), "B": ["0", "x"]}}


def design(rng, wires=8):
    """Macros on sites at random, each with wires to a LUT next to a site of its own."""
    cells, best = {}, {}
    for kind, rows in (("MULT18X18D", (10, 34)), ("DP16KD", (22, 46))):
        places = [(column, row) for row in rows for column in (4, 5, 13, 22, 40)]
        for number, (place, home) in enumerate(zip(
                rng.sample(places, len(places)), places, strict=True)):
            name = f"{kind} {number}"
            nets = [len(cells) * 100 + k for k in range(wires)]
            cells[name] = cell(kind, f"X{place[0]}/Y{place[1]}/{kind}_{place[0] % 3}", *nets)
            best[name] = f"X{home[0]}/Y{home[1]}/{kind}_{home[0] % 3}"
            for net in nets:
                cells[f"{name} lut {net}"] = cell(
                    "TRELLIS_COMB", f"X{home[0]}/Y{home[1] + 1}/SLICEA.COMB0", net)
    return {"modules": {"top": {"cells": cells}}}, best


@pytest.mark.parametrize("seed", range(3))
def test_cells_go_where_their_wires_are(seed):
    placed, best = design(random.Random(f"floorplan {seed}"))
    found, before, after = tool.floorplan(placed, seed)
    assert found == best
    assert after == 8 * len(best) < before      # each wire is one tile long
    assert tool.floorplan(placed, seed) == (found, before, after)


def test_sites_are_used_once_and_by_their_own_type():
    rng = random.Random("sites")
    placed, _ = design(rng)
    cells = placed["modules"]["top"]["cells"]
    everywhere = sorted(c["attributes"]["NEXTPNR_BEL"] for n, c in cells.items() if "lut" not in n)
    for name in rng.sample([name for name in cells if "lut" not in name], 6):
        del cells[name]         # free sites
    shared = [cells[name] for name in cells if "lut" not in name]
    for number in range(5):     # wires between them
        for each in rng.sample(shared, 3):
            each["connections"]["A"].append(10**6 + number)
    found, before, after = tool.floorplan(placed)
    assert after <= before
    assert set(found) == {name for name in cells if "lut" not in name}
    assert len(set(found.values())) == len(found)
    assert set(found.values()) <= set(everywhere)
    assert all(name.split()[0] in site for name, site in found.items())


def test_a_design_without_them_has_none():
    cells = {"a": cell("TRELLIS_COMB", "X1/Y1/SLICEA.COMB0", 2), "b": {
        "type": "VCC", "attributes": {}, "connections": {}}}
    assert tool.floorplan({"modules": {"top": {"cells": cells}}}) == ({}, 0, 0)


def test_rows_that_are_not_alike_are_refused():
    cells = {"a": cell("DP16KD", "X4/Y22/EBR_0", 2), "b": cell("DP16KD", "X4/Y46/EBR_1", 2)}
    with pytest.raises(ValueError, match="column 4 has EBR_0 and EBR_1"):
        tool.floorplan({"modules": {"top": {"cells": cells}}})
