"""The core's moments against the torch modules, in every instruction set, and damaged files."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from gradients_for_tests import assert_native_equals_torch

from nearsight.couple import evaluate
from nearsight.errors import ModelFileError
from nearsight.export import save_model
from nearsight.lib import _core
from nearsight.models import ACEConfig, ACSFConfig, BPNNConfig, LinearConfig, SOAPConfig, build_model
from nearsight.models.native import NativeDescriptor, training_module
from nearsight.neighbors import collate, make_graph

SPECIES = ["H", "O"]
CELL = np.array([[5.0, 0.0, 0.0], [1.2, 4.5, 0.0], [-0.8, 0.9, 5.5]])
CUTOFF = 4.5
DESCRIPTORS = {
    "ace": ACEConfig(max_degree=[8, 6, 5]),
    "ace of one moment": ACEConfig(max_degree=[3]),
    "soap": SOAPConfig(n_max=5, l_max=8, smearing=0.4),
    "normalized": SOAPConfig(n_max=4, l_max=3, radial="chebyshev", normalize=True),
    "mixed": SOAPConfig(n_max=9, l_max=3, radial="bessel", species_channels=3, normalize=True),
    "one channel": SOAPConfig(n_max=4, l_max=3, species_channels=1, radial_scaling={"exponent": 4}),
}


def batch(seed=2):
    """Two crystals with a lone atom between them; 17 atoms, more than two runs of centers."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[[0.1, 0.6]] * 3), -1).reshape(-1, 3)
    frames = [(grid + 0.15 * rng.random((8, 3))) @ CELL for _ in range(2)]
    crystals = [make_graph(x, np.arange(8) % 2, CELL, [True] * 3, CUTOFF) for x in frames]
    lone = make_graph(np.zeros((1, 3)), [1], np.zeros((3, 3)), [False] * 3, CUTOFF)
    return collate([crystals[0], lone, crystals[1]])


def build(name, linear=False):
    torch.manual_seed(3)
    if linear:
        config = LinearConfig(architecture="linear", cutoff=CUTOFF, descriptor=DESCRIPTORS[name])
    else:
        config = BPNNConfig(cutoff=CUTOFF, descriptor=DESCRIPTORS[name], hidden=[6])
    return build_model(config, SPECIES)


def close(found, expected, tolerance):
    torch.testing.assert_close(
        found, expected, rtol=tolerance, atol=tolerance * float(expected.detach().abs().max())
    )


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_gradients_of_a_loss_with_forces_equal_those_of_torch(name):
    """With those of the channels' weights: second derivatives of the moments, natively and by autograd."""
    model, graph = build(name), batch()
    model.fit_statistics([graph], 0.5)
    assert_native_equals_torch(model, graph, 1e-9)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", DESCRIPTORS)
def test_features_equal_those_of_torch(name, threads):
    model, graph = build(name), batch()
    for expected, found in zip(
        model.features(graph), training_module(model, "native", threads).features(graph)
    ):
        close(found.detach(), expected.detach(), 1e-11)


@pytest.mark.parametrize(
    "descriptor", [*DESCRIPTORS.values(), ACSFConfig()], ids=[*DESCRIPTORS, "symmetry functions"]
)
def test_design_rows_times_coefficients_are_energies_forces_and_virials(descriptor):
    """In threads and alone; mixed channels are no part of a linear model."""
    model = build_model(BPNNConfig(cutoff=CUTOFF, descriptor=descriptor, hidden=[2]), SPECIES)
    fixed = model.descriptor if not list(model.descriptor.parameters()) else model.descriptor.fixed_part()
    native, graph = NativeDescriptor(fixed, SPECIES, 2), batch()
    energy, forces, virial = native.design_rows(graph)
    coefficients = torch.randn(energy.size(1), dtype=torch.float64)
    vectors = graph.edge_vectors.clone().requires_grad_()
    table = native(graph.species, graph.edge_index, vectors, graph.num_atoms)
    width = max(native.sizes)
    by_species = torch.zeros(2, width, dtype=torch.float64)
    for row, part in zip(by_species, coefficients.split(native.sizes)):
        row[: len(part)] = part
    energies = (table * by_species[graph.species]).sum(1)
    (gradient,) = torch.autograd.grad(energies.sum(), vectors)
    expected_forces = torch.zeros(graph.num_atoms, 3, dtype=torch.float64)
    expected_forces.index_add_(0, graph.edge_index[0], gradient)
    expected_forces.index_add_(0, graph.edge_index[1], -gradient)
    outer = -torch.einsum("ea,eb->eab", graph.edge_vectors, gradient)
    expected_virial = torch.zeros(graph.num_frames, 3, 3, dtype=torch.float64)
    # Moments are not invariant, so that the virial of a sum of them has to be made symmetric.
    expected_virial.index_add_(0, graph.frame[graph.edge_index[0]], 0.5 * (outer + outer.mT))
    places = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    expected_virial = torch.stack([expected_virial[:, a, b] for a, b in places], dim=1)
    expected_energy = torch.zeros(graph.num_frames, dtype=torch.float64)
    expected_energy.index_add_(0, graph.frame, energies.detach())
    close(energy @ coefficients, expected_energy, 1e-11)
    close((forces @ coefficients).view(-1, 3), expected_forces, 1e-11)
    close((virial @ coefficients).view(-1, 6), expected_virial, 1e-11)
    for alone, together in zip(native.design_rows(graph, num_threads=1), (energy, forces, virial)):
        assert torch.equal(alone, together)


