# SPDX-License-Identifier: Apache-2.0
"""Resources and longest paths: of netlists whose figures are known, and of one small unit."""

import json
import pathlib
import subprocess
import sys

import pairs
import paths
import pytest
import synthesis

from rtl_gen import emit
from rtl_gen.vector import SliceQuantiser

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Netlist:
    """A netlist as Yosys writes it; nets are numbered by name."""

    def __init__(self, **ports):
        self.nets: dict[str, int] = {}
        self.module = {"cells": {}, "netnames": {}, "ports": {
            name: {"direction": direction, "bits": [self.net(name)]}
            for name, direction in ports.items()}}

    def net(self, name: str) -> int:
        number = self.nets.setdefault(name, len(self.nets) + 2)
        if hasattr(self, "module"):
            self.module["netnames"][name] = {"hide_name": 0, "bits": [number]}
        return number

    def cell(self, kind, outputs=("O", "Q", "P", "CO"), parameters=None, **pins):
        """A cell; a pin's nets are separated by spaces."""
        self.module["cells"][f"cell_{len(self.module['cells'])}"] = {
            "type": kind, "parameters": parameters or {},
            "port_directions": {pin: "output" if pin in outputs else "input" for pin in pins},
            "connections": {pin: [self.net(name) for name in names.split()]
                            for pin, names in pins.items()}}


def test_a_chain_between_registers_has_the_delay_of_its_cells():
    net = Netlist(clk="input")
    net.cell("FDRE", C="clk", D="x", Q="a")
    net.cell("LUT2", I0="a", I1="far", O="b")
    net.cell("CARRY4", S="b b2 b3 b4", DI="a a a a", CO="c0 c1 c2 c3")
    net.cell("CARRY4", CI="c3", S="d0 d1 d2 d3", CO="e0 e1 e2 e3")
    net.cell("LUT6", I0="e3", I1="a", O="f")
    net.cell("MUXF7", I0="f", I1="a", S="a", O="g")
    net.cell("FDRE", C="clk", D="g", CE="a", Q="h")
    net.cell("LUT1", I0="h", O="x")         # shorter
    worst = paths.analyse(net.module, {}, "top").worst
    assert worst.words() == [
        "register top: a", "LUT", "CARRY", "CARRY", "LUT", "MUXF", "register top: h, pin D"]
    assert worst.levels == 3
    assert worst.delay == pytest.approx(
        paths.CLOCK_TO_Q + paths.LUT + paths.CARRY_IN + paths.CARRY + paths.LUT + paths.MUXF
        + paths.SETUP)


def test_carry_goes_up_only():
    net = Netlist(clk="input")
    net.cell("FDRE", C="clk", D="low", Q="a")
    net.cell("LUT1", I0="a", O="late")
    net.cell("CARRY4", outputs=("O",), S="s0 s1 s2 late", O="low o1 o2 high")
    assert paths.analyse(net.module, {}, "top").worst is None
    net.cell("FDRE", C="clk", D="high", Q="b")
    assert paths.analyse(net.module, {}, "top").worst.words()[-1] == "register top: b, pin D"


def test_a_path_through_a_module_counts_as_if_it_were_flat():
    """Out of a child's register, through another child, into a third."""
    child = Netlist(clk="input", i="input", through="input", o="output", out="output")
    child.cell("LUT2", I0="i", I1="i", O="d")
    child.cell("FDRE", C="clk", D="d", Q="q")
    child.cell("LUT2", I0="q", I1="q", O="o")
    child.cell("LUT3", I0="through", I1="i", I2="q", O="out")
    timing = paths.analyse(child.module, {}, "child")
    assert timing.worst is None
    lut = paths.LUT
    assert timing.early["i", 0].delay == pytest.approx(lut + paths.SETUP)
    assert timing.late["o", 0].delay == pytest.approx(paths.CLOCK_TO_Q + lut)
    assert {key: path.delay for key, path in timing.through.items()} == {
        (("i", 0), ("out", 0)): lut, (("through", 0), ("out", 0)): lut}

    parent = Netlist(clk="input")
    outputs = ("o", "out")
    parent.cell("child", outputs=outputs, clk="clk", o="x")
    parent.cell("child", outputs=outputs, clk="clk", through="x", out="y")
    parent.cell("LUT2", I0="y", I1="y", O="z")
    parent.cell("child", outputs=outputs, clk="clk", i="z")
    worst = paths.analyse(parent.module, {"child": timing}, "top").worst
    assert worst.delay == pytest.approx(paths.CLOCK_TO_Q + 4 * lut + paths.SETUP)
    assert worst.words() == ["register child: q", *4 * ["LUT"], "register child: q, pin D"]


def test_products_and_memories_start_and_end_paths():
    net = Netlist(clk="input")
    inferred = dict.fromkeys(("AREG", "BREG", "MREG", "PREG"), "0" * 32)
    net.cell("FDRE", C="clk", D="x", Q="a")
    net.cell("DSP48E2", parameters=inferred, A="a", B="a", P="p")
    net.cell("RAMB36E2", outputs=("DOUTADOUT",), CLKARDCLK="clk", ADDRARDADDR="p", DOUTADOUT="m")
    net.cell("DSP48E2", parameters={"PREG": "1"}, A="m", CLK="clk", P="y")
    timing = paths.analyse(net.module, {}, "top")
    assert timing.worst.words() == [
        "register top: a", "DSP", "block memory top: m, pin ADDRARDADDR"]
    assert timing.worst.delay == pytest.approx(
        paths.CLOCK_TO_Q + 2 * paths.WAY + paths.DSP + paths.RAM_SETUP)


