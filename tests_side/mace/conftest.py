"""Set up before anything imports e3nn, and a table of what the tests found."""

import os
import warnings

# e3nn's own files are older than the check that torch makes by now, and torch warns that it is left out.
os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mace.calculators  # noqa: F401

import pytest
from comparison import Comparison

_TABLE = pytest.StashKey[Comparison]()


@pytest.fixture(scope="session")
def comparison(request) -> Comparison:
    """Where every comparison with mace-torch is made and remembered."""
    return request.config.stash.setdefault(_TABLE, Comparison())


def pytest_terminal_summary(terminalreporter, config):
    if _TABLE in config.stash:
        terminalreporter.section("largest differences from mace-torch")
        terminalreporter.write_line(config.stash[_TABLE].table())
