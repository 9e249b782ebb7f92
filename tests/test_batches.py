"""Many structures at once give what each of them gives."""

import itertools

import numpy as np
import pytest
import torch
from batches_for_tests import CONFIGS, OPEN, assert_same, compare, frames, save
from core.charge_models import case, random_model
from core.test_charge_models import save as save_charged

from nearsight.data import Frame
from nearsight.errors import EvaluationError
from nearsight.export import save_model
from nearsight.interfaces.potential import Potential
from nearsight.lib import _core
from nearsight.models import BPNNConfig


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


@pytest.fixture
def potential(paths):
    return Potential(paths["acsf"])


def test_an_empty_batch_and_an_empty_frame(potential):
    assert potential.compute_batch([]) == []
    empty = Frame(np.zeros((0, 3)), [], OPEN, [False] * 3)
    found = potential.compute_batch([empty, *frames()[:2], empty])
    assert found[0].energy == found[3].energy == 0.0
    assert found[0].forces.shape == (0, 3) and not found[0].virial.any()
    assert_same(found[1], potential.compute_frame(frames()[0]), 1e-12)


def test_progress_counts_frames_and_batches_are_bounded(potential):
    structures, seen = frames(), []
    potential.compute_batch(structures, batch_atoms=15, progress=seen.append)
    sizes = [len(each) for each in structures]
    bounds = [0, *seen]
    groups = [sizes[first:last] for first, last in itertools.pairwise(bounds)]
    assert seen[-1] == len(structures) and max(map(len, groups)) > 1
    assert all(sum(group) <= 15 or len(group) == 1 for group in groups)


@pytest.mark.parametrize(("name", "most"), [("acsf", 1024), ("two interactions", 128), ("painn", 128)])
def test_batches_are_as_large_as_helps(paths, name, most):
    """One thread, and two."""
    structures = [frames()[0]] * (4 * most // 14)
    for threads in (1, 2):
        seen = []
        Potential(paths[name], threads=threads).compute_batch(structures, progress=seen.append)
        assert seen[0] == threads * most // 14


def moved(structure, atom, place):
    structure.positions[atom] = place
    return structure


def renamed(structure):
    structure.symbols[2] = "Kr"
    return structure


WRONG = {
    "unknown element": (renamed, "atom 2 is Kr, which the model"),
    "too close": (
        lambda structure: moved(structure, 4, structure.positions[3] + [5e-4, 0, 0]),
        "Å from atom [34] .counted from 0.: atoms must not be on top of each other",
    ),
    "not a number": (lambda structure: moved(structure, 1, np.nan), "a position is not a finite number"),
    "far away": (lambda structure: moved(structure, 3, 1e10), "atom 3 is at"),
}


def flat(structure):
    structure.cell[2] = structure.cell[0] + structure.cell[1]
    return structure


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", WRONG)
def test_errors_name_the_frame(paths, name, threads, device, monkeypatch):
    monkeypatch.setenv("NEARSIGHT_CUDA", "emulated")
    change, message = WRONG[name]
    structures = frames()
    change(structures[6])
    potential = Potential(paths["acsf"], threads=threads, device=device)
    with pytest.raises(EvaluationError, match=f"^structure 6: .*{message}"):
        potential.compute_batch(structures)
    assert_same(potential.compute_batch(frames())[6], potential.compute_frame(frames()[6]), 1e-10)


def test_a_flat_cell_in_a_batch(potential):
    structures = frames()
    flat(structures[9])
    with pytest.raises(EvaluationError, match=r"^structure 9: the cell is .* Å thick along periodic"):
        potential.compute_batch(structures)


def test_extrapolations_and_members(paths):
    potential = Potential(paths["committee"])
    found = potential.compute_batch(frames(), members=True, extrapolations=True)
    for one, each in zip(found, frames()):
        alone = potential.compute_frame(each, members=True, extrapolations=True)
        assert one.extrapolations == alone.extrapolations
        assert_same(one, alone, 1e-12)
    assert any(one.extrapolations for one in found)
    with pytest.raises(EvaluationError, match=r"^structure 1: .* is no committee"):
        Potential(paths["acsf"]).compute_batch(frames(), members=True)


def test_an_eigenstate_is_evaluated_one_by_one(tmp_path):
    torch.manual_seed(1)
    model = BPNNConfig(cutoff=4.0, states=2).build(["H", "O", "Si"])
    energies = dict.fromkeys(model.species, 0.0)
    path = tmp_path / "states.pt"
    save_model(path, model, reference_energies=energies, reference_energies_source="given", provenance={})
    compare(Potential(path), 1e-12)
    evaluator = _core.Evaluator(str(path))
    assert not evaluator.has_batches
    arguments = (np.zeros((1, 3)), np.zeros(1), [0, 1], np.zeros((1, 3, 3)), [[False] * 3])
    with pytest.raises(
        EvaluationError, match="cannot be evaluated for several systems at once, since its en"
    ):
        evaluator.evaluate_batch(*arguments)


@pytest.mark.parametrize("kind", ["fixed", "environment"])
def test_charges_are_those_of_the_frame(tmp_path, kind):
    path = save_charged(tmp_path / "charged.pt", random_model(kind))
    potential = Potential(path)
    structures = []
    for charge in (None, 0.0 if kind == "fixed" else 1.0):
        positions, species, *_ = case("open", False, kind)
        info = {} if charge is None else {"charge": charge}
        symbols = [potential.species[number] for number in species]
        structures.append(Frame(positions, symbols, OPEN, [False] * 3, info=info))
    found = potential.compute_batch(structures)
    for one, each in zip(found, structures):
        args = (each.positions, each.symbols, None, False)
        assert_same(one, potential.compute(*args, each.info.get("charge")), 1e-12)
        np.testing.assert_array_equal(one.charges, potential.compute_frame(each).charges)
    assert kind == "fixed" or found[1].charges.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"first_atoms": [0, 3]},
        {"first_atoms": [1, 2, 3]},
        {"first_atoms": [0, 4, 3]},
        {"pbc": [[True] * 3]},
        {"cells": OPEN},
    ],
)
def test_arrays_that_do_not_belong_together(paths, change):
    arguments = {
        "positions": np.eye(3),
        "species": np.zeros(3, np.int32),
        "first_atoms": [0, 2, 3],
        "cells": np.zeros((2, 3, 3)),
        "pbc": [[False] * 3] * 2,
    }
    evaluator = _core.Evaluator(str(paths["acsf"]))
    assert len(evaluator.evaluate_batch(**arguments)["energy"]) == 2
    with pytest.raises(EvaluationError, match=r"and first_atoms \[s \+ 1\] rise from 0 to n"):
        evaluator.evaluate_batch(**arguments | change)