def test_an_address_shows_its_own_output_only():
    net = Netlist(clk="input", a="input", h="input", y="output", z="output")
    net.cell("RAM32M16", outputs=("DOA", "DOH"), WCLK="clk", ADDRA="a", ADDRH="h", DOA="y",
             DOH="z")
    net.cell("SRL16E", CLK="clk", D="a", A0="h", Q="y2")
    timing = paths.analyse(net.module, {}, "top")
    assert set(timing.through) == {(("a", 0), ("y", 0)), (("h", 0), ("z", 0))}
    assert timing.late["y", 0].delay == pytest.approx(paths.SHIFT_TO_Q)
    assert timing.early["a", 0].delay == pytest.approx(paths.WAY + paths.SETUP)


def test_what_is_not_understood_is_refused():
    net = Netlist()
    net.cell("LUT1", I0="a", O="b")
    net.cell("LUT1", I0="b", O="a")
    with pytest.raises(ValueError, match="top has a loop of logic"):
        paths.analyse(net.module, {}, "top")
    net = Netlist()
    net.cell("PLL", I="a", O="b")
    with pytest.raises(ValueError, match="PLL must be given a delay"):
        paths.analyse(net.module, {}, "top")
    with pytest.raises(ValueError, match="PLL must be counted"):
        synthesis.count(net.module)


def test_cells_are_counted_in_luts_and_halves():
    net = Netlist()
    for kind in ("LUT1", "LUT6", "SRL16E", "RAM32M16", "FDRE", "FDSE", "RAMB18E2", "RAMB36E2",
                 "DSP48E2", "URAM288", "CARRY4", "heddle_lane", "heddle_lane"):
        net.cell(kind)
    area, children = synthesis.count(net.module)
    assert area == synthesis.Area(lut=11, packed=11, memory=9, ff=2, dsp=1, bram=1.5, uram=1)
    assert children == {"heddle_lane": 2}


def test_luts_of_few_shared_inputs_are_pairs():
    net = Netlist()
    for name in ("x", "y"):
        net.cell("LUT3", I0="a", I1="b", I2="s", O=name)            # a swap: a pair
    net.cell("LUT5", I0="a", I1="b", I2="c", I3="d", I4="e", O="v")
    net.cell("LUT2", I0="e", I1="d", O="w")                         # within the LUT5's: a pair
    net.cell("LUT4", I0="k", I1="l", I2="m", I3="n", O="o")
    net.cell("LUT4", I0="n", I1="p", I2="q", I3="r", O="t")         # seven inputs together
    net.cell("LUT2", I0="f", I1="g", O="u")                         # nothing in common
    for enable in ("en", "en", "en", "other"):
        net.cell("SRL16E", D="a", CLK="clk", CE=enable, Q=f"late_{enable}")
    assert pairs.pairs(net.module) == 3
    area, _ = synthesis.count(net.module)
    assert (area.lut, area.packed) == (11, 8)


def test_a_design_is_cut_at_its_leaves():
    texts = emit.convert(SliceQuantiser(tag=1, passes=False, lanes=4, depth=16), "heddle_top")
    found = synthesis.pieces(texts)
    assert list(found) == ["heddle_top", "heddle_rounding"]
    assert found["heddle_top"].children == ("heddle_rounding",)
    assert found["heddle_top"].text.count("(* blackbox *)\nmodule heddle_rounding(") == 1
    assert "heddle_ram_" in found["heddle_top"].text
    with pytest.raises(ValueError, match=r"heddle_top\.no must be modules of heddle_top"):
        synthesis.pieces(texts, ("heddle_top.no",))


def test_a_small_unit(tmp_path):
    """The quantiser with two lanes: what it must have, and not much more."""
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, ROOT / "sw/tools/resources.py", "--unit", "quantise", "--set", "lanes=2",
         "--set", "depth=16", "-o", "-", "--json", figures],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| `rounding` × 2 |" in done.stdout
    found = json.loads(figures.read_text())
    top, leaf = found["heddle_quantise"], found["heddle_rounding"]
    assert leaf["instances"] == 2
    assert top["total"]["lut"] == top["own"]["lut"] + 2 * leaf["own"]["lut"]
    # Rounding shifts 24 bits by up to 31 places, and registers what comes out.
    assert 60 < leaf["own"]["lut"] < 250
    assert 2 * 16 < leaf["own"]["ff"] < 150
    # The ring of words is memory, not registers.
    assert top["own"]["ff"] < 600
    assert top["own"]["memory"] > 0 or top["own"]["bram"] > 0
    assert 0.5 < top["path"]["ns"] < 5
    assert 1 <= top["path"]["levels"] <= 12


def test_a_wrong_unit_is_refused_in_a_sentence():
    done = subprocess.run([sys.executable, ROOT / "sw/tools/resources.py", "--unit", "lane"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("resources.py: the unit must be one of ")
    assert done.stderr.count("\n") == 1
