# SPDX-License-Identifier: Apache-2.0
"""The trained demo model: what rounding to the card's formats costs it."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import heddle
from rtl_gen.spec.config import CONFIGS
from sw.tools.accuracy import Foretold, judge

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "sw" / "models" / "shakespeare-gpt2"
WINDOWS = 2


def accuracy(path, *options):
    """(exit status, what ``sw/tools/accuracy.py`` wrote) on the first windows of the text."""
    done = subprocess.run(
        [sys.executable, ROOT / "sw/tools/accuracy.py", FOLDER, "--text", FOLDER / "heldout.txt",
         "--limit", str(WINDOWS), "--json", path, *options],
        capture_output=True, text=True, check=False)
    assert path.exists(), done.stderr
    return done.returncode, json.loads(path.read_text())


def test_the_card_is_as_good_as_fp32(tmp_path):
    status, found = accuracy(tmp_path / "a.json")
    assert (found["windows"], found["tokens"]) == (WINDOWS, WINDOWS * 255)
    assert {figure["name"]: figure["limit"] for figure in found["figures"]} == {
        "perplexity off FP32": 0.002, "perplexity off dequantised": 0.002,
        "best tokens of FP32": 0.98, "best tokens of dequantised": 0.995,
        "largest FP32 margin lost": 0.25}
    assert all(figure["kept"] for figure in found["figures"]), found
    assert status == 0
    # Not the reference in disguise: weights of 8 bits do change something.
    assert found["perplexity"]["card"] != pytest.approx(found["perplexity"]["fp32"], rel=1e-6)


def test_limits_that_are_not_kept_are_told():
    """An unsure place may flip, a sure one may not; and so for each other figure."""
    places = 200
    logs, best = np.full(places, -3.0), np.arange(places)
    margins = np.full(places, 0.3, np.float32)
    margins[7] = 0.1
    exact = Foretold(best, logs, margins)

    def broken(changed=(), off=0.0):
        tokens = best.copy()
        tokens[list(changed)] = -1
        figures = judge(Foretold(tokens, logs + off), exact, exact)
        return [figure.name for figure in figures if not figure.kept]

    assert broken() == broken([7]) == broken(off=0.0019) == []
    assert broken([8]) == ["largest FP32 margin lost"]
    assert broken([7, 8]) == ["best tokens of dequantised", "largest FP32 margin lost"]
    assert broken(range(5))[0] == "best tokens of FP32"
    assert broken(off=-0.0021) == ["perplexity off FP32", "perplexity off dequantised"]


def test_a_text_is_made_as_the_documentation_shows():
    with heddle.load(FOLDER, cards="sim:tiny") as model:
        text = model.generate("ROMEO.\n", max_new_tokens=16, temperature=0.8, top_k=40, seed=1)
        again = "".join(model.stream("ROMEO.\n", max_new_tokens=16, temperature=0.8, top_k=40,
                                     seed=1))
    assert text == again
    assert len(text) > 16


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("pattern", ["dense", "2:4"])
def test_it_fits_every_card(config, pattern):
    """With all of its context: what the pages of the boards say to run does run."""
    with heddle.load(FOLDER, cards=f"sim:{config}", pattern=pattern) as model:
        layout = model.runtime.layout
        assert layout.context == layout.shape.context == 256
        assert len(model.generate("ROMEO.", max_new_tokens=3).token_ids) == 3
