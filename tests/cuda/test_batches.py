"""Batches of structures on a GPU: the list of systems that do not see each other."""

import numpy as np
import pytest
from batches_for_tests import CONFIGS, assert_same, compare, frames, save

from nearsight.interfaces.potential import Potential

NATIVE = [name for name in CONFIGS if name != "painn"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: save(name, folder / f"{name}.pt") for name in NATIVE}


@pytest.mark.parametrize("skin", [0.0, 0.8])
@pytest.mark.parametrize("name", NATIVE)
def test_batches_equal_single_frames(paths, name, skin):
    for precision, relative in (("double", 1e-10), ("mixed", 1e-6)):
        potential = Potential(paths[name], precision=precision, skin=skin, device="cuda")
        compare(potential, relative, members=name == "committee")


@pytest.mark.parametrize("name", NATIVE)
def test_batches_equal_the_cpu(paths, name):
    expected = Potential(paths[name]).compute_batch(frames(), members=name == "committee")
    found = Potential(paths[name], device="cuda").compute_batch(frames(), members=name == "committee")
    for one, other in zip(found, expected):
        assert_same(one, other, 1e-10)


@pytest.mark.parametrize("name", ["acsf", "two interactions"])
def test_threads_in_any_order_give_the_same_bits(paths, name, monkeypatch):
    found = []
    for order in ("forward", "reverse"):
        monkeypatch.setenv("NEARSIGHT_EMULATION_ORDER", order)
        found.append(Potential(paths[name], device="cuda").compute_batch(frames()))
    for one, other in zip(*found):
        assert np.array_equal(one.forces, other.forces)
        assert np.array_equal(one.virial, other.virial)
