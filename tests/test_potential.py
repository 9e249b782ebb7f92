"""`nearsight.Potential` against the closed form of a test potential, and its messages."""

import copy
import pickle

import numpy as np
import pytest
from ase.data import atomic_numbers
from models_for_tests import CUTOFF, SPECIES, random_structure, reference, save_embedded

import nearsight
from nearsight.errors import ConfigError, EvaluationError, ModelFileError

CELL = np.array([[6.0, 0.0, 0.0], [2.0, 5.5, 0.0], [-1.0, 2.5, 7.0]])
POSITIONS, SYMBOLS = random_structure(1, 15, CELL)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_embedded(tmp_path_factory.mktemp("model") / "embedded.pt")


@pytest.fixture(scope="module")
def potential(path):
    return nearsight.Potential(path)


def assert_results(found, expected):
    assert found.energy == pytest.approx(expected["energy"], rel=1e-13)
    for name in ("energies", "forces", "virial"):
        np.testing.assert_allclose(getattr(found, name), expected[name], rtol=1e-11, atol=1e-11)
    sums = found.virials.sum(0)
    whole = found.virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    np.testing.assert_allclose(sums, whole, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("pbc", [True, False, (True, False, True)], ids=str)
def test_closed_form(potential, pbc):
    found = potential.compute(POSITIONS, SYMBOLS, CELL, pbc)
    assert_results(found, reference(POSITIONS, SYMBOLS, CELL, pbc))


def test_symbols_and_numbers_are_the_same(potential):
    numbers = np.array([atomic_numbers[symbol] for symbol in SYMBOLS])
    expected = reference(POSITIONS, SYMBOLS)
    assert_results(potential.compute(POSITIONS, numbers), expected)
    assert_results(potential.compute(POSITIONS.tolist(), SYMBOLS), expected)


def test_what_it_tells(potential, path):
    assert potential.path == str(path)
    assert potential.species == list(SPECIES)
    assert potential.cutoff == CUTOFF
    assert potential.backend == "torchscript"
    np.testing.assert_array_equal(potential.species_indices(["O", "H", "Si"]), [1, 0, 2])


def test_mixed_precision_is_close(path):
    found = nearsight.Potential(path, precision="mixed").compute(POSITIONS, SYMBOLS, CELL, True)
    expected = reference(POSITIONS, SYMBOLS, CELL, True)
    assert abs(found.energy - expected["energy"]) < 1e-6 * len(SYMBOLS)
    assert np.abs(found.forces - expected["forces"]).max() < 1e-5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies(path, copied):
    potential = copied(nearsight.Potential(path, skin=0.5))
    assert_results(
        potential.compute(POSITIONS, SYMBOLS, CELL, True), reference(POSITIONS, SYMBOLS, CELL, True)
    )


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ((POSITIONS[:2], ["H", "He"]), r"^atom 1 is He, which the model .* does not know; .* H, O, Si$"),
        ((POSITIONS[:2], [1, 79]), r"^atom 1 is Au, which the model .* does not know"),
        ((POSITIONS[:3], ["H", "O"]), r"^positions have shape \(3, 3\), but 2 atoms need \(2, 3\)$"),
        ((POSITIONS[:1], ["H"], np.ones(3), True), r"^the cell has shape \(3,\), expected \(3, 3\)"),
        ((POSITIONS[:1], ["H"], None, True), "cell"),
        ((POSITIONS[:1] * np.nan, ["H"]), "finite|NaN|nan"),
        ((np.zeros((2, 3)), ["H", "O"]), "atom"),
    ],
)
def test_structures_that_cannot_be_right(potential, arguments, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        potential.compute(*arguments)


def test_an_atomic_number_that_does_not_exist(potential):
    with pytest.raises(ConfigError, match="atomic numbers are 1 to 118, found 0"):
        potential.compute(POSITIONS[:1], [0])


@pytest.mark.parametrize(
    "options, sentence",
    [({"backend": "onnx"}, "auto, native or torchscript"), ({"precision": "half"}, "mixed or double")],
)
def test_options_that_do_not_exist(path, options, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        nearsight.Potential(path, **options)


def test_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match=r"absent\.pt"):
        nearsight.Potential(tmp_path / "absent.pt")
