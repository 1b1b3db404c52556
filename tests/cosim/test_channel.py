# SPDX-License-Identifier: Apache-2.0
"""A channel in Verilator against AXI4 as cocotbext-axi reads the standard."""

import dataclasses
import pathlib

import pytest
from cocotb_tools.runner import get_runner

from rtl_gen import emit
from rtl_gen.memory import Channel
from rtl_gen.spec.config import TINY

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.cosim
def test_channel_against_another_memory(build_root):
    folder = build_root / "channel"
    config = dataclasses.replace(TINY, fifo_beats=16, aux_beats=16)
    sources = emit.write(emit.convert(Channel(config), "channel"), folder)
    runner = get_runner("verilator")
    runner.build(sources=sources, hdl_toplevel="channel", build_dir=folder / "build",
                 timescale=("1ns", "1ps"), build_args=["-Wno-fatal", "--assert", "-CFLAGS", "-O0"])
    runner.test(hdl_toplevel="channel", test_module="tests.cosim.bench_channel", test_dir=ROOT,
                build_dir=folder / "build", results_xml=str(folder / "results.xml"))
