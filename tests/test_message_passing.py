"""Message passing: symmetries, derivatives, smoothness, of MACE and PaiNN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from message_passing_models import (
    CONFIGS,
    CUTOFF,
    close,
    derivative,
    energy_forces,
    graph_of,
    make,
    molecule,
    rotation,
)

from nearsight.couple import evaluate
from nearsight.export.torchscript import script
from nearsight.neighbors import Graph


@pytest.fixture(scope="module", params=[*CONFIGS, "painn"])
def model(request):
    return make(request.param)


@pytest.mark.parametrize("sign", [1, -1])
def test_rotation_reflection_translation(model, sign):
    positions, species = molecule()
    energy, forces = energy_forces(model, positions, species)
    matrix = sign * rotation(4)
    moved = energy_forces(model, positions @ matrix.T + [3.0, -5.0, 7.0], species)
    close(moved[0], energy)
    close(moved[1], forces @ matrix.T)
    np.testing.assert_allclose(forces.sum(0), 0, atol=1e-12 * np.abs(forces).max() * 10)


def test_permutation_of_like_atoms(model):
    positions, species = molecule()
    order = np.random.default_rng(1).permutation(len(species))
    energy, forces = energy_forces(model, positions, species)
    found = energy_forces(model, positions[order], species[order])
    close(found[0], energy)
    close(found[1], forces[order])


def test_forces_are_central_differences(model):
    positions, species = molecule(3)
    cell = np.array([[5.0, 0.0, 0.0], [0.7, 5.2, 0.0], [-0.4, 0.5, 4.8]])
    forces = energy_forces(model, positions, species, cell)[1]
    for atom, axis in ((0, 0), (2, 1), (5, 2)):
        slope = derivative(lambda moved: energy_forces(model, moved, species, cell)[0], positions, atom, axis)
        assert -slope == pytest.approx(forces[atom, axis], abs=1e-8 * np.abs(forces).max())


@pytest.mark.parametrize("distance", [CUTOFF - 1e-6, CUTOFF, CUTOFF + 0.05])
def test_continuous_at_the_cutoff(model, distance):
    """Energy and forces are the same with and without an edge at the cutoff, or beyond it."""
    positions, species = molecule(5, 4)
    positions = np.append(positions, [positions[0] + [distance, 0.0, 0.0]], axis=0)
    vectors = positions[None] - positions[:, None]
    i, j = np.nonzero((np.linalg.norm(vectors, axis=2) < CUTOFF + 0.1) & ~np.eye(5, dtype=bool))
    between = {0, 4}
    found = []
    for keep in (i >= 0, np.array([{a, b} != between for a, b in zip(i, j)])):
        edges, kinds = torch.tensor(np.array([i[keep], j[keep]])), torch.tensor([*species, 1])
        frame = torch.zeros(5, dtype=torch.int64)
        found.append(
            evaluate(model, Graph(kinds, edges, torch.tensor(vectors[i, j][keep]), frame), model.couple)
        )
    assert len(i) > int(keep.sum())
    assert abs(float(found[0].energy - found[1].energy)) < 1e-9
    assert float((found[0].forces - found[1].forces).abs().max()) < 1e-9


def test_two_copies_have_twice_the_energy(model):
    positions, species = molecule()
    energy, forces = energy_forces(model, positions, species)
    both = energy_forces(model, np.vstack([positions, positions + 50.0]), np.tile(species, 2))
    close(both[0], 2 * energy)
    close(both[1], np.tile(forces, (2, 1)))


def test_supercell(model):
    positions, species = molecule(2)
    cell = np.array([[5.0, 0.0, 0.0], [0.7, 5.2, 0.0], [-0.4, 0.5, 4.8]])
    energy, forces = energy_forces(model, positions, species, cell)
    double = cell * [[2.0], [1.0], [1.0]]
    found = energy_forces(model, np.vstack([positions, positions + cell[0]]), np.tile(species, 2), double)
    close(found[0], 2 * energy)
    close(found[1], np.tile(forces, (2, 1)))


def test_isolated_atom_and_dimer(model):
    energy, forces = energy_forces(model, np.zeros((1, 3)), np.array([1]))
    assert math.isfinite(energy) and not forces.any()
    positions = np.array([[0.0, 0.0, 0.0], [0.3, -0.5, 1.0]])
    _, forces = energy_forces(model, positions, np.array([0, 2]))
    np.testing.assert_allclose(np.cross(forces[1], positions[1]), 0, atol=1e-12 * np.abs(forces).max())
    np.testing.assert_allclose(forces[0], -forces[1], rtol=1e-12)


def test_scripted_module_agrees(model):
    graph = graph_of(*molecule(), CUTOFF)
    eager, scripted = (evaluate(m, graph, model.couple) for m in (model, script(model)))
    close(scripted.energy.numpy(), eager.energy.numpy(), 1e-13)
    close(scripted.forces.numpy(), eager.forces.numpy(), 1e-13)


def test_halo_atoms(model):
    """Owned atoms have the same energies when the others are only halo, whose rows are left out."""
    positions, species = molecule(7, 8)
    graph = graph_of(positions, species, CUTOFF)
    with torch.no_grad():
        everything = model(graph.species, graph.edge_index, graph.edge_vectors, 8)["energy"]
        some = model(graph.species, graph.edge_index, graph.edge_vectors, 3)["energy"]
        nothing = model(graph.species, graph.edge_index, graph.edge_vectors, 0)["energy"]
    close(some.numpy(), everything[:3].numpy())
    assert nothing.shape == (0,)


def test_single_precision(model):
    graph = graph_of(*molecule(), CUTOFF)
    exact = evaluate(model, graph, model.couple)
    try:
        single = evaluate(model.float(), graph.to(dtype=torch.float32), model.couple)
    finally:
        model.double()
    assert single.readouts["energy"].dtype == torch.float32
    close(single.forces.numpy(), exact.forces.numpy(), 1e-4)
    # Constants are exact again, weights are rounded.
    rounded = evaluate(model, graph, model.couple)
    close(rounded.forces.numpy(), exact.forces.numpy(), 1e-5)
