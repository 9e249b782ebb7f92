"""MACE: symmetries, derivatives, smoothness, and the canonical form of its file."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from nearsight.couple import evaluate
from nearsight.export.torchscript import script
from nearsight.models import MACE, MACEConfig, build_model
from nearsight.neighbors import Graph, make_graph

SPECIES = ["H", "C", "O"]
CONFIGS = {
    "one interaction": {"channels": 4, "zbl": True},
    "two interactions": {"channels": 4, "num_interactions": 2},
    "both parities": {
        "channels": 3,
        "num_interactions": 3,
        "l_max": 2,
        "hidden": "0e + 0o + 1o + 1e",
        "correlation": 2,
        "density": True,
        "radial": {"basis": "chebyshev", "transform": "agnesi", "envelope": "functions"},
    },
    "gaussians": {
        "channels": 4,
        "num_interactions": 2,
        "l_max": 2,
        "hidden": "0e",
        "correlation": 1,
        "radial": {"basis": "gaussian", "transform": "soft", "hidden": [8]},
    },
}


def make(name: str, cutoff: float = 4.0) -> MACE:
    torch.manual_seed(1)
    config = MACEConfig(cutoff=cutoff, **CONFIGS[name])
    model = build_model(config, SPECIES)
    model.neighbors.fill_(1.0)
    model.set_mean_energies({"H": 0.1, "C": -0.2, "O": 0.3})
    return model


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request) -> MACE:
    return make(request.param)


def molecule(seed: int = 0, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positions = np.array([[x, y, z] for x in range(2) for y in range(2) for z in range(2)], dtype=float)
    positions = 1.6 * positions[:count] + rng.normal(scale=0.25, size=(count, 3))
    return positions, rng.integers(0, len(SPECIES), count)


def graph_of(positions, species, cutoff: float, cell=None) -> Graph:
    periodic = cell is not None
    box = np.asarray(cell) if periodic else np.zeros((3, 3))
    return make_graph(positions, species, box, [periodic] * 3, cutoff)


def energy_forces(model, positions, species, cell=None) -> tuple[float, np.ndarray]:
    results = evaluate(model, graph_of(positions, species, 4.0, cell), {"kind": "sum"})
    return float(results.energy), results.forces.numpy()


def close(found, expected, relative: float = 1e-11) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * np.abs(expected).max())


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.linalg.det(q)


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
    step = 1e-4
    for atom, axis in ((0, 0), (2, 1), (5, 2)):
        energies = []
        for shift in (-2, -1, 1, 2):
            moved = positions.copy()
            moved[atom, axis] += shift * step
            energies.append(energy_forces(model, moved, species, cell)[0])
        slope = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
        assert -slope == pytest.approx(forces[atom, axis], abs=1e-8 * np.abs(forces).max())


def test_smooth_at_the_cutoff(model):
    """An edge that just appears changes neither energy nor forces, whether it is in the list or not."""
    positions, species = molecule(5, 4)
    away = np.append(positions, [[positions[0, 0] + 4.0, *positions[0, 1:]]], axis=0)
    kinds = np.append(species, 1)
    found = []
    for distance in (4.0 - 1e-5, 4.0 + 1e-5):
        away[-1, 0] = positions[0, 0] + distance
        vectors = away[None] - away[:, None]
        i, j = np.nonzero((np.linalg.norm(vectors, axis=2) < 4.1) & ~np.eye(len(away), dtype=bool))
        edges = torch.tensor(np.array([i, j]))
        graph = Graph(
            torch.tensor(kinds), edges, torch.tensor(vectors[i, j]), torch.zeros(5, dtype=torch.int64)
        )
        found.append(evaluate(model, graph, model.couple))
        bare = energy_forces(model, away, kinds)
        close(found[-1].energy.numpy(), bare[0])
        close(found[-1].forces.numpy(), bare[1])
    assert abs(float(found[0].energy - found[1].energy)) < 1e-9
    # Forces change by 2e-5 Å times second derivatives.
    assert float((found[0].forces - found[1].forces).abs().max()) < 1e-3 * float(found[0].forces.abs().max())


def test_envelope_has_two_derivatives_at_the_cutoff(model):
    x = torch.tensor([[4.0 - 1e-7], [4.0], [4.5]], dtype=torch.float64, requires_grad=True)
    kinds, edges = torch.zeros(2, dtype=torch.int64), torch.tensor([[0, 0, 0], [1, 1, 1]])
    value = model.basis(x.squeeze(1), kinds, edges)[1].sum()
    slope = torch.autograd.grad(value, x, create_graph=True)[0]
    curvature = torch.autograd.grad(slope.sum(), x)[0]
    assert abs(value) < 1e-9 and slope.abs().max() < 1e-9 and curvature.abs().max() < 1e-4


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
    graph = graph_of(*molecule(), 4.0)
    eager, scripted = (evaluate(m, graph, model.couple) for m in (model, script(model)))
    close(scripted.energy.numpy(), eager.energy.numpy(), 1e-13)
    close(scripted.forces.numpy(), eager.forces.numpy(), 1e-13)


def test_halo_atoms(model):
    """Owned atoms have the same energies when the others are only halo, whose rows are left out."""
    positions, species = molecule(7, 8)
    graph = graph_of(positions, species, 4.0)
    with torch.no_grad():
        everything = model(graph.species, graph.edge_index, graph.edge_vectors, 8)["energy"]
        some = model(graph.species, graph.edge_index, graph.edge_vectors, 3)["energy"]
        nothing = model(graph.species, graph.edge_index, graph.edge_vectors, 0)["energy"]
    close(some.numpy(), everything[:3].numpy())
    assert nothing.shape == (0,)


def test_single_precision(model):
    graph = graph_of(*molecule(), 4.0)
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


def test_canonical_form_is_complete(model):
    """A model made of record and tensors gives the same results, and the same tensors again."""
    weights = model.weights()
    again = MACE(model.species, model.cutoff, model.record(), weights)
    graph = graph_of(*molecule(), 4.0)
    found, expected = (evaluate(m, graph, model.couple) for m in (again, model))
    close(found.energy.numpy(), expected.energy.numpy(), 1e-13)
    close(found.forces.numpy(), expected.forces.numpy(), 1e-12)
    assert again.weights().keys() == weights.keys()
    for name, tensor in again.weights().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-15, atol=0)
    assert all(tensor.dtype == torch.float64 for tensor in weights.values())


def test_mean_number_of_neighbors_divides_the_messages():
    model = make("two interactions")
    before = model.weights()
    graphs = [graph_of(*molecule(seed), 4.0) for seed in (1, 2)]
    model.fit_statistics(graphs, 2.0)
    model.fit_statistics(graphs, 2.5)  # the same however often
    after = model.weights()
    mean = sum(g.edge_index.size(1) for g in graphs) / 12
    assert float(after["scale"]) == 2.5
    for name in before:
        factor = mean if ".message." in name else 1.0
        if name != "scale":
            torch.testing.assert_close(after[name] * factor, before[name], rtol=1e-14, atol=0)
    # The factor is part of the state that a checkpoint has.
    other = make("two interactions")
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.weights()["layers.1.message.1o"], after["layers.1.message.1o"])


def test_double_backward_of_parameters_and_positions():
    torch.manual_seed(2)
    config = MACEConfig(cutoff=3.0, channels=2, num_interactions=2, l_max=1, correlation=2,
                        radial={"count": 3, "hidden": [4]})  # fmt: skip
    model = config.build(["H", "O"])
    positions, species = molecule(3, 3)
    graph = graph_of(positions, species % 2, 3.0)
    names = ("embedding.values", "layers.0.product.values", "layers.1.radial.network.layers.0.values")
    parameters = dict(model.named_parameters())

    def energy(vectors, *values):
        changed = dict(zip(names, values))
        arguments = (graph.species, graph.edge_index, vectors, graph.num_atoms)
        return torch.func.functional_call(model, {**parameters, **changed}, arguments)["energy"].sum()

    inputs = (graph.edge_vectors.clone(), *(parameters[name].detach().clone() for name in names))
    inputs = tuple(tensor.requires_grad_(True) for tensor in inputs)
    assert torch.autograd.gradcheck(energy, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(energy, inputs, fast_mode=True, atol=1e-5)


def twisted_pair(mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    """An atom between two others that carry propellers out of its sight; one of these can be mirrored.

    A propeller has two pairs of atoms at different heights, one turned against the other: of symmetry C2
    about the common axis, and chiral.
    """

    def propeller(z: float, up: float, twist: float) -> list[list[float]]:
        return [
            [r * math.cos(angle + turn), r * math.sin(angle + turn), z + up * height]
            for r, height, angle in ((1.1, 0.5, 0.0), (0.9, 1.4, twist))
            for turn in (0.0, math.pi)
        ]

    middle = [[0.0, 0.0, 0.0], [0.0, 0.0, 2.8], [0.0, 0.0, -2.7]]
    positions = middle + propeller(2.8, 1.0, -0.6 if mirrored else 0.6) + propeller(-2.7, -1.0, 0.6)
    return np.array(positions), np.array([0, 1, 1, *[0, 0, 2, 2] * 2])


@pytest.mark.parametrize(("hidden", "sees"), [("0e + 1o", False), ("0e + 1o + 1e", True)])
def test_only_odd_irreps_carry_handedness(hidden, sees):
    """Two interactions: the middle atom meets the propellers only through the features of its neighbors."""
    torch.manual_seed(4)
    model = MACEConfig(cutoff=3.1, channels=4, num_interactions=2, hidden=hidden).build(SPECIES)
    energies = []
    for mirrored in (False, True):
        graph = graph_of(*twisted_pair(mirrored), 3.1)
        with torch.no_grad():
            energies.append(model(graph.species, graph.edge_index, graph.edge_vectors, 11)["energy"])
    difference = (energies[1] - energies[0]).abs()
    assert (difference[1:] < 1e-12 * energies[0].abs().max()).all()
    assert bool(difference[0] > 1e-9 * energies[0].abs().max()) is sees


def test_untrained_energies_are_of_order_one():
    torch.manual_seed(0)
    model = MACEConfig(num_interactions=2).build(SPECIES)
    graphs = [graph_of(*molecule(seed, 8), 5.0) for seed in range(3)]
    model.fit_statistics(graphs, 1.0)
    energies = torch.cat([evaluate(model, graph, model.couple).readouts["energy"] for graph in graphs])
    assert 0.1 < float(energies.std()) < 10.0


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"hidden": "1o"}, "hidden needs the scalars 0e, found '1o'"),
        ({"hidden": "0e + 1x"}, "found ' 1x'"),
        ({"correlation": 4}, "less than or equal to 3"),
    ],
)
def test_wrong_configurations(keys, match):
    with pytest.raises(ValidationError, match=match):
        MACEConfig(**keys)
