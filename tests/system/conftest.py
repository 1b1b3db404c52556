# SPDX-License-Identifier: Apache-2.0
"""A small random model: its folder, opened on the functional card, and in floating point."""

import pytest

import heddle
from heddle.checkpoint import Checkpoint
from heddle.reference import Dequantised, Reference
from tests.sw import models


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return models.text(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    with heddle.load(folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def reference(folder):
    return Reference(Dequantised(Checkpoint(folder)))
