"""ANI's environment vectors: against plain loops, and the core against the torch module."""

import numpy as np
import pytest
import torch
from ani_oracle import RECORD, SPECIES, environment_vector
from gradients_for_tests import assert_native_equals_torch
from pydantic import ValidationError

from nearsight.export import save_model
from nearsight.interfaces.potential import Potential
from nearsight.models import ANI, ANIConfig, BPNNConfig, build_model
from nearsight.models.ani import AngularGrid, RadialGrid
from nearsight.models.native import NativeDescriptor
from nearsight.neighbors import collate, make_graph

NO_CELL = np.zeros((3, 3))
CELL = np.array([[6.0, 0.0, 0.0], [1.2, 5.5, 0.0], [-0.8, 0.9, 6.5]])


def descriptor(species=SPECIES, **changes):
    record = RECORD | changes
    radial = RadialGrid(**record["radial"])
    return ANI(radial, AngularGrid(**record["angular"]), list(species), record["cutoff_function"])


def scattered(count, seed, box=3.5, shortest=0.8):
    rng = np.random.default_rng(seed)
    positions = np.zeros((0, 3))
    while len(positions) < count:
        candidate = rng.random(3) * box
        if (np.linalg.norm(positions - candidate, axis=1) > shortest).all():
            positions = np.vstack([positions, candidate])
    return positions, rng.integers(0, len(SPECIES), count)


def graph_of(positions, kinds, cell=NO_CELL, cutoff=4.5):
    return make_graph(positions, kinds, cell, [bool(np.any(cell))] * 3, cutoff)


def batch(cutoff, species):
    rng = np.random.default_rng(2)
    grid = np.stack(np.meshgrid(*[[0.1, 0.6]] * 3), -1).reshape(-1, 3)
    boxes = [(grid + 0.15 * rng.random((8, 3))) @ CELL for _ in range(2)]
    crystals = [graph_of(x, np.arange(8) % species, CELL, cutoff) for x in boxes]
    return collate([crystals[0], graph_of(np.zeros((1, 3)), [1], cutoff=cutoff), crystals[1]])


@pytest.mark.parametrize(
    "changes",
    [{}, {"cutoff_function": "exp"}, {"angular": RECORD["angular"] | {"zeta": 32.0, "angles": [0.0, 3.0]}}],
)
def test_vectors_equal_plain_loops(changes):
    positions, kinds = scattered(9, seed=1)
    graph = graph_of(positions, kinds)
    module = descriptor(**changes)
    symbols = [SPECIES[kind] for kind in kinds]
    expected = [environment_vector(i, positions, symbols, SPECIES, RECORD | changes) for i in range(9)]
    for vectors in (module, NativeDescriptor(module, SPECIES, 1)):
        found = vectors(graph.species, graph.edge_index, graph.edge_vectors, 9)
        assert found.numpy() == pytest.approx(np.array(expected), rel=1e-11, abs=1e-14)


def test_labels_name_the_columns():
    module = descriptor(["H", "O"])
    labels = module.labels("H")
    assert len(labels) == len(module.columns("O")) == 2 * 3 + 3 * 2 * 3
    assert labels[0] == "1 radial H 0.75 Å"
    assert labels[5] == "6 radial O 2.75 Å"
    assert labels[6] == "7 angular H-H 0.75 Å 21.49°"
    assert labels[7 + 6] == "14 angular H-O 0.75 Å 85.94°"
    assert labels[-1] == "24 angular O-O 1.875 Å 157.6°"


def test_default_constants_are_those_of_ani_2x():
    record = ANIConfig().build(5.1, SPECIES).record()
    assert record["radial"]["shifts"][:2] == pytest.approx([0.8, 1.06875])
    assert record["radial"]["shifts"][-1] == pytest.approx(4.83125)
    assert record["angular"]["shifts"] == pytest.approx(
        [0.8, 1.1375, 1.475, 1.8125, 2.15, 2.4875, 2.825, 3.1625]
    )
    assert record["angular"]["angles"] == pytest.approx([0.39269908, 1.1780972, 1.9634954, 2.7488936])
    assert record["angular"]["zeta"] == 14.1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"angular_cutoff": 6.5}, "angular_cutoff 6.5 Å is beyond the cutoff 6.0 Å"),
        ({"start": 3.5}, "start 3.5 Å must be below the angular cutoff 3.5 Å"),
        ({"zeta": 0.5}, "Input should be greater than or equal to 1"),
    ],
)
def test_constants_that_cannot_be_right_are_refused(config, message):
    with pytest.raises(ValidationError, match=message):
        BPNNConfig(descriptor={"kind": "ani"} | config)


