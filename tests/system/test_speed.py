# SPDX-License-Identifier: Apache-2.0
"""The tool that measures the functional card, and the bound on its memory."""

import json
import pathlib
import subprocess
import sys

import pytest

from heddle.errors import RunError
from heddle.layout import Layout
from heddle.options import Options
from heddle.shapes import find_shape
from rtl_gen.spec.config import TINY
from sw.tools import speed

TOOL = pathlib.Path(speed.__file__)


def test_memory_of_a_model_is_at_most_one_and_a_half_images():
    """Loading included.  No bound on time: that depends on what else the machine does."""
    found = speed.measure("gpt2-124m", cards="sim:tiny", context=2, tokens=2)
    assert found.ratio <= 1.5
    assert found.resident_bytes > found.image_bytes     # all of it is there
    memory = Layout(TINY, find_shape("gpt2-124m"), Options()).memory
    beats = memory.logits - memory.embedding + memory.cache - memory.layers
    assert found.image_bytes == beats * TINY.beat_bytes * TINY.channels
    assert found.tokens_per_second > 0
    assert found.tokens_per_cpu_second > 0


def test_figures_are_written_and_told(tmp_path):
    done = subprocess.run(
        [sys.executable, TOOL, "1:64:130", "--cards", "sim:tiny", "--pattern", "2:4",
         "--activation", "a8", "--context", "3", "--tokens", "2", "--json", tmp_path / "s.json"],
        capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1:64:130 2:4 on sim:tiny: ")
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    ratio = found.pop("memory_ratio")
    assert speed.Speed(**found).ratio == ratio
    assert (found["context"], found["tokens"], found["activation"]) == (3, 2, "a8")


@pytest.mark.parametrize(("arguments", "complaint"), [
    ({"shape": "gpt5"}, "shape must be one of"), ({"pattern": "2:5"}, "M of an N:M pattern"),
    ({"cards": "sim:huge"}, "configuration must be one of"), ({"tokens": 0}, "at least 1")])
def test_what_is_wrong_is_said(arguments, complaint):
    with pytest.raises(RunError, match=complaint):
        speed.measure(**{"shape": "1:64:130", **arguments})
