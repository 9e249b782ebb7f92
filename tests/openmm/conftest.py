"""Fixtures of the OpenMM tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    from models_for_tests import save_embedded

    return save_embedded(tmp_path_factory.mktemp("model") / "embedded.pt")


@pytest.fixture(scope="session")
def bpnn(tmp_path_factory):
    from models_for_tests import save_bpnn

    return save_bpnn(tmp_path_factory.mktemp("model") / "bpnn.pt")