@pytest.mark.parametrize(
    "config",
    [
        {"descriptor": ANIConfig(), "activation": "celu"},
        {"descriptor": ANIConfig(cutoff_function="exp", zeta=8.0, angles=3), "activation": "gelu"},
        {"descriptor": ANIConfig(radial_shifts=5, angular_shifts=3, angles=1), "states": 2, "cutoff": 4.0},
    ],
)
def test_results_and_parameter_gradients_equal_those_of_torch(config):
    torch.manual_seed(3)
    model = build_model(BPNNConfig(**{"cutoff": 5.1} | config), ["H", "O"])
    graph = batch(model.cutoff, 2)
    model.fit_statistics([graph], 0.5)
    assert_native_equals_torch(model, graph, 1e-9)


@pytest.mark.parametrize("angle", [0.0, np.pi])
def test_derivatives_are_finite_for_atoms_in_a_row(angle):
    """At 0 and π the gradient of the angle itself is infinite, that of its cosine is zero."""
    module = descriptor()
    native = NativeDescriptor(module, SPECIES, 1)
    ends = torch.tensor([[1.1, 0.0, 0.0], [1.7 * np.cos(angle), 0.0, 0.0]], dtype=torch.float64)
    index = torch.tensor([[0, 0], [1, 2]])
    species = torch.tensor([2, 0, 1])
    # One center; the core wants a row for every atom.
    weights = torch.randn(45, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def value(vectors, which):
        return (which(species, index, vectors, 3)[0] * weights).sum()

    gradients = []
    for which in (module, native):
        vectors = ends.clone().requires_grad_()
        gradients.append(torch.autograd.grad(value(vectors, which), vectors)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-12)
    assert torch.isfinite(gradients[0]).all()
    step = 1e-5
    for place in ((0, 0), (0, 1), (1, 0), (1, 2)):
        moved = []
        for sign in (1, -1):
            vectors = ends.clone()
            vectors[place] += sign * step
            moved.append(value(vectors, module).item())
        difference = (moved[0] - moved[1]) / (2 * step)
        assert gradients[0][place].item() == pytest.approx(difference, rel=1e-6, abs=1e-8)


@pytest.fixture(scope="module")
def potential_file(tmp_path_factory):
    """Three species; shifts and scales at random, so that absent neighbors still have constant inputs.

    The features of a species do not fill whole vectors.
    """
    torch.manual_seed(5)
    descriptor = ANIConfig(radial_shifts=5, angular_shifts=3)
    config = BPNNConfig(cutoff=4.5, hidden=[80, 70], activation="celu", descriptor=descriptor)
    model = config.build(SPECIES, members=3)
    for network in model.networks:
        network.shift.normal_()
        network.scale.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("ani") / "model.pt"
    energies = dict.fromkeys(SPECIES, 0.0)
    save_model(path, model, reference_energies=energies, reference_energies_source="none", provenance={})
    return path


@pytest.mark.parametrize("symbols", ["H", "HO", "HHHCCO", "OOOCCCHHHOOOHHHCCCHH"])
def test_neighbors_of_some_species_only(potential_file, symbols):
    """Features of species that are not among the neighbors are left out of the networks."""
    positions, _ = scattered(len(symbols), seed=4)
    native, torchscript = (Potential(potential_file, backend=b) for b in ("native", "torchscript"))
    found, expected = (p.compute(positions, list(symbols)) for p in (native, torchscript))
    assert found.energy == pytest.approx(expected.energy, rel=1e-12)
    assert found.forces == pytest.approx(expected.forces, rel=1e-10, abs=1e-11)
    mixed = Potential(potential_file, precision="mixed").compute(positions, list(symbols))
    assert mixed.energy == pytest.approx(expected.energy, rel=1e-5)
    largest = np.abs(expected.forces).max()
    assert mixed.forces == pytest.approx(expected.forces, abs=1e-5 * largest + 1e-12)


def test_forces_are_differences_of_the_energy(potential_file):
    potential = Potential(potential_file)
    positions, kinds = scattered(10, seed=6)
    symbols = [SPECIES[kind] for kind in kinds]
    forces = potential.compute(positions, symbols).forces
    step = 1e-5
    for atom, axis in ((0, 0), (3, 1), (7, 2)):
        energies = []
        for sign in (1, -1):
            moved = positions.copy()
            moved[atom, axis] += sign * step
            energies.append(potential.compute(moved, symbols).energy)
        assert forces[atom, axis] == pytest.approx(
            (energies[1] - energies[0]) / (2 * step), rel=1e-6, abs=1e-7
        )
