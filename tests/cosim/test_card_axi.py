# SPDX-License-Identifier: Apache-2.0
"""A whole card under cocotb: AXI as somebody else reads it, the host's code in a thread."""

import dataclasses
import pathlib

import pytest
from cocotb_tools.runner import VerilatorControlFile

from cardsim.benches.run import ports_only
from rtl_gen import emit
from rtl_gen.spec.config import TINY

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Channels so small that simulated memories need no care.
CONFIG = dataclasses.replace(TINY, name="pins", channel_bytes=1 << 22)
TOP = f"heddle_{CONFIG.name}"


@pytest.mark.cosim
@pytest.mark.slow
def test_card_between_other_peoples_axi(build_root):
    folder = build_root / "card_axi"
    sources = emit.write(emit.card(CONFIG), folder)
    control = folder / "waivers.vlt"
    control.write_text("".join([
        "`verilator_config\n", *(f"lint_off -rule {rule}\n" for rule in emit.WAIVED),
        f'public_flat_rw -module "{TOP}" -var "*"\n']))
    runner = ports_only()
    runner.build(sources=[VerilatorControlFile(control), *sources], hdl_toplevel=TOP,
                 build_dir=folder / "build", timescale=("1ns", "1ps"),
                 build_args=["-Wno-fatal", "--assert", "-O1", "-CFLAGS", "-O0"])
    runner.test(hdl_toplevel=TOP, test_module="tests.cosim.bench_card", test_dir=ROOT,
                build_dir=folder / "build", results_xml=str(folder / "results.xml"))
