"""Virials in centroid form against closed form, and the heat flux that they give against differences."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

import nearsight
from nearsight.errors import EvaluationError
from nearsight.lib import _core

from .core_models import random_box

OPEN = [False, False, False]
PERIODIC = [True, True, True]
ROWS, COLUMNS = [0, 1, 2, 0, 0, 1, 1, 2, 2], [0, 1, 2, 1, 2, 2, 0, 0, 1]  # xx yy zz xy xz yz yx zx zy


def centroid(evaluator, positions, species, cell, pbc):
    """Virials of the atoms as matrices [n, 3, 3]: the first index is that of r_ij."""
    result = evaluator.evaluate(positions, species, cell, pbc, centroid=True)
    matrices = np.zeros((len(species), 3, 3))
    matrices[:, ROWS, COLUMNS] = result["centroid_virials"]
    return result, matrices


@pytest.mark.parametrize("backend", ["native", "torchscript"])
def test_heat_flux_is_the_time_derivative_of_the_energy_moment(bpnn, backend):
    """d/dt sum_i r_i e_i of an open cluster, with e_i = E_i + m_i v_i²/2 and m_i dv_i/dt = F_i."""
    positions, species, cell = random_box(11)
    rng = np.random.default_rng(11)
    v, mass = rng.normal(size=positions.shape), rng.uniform(1.0, 16.0, len(species))
    evaluator = _core.Evaluator(str(bpnn), backend=backend)
    result, virials = centroid(evaluator, positions, species, cell, OPEN)
    kinetic = 0.5 * mass * (v * v).sum(1)
    energies = result["energies"] + kinetic
    flux = (energies[:, None] * v).sum(0) + np.einsum("iab,ib->a", virials, v)

    def moment(t):
        x = positions + t * v
        return (evaluator.evaluate(x, species, cell, OPEN)["energies"][:, None] * x).sum(0)

    differences = [(moment(h) - moment(-h)) / (2 * h) for h in (1e-3, 5e-4)]
    power = (result["forces"] * v).sum(1)  # dE_kin/dt
    expected = (4 * differences[1] - differences[0]) / 3 + kinetic @ v + power @ positions
    size = np.abs(np.einsum("iab,ib->a", virials, v)).max()  # without the convected energies, which are huge
    assert np.abs(flux - expected).max() < 1e-6 * size


def test_all_of_an_edge_goes_to_its_neighbor(bpnn):
    """Two atoms: W_j = -r_ij dE_i/dr_ij, where dE_i/dr_ij follows from differences of E_i alone."""
    species, cell, h = np.array([0, 1], dtype=np.int32), np.zeros((3, 3)), 1e-4
    evaluator = _core.Evaluator(str(bpnn))
    r = np.array([0.7, -0.4, 0.9])
    _, virials = centroid(evaluator, np.array([[0, 0, 0], r]), species, cell, OPEN)
    gradients = np.zeros((2, 3))  # of E_0 and E_1 with respect to the position of atom 1
    for a in range(3):
        step = np.eye(3)[a] * h
        up, down = (
            evaluator.evaluate(np.array([[0, 0, 0], r + s]), species, cell, OPEN) for s in (step, -step)
        )
        gradients[:, a] = (up["energies"] - down["energies"]) / (2 * h)
    assert np.abs(gradients[0] - gradients[1]).max() > 0.1 * np.abs(gradients).max()
    np.testing.assert_allclose(virials[1], -np.outer(r, gradients[0]), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(virials[0], -np.outer(-r, -gradients[1]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("backend", ["native", "torchscript"])
def test_sum_is_the_virial(bpnn, backend):
    result, virials = centroid(_core.Evaluator(str(bpnn), backend=backend), *random_box(4), PERIODIC)
    np.testing.assert_allclose(
        virials.sum(0), result["virial"], rtol=0, atol=1e-11 * np.abs(result["virial"]).max()
    )
    assert np.abs(virials - virials.transpose(0, 2, 1)).max() > 1e-3 * np.abs(virials).max()


def test_threads(bpnn):
    box = random_box(6, n=150, edge=13.0)
    one, three = (centroid(_core.Evaluator(str(bpnn), threads=t), *box, PERIODIC)[1] for t in (1, 3))
    np.testing.assert_allclose(three, one, rtol=0, atol=1e-12 * np.abs(one).max())


REFUSAL = r"in centroid form \(heat flux\) need a model with one interaction layer whose energy is a sum over"


def test_models_without_it_are_refused(two_states):
    evaluator = _core.Evaluator(str(two_states))
    with pytest.raises(EvaluationError, match=REFUSAL):
        evaluator.evaluate(*random_box(4), PERIODIC, centroid=True)
    assert "centroid_virials" not in evaluator.evaluate(*random_box(4), PERIODIC)


@pytest.mark.parametrize("backend", ["auto", "torchscript"])
def test_several_interactions_have_virials_of_atoms_but_none_in_centroid_form(messages, backend):
    """An edge's gradient belongs to energies of several atoms then, so it cannot be said whose it is."""
    evaluator = _core.Evaluator(str(messages), backend=backend)
    with pytest.raises(EvaluationError, match=REFUSAL):
        evaluator.evaluate(*random_box(4), PERIODIC, centroid=True)
    found = evaluator.evaluate(*random_box(4), PERIODIC)
    total = found["virial"][[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    np.testing.assert_allclose(found["virials"].sum(0), total, rtol=0, atol=1e-11 * np.abs(total).max())


def test_stresses_of_atoms_in_ase(messages):
    positions, species, cell = random_box(4)
    atoms = Atoms(np.array(["H", "O"])[species], positions, cell=cell, pbc=True)
    atoms.calc = nearsight.Calculator(messages, precision="double")
    stress = atoms.get_stress()
    np.testing.assert_allclose(atoms.get_stresses().sum(0), stress, rtol=0, atol=1e-11 * np.abs(stress).max())
