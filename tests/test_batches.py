"""Many structures at once give what each of them gives."""

import pytest
from batches_for_tests import CONFIGS, compare, save

from nearsight.interfaces.potential import Potential


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: save(name, folder / f"{name}.pt") for name in CONFIGS}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CONFIGS)
def test_batches_equal_single_frames(paths, name, threads):
    for precision, relative in (("double", 1e-12), ("mixed", 1e-6)):
        potential = Potential(paths[name], precision=precision, threads=threads)
        compare(potential, relative, members=name == "committee")
