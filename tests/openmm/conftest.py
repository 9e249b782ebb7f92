"""Fixtures of the OpenMM tests."""

import pytest
from models_for_tests import save_bpnn, save_embedded


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return save_embedded(tmp_path_factory.mktemp("model") / "embedded.pt")


@pytest.fixture(scope="session")
def bpnn(tmp_path_factory):
    return save_bpnn(tmp_path_factory.mktemp("model") / "bpnn.pt")
