# SPDX-License-Identifier: Apache-2.0
"""A small model, served."""

import openai
import pytest

from tests.serve import server
from tests.sw import models


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return models.text(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def models_(folder):
    with server.loaded(folder, activation="a8") as both:
        yield both


@pytest.fixture(scope="module")
def served(models_):
    """Address and application of a server that accepts 40 requests."""
    with server.serving(models_[0], limit=server.limit(queue=36)) as found:
        yield found


@pytest.fixture(scope="module")
def alone(models_):
    """The same model, on cards of its own."""
    return models_[1]


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0,
                       timeout=120) as found:
        yield found