FILES = [(name, False) for name in DESCRIPTORS] + [(name, True) for name in ("ace", "soap", "normalized")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(name, linear) -> model file with random weights."""
    folder = tmp_path_factory.mktemp("moments")
    energies = {symbol: -1.0 for symbol in SPECIES}
    paths = {}
    for number, (name, linear) in enumerate(FILES):
        paths[name, linear] = str(folder / f"{number}.pt")
        save_model(
            paths[name, linear],
            build(name, linear),
            reference_energies=energies,
            reference_energies_source="given",
            provenance={},
        )
    return paths


def structure():
    rng = np.random.default_rng(8)
    grid = np.stack(np.meshgrid(*[[0.05, 0.38, 0.72]] * 3), -1).reshape(-1, 3)
    cell = 1.5 * CELL
    return (grid + 0.06 * rng.random((27, 3))) @ cell, rng.integers(0, 2, 27).astype(np.int32), cell


@pytest.mark.parametrize(("name", "linear"), FILES)
def test_files_run_natively_in_double_and_mixed_precision(name, linear, files):
    """Export itself compares the engine with the module; here with a larger structure and in single."""
    model = build(name, linear)
    x, species, cell = structure()
    graph = make_graph(x, species, cell, [True] * 3, CUTOFF)
    expected = evaluate(model, graph, model.couple)
    largest = float(expected.forces.abs().max())
    for precision, tolerance in (("double", 1e-11), ("mixed", 2e-5)):
        evaluator = _core.Evaluator(files[name, linear], "native", precision)
        found = evaluator.evaluate(x, species, cell, [True] * 3)
        assert found["energy"] + 27.0 == pytest.approx(float(expected.energy), rel=tolerance, abs=tolerance)
        assert np.abs(found["forces"] - expected.forces.numpy()).max() < tolerance * largest


def test_every_instruction_set_gives_the_same_numbers(files, tmp_path):
    x, species, cell = structure()
    np.savez(tmp_path / "structure.npz", x=x, species=species, cell=cell)
    code = f"""
import json, numpy as np
from nearsight.lib import _core
z = np.load({str(tmp_path / "structure.npz")!r})
forces = []
for path in {list(files.values())!r}:
    for precision in ("double", "mixed"):
        evaluator = _core.Evaluator(path, "native", precision)
        forces.append(evaluator.evaluate(z["x"], z["species"], z["cell"], [True] * 3)["forces"].tolist())
print(json.dumps([_core.instruction_set(), forces]))
"""
    found = {}
    for isa in ("baseline", "avx2", ""):  # the last is the best of this machine
        environment = {**os.environ, "NEARSIGHT_ISA": isa}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        found[isa] = json.loads(done.stdout)
    assert found["baseline"][0] == "baseline"
    (_, baseline), (_, avx2), (_, best) = found.values()
    for number, expected in enumerate(best):
        tolerance = (1e-12, 2e-5)[number % 2] * np.abs(expected).max()
        np.testing.assert_allclose(baseline[number], expected, rtol=0, atol=tolerance)
        np.testing.assert_allclose(avx2[number], expected, rtol=0, atol=tolerance)


def record_and_weights():
    ace = ACEConfig(max_degree=[3, 2, 2]).build(CUTOFF, SPECIES)
    return ace.record(), {name: tensor.numpy().copy() for name, tensor in ace.weights().items()}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r, w: r.pop("cutoff"), "has a damaged descriptor .*cutoff"),
        (lambda r, w: r.update(radial_counts=[1] * 10), "need one number for each l up to 8 at most"),
        (lambda r, w: r["radial_counts"].__setitem__(0, 99), "the radial functions of l = 0 are outside"),
        (lambda r, w: r.update(table_of=[0]), "table_of needs a number for each pair of species"),
        (lambda r, w: r.update(table_of=[0, 0, 0, 9]), "'table_of' holds 9.000000, expected a whole number"),
        (lambda r, w: w.pop("descriptor.radial"), "lacks the weights 'descriptor.radial'"),
        (
            lambda r, w: w.update({"descriptor.radial": np.zeros((1, 2))}),
            "'descriptor.radial' is not .tables, knots, 3, functions.",
        ),
        (lambda r, w: w.update({"descriptor.center": np.zeros((2, 9))}), "'descriptor.center' have shape"),
        (
            lambda r, w: w.update({"descriptor.products": np.zeros((4, 3))}),
            "'descriptor.products' is not .terms, 4.",
        ),
        (
            lambda r, w: w["descriptor.products"].__setitem__((0, 0), 1.0),
            "the targets of 'descriptor.products' do not count up",
        ),
        (
            lambda r, w: w["descriptor.products"].__setitem__((0, 1), 1e6),
            "'descriptor.products' holds 1000000.000000, expected a whole number from 0 to",
        ),
        (
            lambda r, w: w["descriptor.features"].__setitem__(0, 0.5),
            "'descriptor.features' holds 0.500000, expected a whole number",
        ),
    ],
)
def test_damaged_descriptors_are_refused(damage, message):
    record, weights = record_and_weights()
    damage(record, weights)
    with pytest.raises(ModelFileError, match=message):
        _core.Descriptor(json.dumps(record), SPECIES, weights)


def test_too_many_radial_functions_are_refused():
    record, weights = record_and_weights()
    knots, columns = weights["descriptor.radial"].shape[1], 600
    weights["descriptor.radial"] = np.zeros((1, knots, 3, columns))
    weights["descriptor.center"] = np.zeros((2, columns))
    weights["descriptor.products"] = np.zeros((0, 4))
    weights["descriptor.features"] = np.ones(1)
    record.update(radial_counts=[columns], radial_first=[0], table_of=[0] * 4)
    with pytest.raises(
        ModelFileError, match="has 608 radial functions with their padding, the core takes 512"
    ):
        _core.Descriptor(json.dumps(record), SPECIES, weights)
