# SPDX-License-Identifier: Apache-2.0
"""The functional card, and the FP32 reference, against stored results of FP32 transformers.

The golden files are data of another implementation: nothing of this repository computed them.
"""

import dataclasses

import numpy as np
import pytest
import safetensors.numpy

import heddle
from heddle.checkpoint import Checkpoint
from heddle.evaluate import evaluate
from heddle.reference import Reference, log_probabilities
from tests.golden.cases import CASES, Case, digest
from tests.sw import models


@dataclasses.dataclass(frozen=True)
class Bound:
    """What rounding may change: logits (root mean square of the difference, relative), nats."""

    logits: float
    nats: float
    #: Best tokens may differ where FP32's two best logits are no further apart.
    margin: float


#: Weights on the grid of signed bytes leave 16-bit activations, K and V as the only rounding.
#: The other form of GELU would already be 2e-4 off.
EXACT = Bound(logits=1.2e-4, nats=5e-3, margin=5e-3)
#: Weights rounded to bytes: half a step of 1/127 of a row's largest weight in every weight.
ROUNDED = Bound(logits=0.02, nats=0.3, margin=0.25)
#: Trained weights, whose errors add up to less than those of random ones.
TRAINED = Bound(logits=0.01, nats=0.2, margin=0.25)
BOUNDS = {"awkward": ROUNDED, "erf": EXACT, "demo": TRAINED}


def golden(case: Case, folder) -> dict[str, np.ndarray]:
    """The arrays of a golden file, which must belong to the model in ``folder``."""
    with safetensors.safe_open(case.file, "np") as file:
        written = file.metadata()["weights"]
    assert written == digest(folder), (
        f"{case.file.name} was written for other weights: "
        f"run .venv/bin/python -m tests.golden.write {case.name}")
    return safetensors.numpy.load_file(case.file)


@pytest.fixture(scope="module", params=CASES)
def stored(request, tmp_path_factory):
    """(case, folder of its model, arrays of its golden file)"""
    case = CASES[request.param]
    folder = case.folder(tmp_path_factory.mktemp(case.name))
    return case, folder, golden(case, folder)


def relative(found: np.ndarray, want: np.ndarray) -> float:
    off = found.astype(np.float64) - want
    return float(np.sqrt(np.square(off).mean() / np.square(want, dtype=np.float64).mean()))


def test_the_reference_is_hugging_faces(stored):
    _, folder, want = stored
    logits = Reference(Checkpoint(folder)).logits(want["tokens"])
    assert np.std(want["logits"]) > 3
    np.testing.assert_allclose(logits[want["places"]], want["logits"], atol=1e-4, rtol=0)
    np.testing.assert_array_equal(logits.argmax(axis=1), want["best"])
    logs = log_probabilities(logits[:-1])[np.arange(len(logits) - 1), want["tokens"][1:]]
    np.testing.assert_allclose(logs, want["logs"], atol=1e-4)


def test_the_card_is_within_its_bound(stored):
    case, folder, want = stored
    bound, tokens = BOUNDS[case.name], want["tokens"].tolist()
    with heddle.load(folder, cards="sim:tiny") as model:
        logits, results = models.steps(model.runtime, tokens)
    off = relative(logits[want["places"]], want["logits"])
    assert off < bound.logits
    if bound is not EXACT:
        assert off > EXACT.logits, "weights that are not rounded need no wide bound"
    best = np.array([result.token for result in results])
    np.testing.assert_array_equal(best, logits.argmax(axis=1))
    assert want["margins"][best != want["best"]].max(initial=0) <= bound.margin
    # The card's own record: logit of the best token less the log of the sum of all exponentials.
    sums = np.array([result.log_sum for result in results])
    logs = logits[np.arange(len(tokens) - 1), tokens[1:]] - sums[:-1]
    assert np.abs(logs - want["logs"]).max() < bound.nats


def test_perplexity_is_that_of_fp32():
    case = CASES["demo"]
    want = golden(case, case.folder(case.file))
    with heddle.load(case.folder(case.file), context=case.count) as model:
        found = evaluate(model.runtime, want["tokens"].tolist())
    np.testing.assert_allclose(found.perplexity, np.exp(-want["logs"].mean(dtype=np.float64)),
                               rtol=0.002)
    assert np.mean(np.array(found.best_token_ids) == want["best"][:-1]) >= 0.98


@pytest.mark.torch
def test_transformers_still_says_the_same(stored):
    """To the last few bits: how sums are split depends on the vector width of the processor."""
    from tests.golden import write

    case, folder, want = stored
    found, about = write.golden(case, folder)
    again, _ = write.golden(case, folder)
    assert about["weights"] == digest(folder)
    assert found.keys() == want.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)
        np.testing.assert_allclose(array, want[name], rtol=0, err_msg=name,
                                   atol=5e-5 if array.dtype == np.float32 else 0)
