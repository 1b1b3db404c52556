# SPDX-License-Identifier: Apache-2.0
"""Every unit alone, in Verilator against its reference, with stalls from none to heavy."""

import subprocess

import pytest

from cardsim.benches import run
from rtl_gen import cli, units

#: Settings small enough to simulate in seconds.
SETTINGS = {"engine": {"channels": "2", "vector_lanes": "2", "plane_windows": "32",
                       "acc_rows": "16", "heads": "2"},
            "channel": {"fifo_beats": "16", "aux_beats": "16"},
            "epilogue": {"scratch_words": "256", "kv_scales": "256", "context": "64"},
            "exp": {"lanes": "4"}, "gelu": {"lanes": "4"}, "gelu_erf": {"lanes": "2"},
            "quantise": {"lanes": "8", "depth": "6"},
            "softmax": {"lanes": "4", "words": "8", "tokens": "2"},
            "layernorm": {"lanes": "4", "words": "16"}, "sampler": {"top_k": "8"},
            "link": {"beat_bytes": "16", "depth": "32", "frame_beats": "4", "timeout": "120",
                     "keepalive": "40", "silence": "600"},
            "exchange": {"channels": "8", "vector_lanes": "8", "scratch_words": "256"},
            "reader": {"beat_bytes": "16", "burst": "16", "outstanding": "4"}}


def test_every_unit_has_a_bench():
    assert run.BENCHES.keys() == units.UNITS.keys()


def write(unit, settings, folder):
    """Generate a unit and lint it."""
    cli.write(cli.generate(unit, "tiny", settings), folder,
              units.describe(unit, "tiny", settings))
    lint = subprocess.run(
        ["verilator", "--lint-only", "-Wall", "waivers.vlt", "-f", "files.f"], cwd=folder,
        text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert lint.returncode == 0, lint.stdout


@pytest.mark.cosim
@pytest.mark.parametrize("unit", units.UNITS)
def test_unit_equals_its_reference(unit, build_root):
    folder = build_root / "units" / unit
    write(unit, SETTINGS.get(unit, {}), folder)
    # Fails by itself under pytest; the folder stays, for
    # `python -m cardsim.benches.run FOLDER --waves`.
    assert run.run(folder, coverage=True) == 0
    assert (folder / "build" / "coverage.dat").exists()


@pytest.mark.cosim
def test_messages_of_words_of_one_beat(build_root):
    """Both sides share every cycle of the scratchpad's ports."""
    folder = build_root / "units" / "exchange-narrow"
    write("exchange", {"vector_lanes": "4", "scratch_words": "256"}, folder)
    assert run.run(folder) == 0


@pytest.mark.cosim
@pytest.mark.parametrize(("unit", "settings"), [
    ("softmax", {"lanes": "2", "words": "2"}), ("quantise", {"lanes": "2", "depth": "1"}),
    ("layernorm", {"lanes": "2", "words": "1"}), ("exp", {"lanes": "1"}),
    ("reader", {"beat_bytes": "1", "burst": "1", "outstanding": "1"})])
def test_the_smallest_is_clean(unit, settings, tmp_path):
    """Signals without bits, for one, which Verilog does not have."""
    write(unit, settings, tmp_path)
