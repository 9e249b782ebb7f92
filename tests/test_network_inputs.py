"""Networks on principal directions of the features, and training on these directions."""

import numpy as np
import pytest
import torch
from core.core_models import SPECIES, random_box
from numpy.testing import assert_allclose

from nearsight.couple import evaluate
from nearsight.export import save_model
from nearsight.models import ACSFConfig, ANIConfig, BPNNConfig, SOAPConfig, training_module
from nearsight.models.native import NativeBPNN
from nearsight.neighbors import collate, make_graph
from nearsight.training.stored import StoredModule, store_frame

CUTOFF = 4.5
GRAPHS = [make_graph(x, s, c, [True] * 3, CUTOFF) for x, s, c in (random_box(k, 12) for k in range(3))]
DESCRIPTORS = [SOAPConfig(n_max=3, l_max=2), ANIConfig(start=0.5, angular_cutoff=3.5), ACSFConfig()]


def fitted(descriptor=DESCRIPTORS[0], members=1, **config):
    torch.manual_seed(3)
    config = {"directions": 6, "hidden": [5, 4]} | config
    model = BPNNConfig(cutoff=CUTOFF, descriptor=descriptor, **config).build(SPECIES, members)
    model.fit_statistics(GRAPHS, 0.8, training_module(model, "native", 1))
    return model


def inputs_of(model):
    parts = zip(*(model.features(graph) for graph in GRAPHS))
    return [
        ((torch.cat(x) - network.shift) * network.scale) @ network.mixing
        for network, x in zip(model.networks, parts)
    ]


@pytest.mark.parametrize("descriptor", DESCRIPTORS)
def test_inputs_are_the_leading_principal_components(descriptor):
    """In the features' own proportions: variances are eigenvalues of the covariance, times one factor."""
    model = fitted(descriptor)
    features = [torch.cat(x) for x in zip(*(model.features(graph) for graph in GRAPHS))]
    for x, g in zip(inputs_of(model), features):
        eigenvalues = torch.linalg.eigvalsh(torch.cov(g.T, correction=0)).flip(0)
        expected = torch.diag(eigenvalues[:6]) / (eigenvalues.sum() / 6)
        assert_allclose(x.mean(0), np.zeros(6), atol=1e-12)
        assert_allclose(x.T @ x / len(x), expected, atol=1e-10 * float(expected.max()))


def test_directions_that_the_data_do_not_have_are_left_out():
    """Fewer atoms than directions: the inputs of other atoms have no part of what was not seen."""
    model = fitted(directions=20)
    model.fit_statistics(GRAPHS[:1], 1.0)
    for network, x in zip(model.networks, model.features(GRAPHS[0])):
        rank = len(x) - 1  # deviations from the mean
        assert rank < 20
        assert torch.equal(network.mixing[:, rank:], torch.zeros_like(network.mixing[:, rank:]))
        directions = network.mixing[:, :rank]
        assert_allclose(directions.mT @ directions, np.eye(rank), atol=1e-10)
        seen = x - x.mean(0)
        assert_allclose(seen @ directions @ directions.mT, seen, atol=1e-9 * float(seen.abs().max()))


def test_all_directions_keep_the_scalar_product():
    """With as many directions as features, distances between inputs are those between features."""
    model = fitted(directions=10_000)
    network = model.networks[0]
    features = torch.cat([model.features(graph)[0] for graph in GRAPHS])
    x = inputs_of(model)[0]
    assert x.shape == features.shape
    expected = torch.cdist(features, features) * network.scale[0]
    assert_allclose(torch.cdist(x, x), expected, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("descriptor", DESCRIPTORS)
def test_training_on_inputs_is_training_of_the_model(descriptor, members, backend):
    """Energies, forces, virials and the gradient of a loss of them; also with stored derivatives."""
    model = fitted(descriptor, members)
    alike = model.on_inputs()
    graph = collate(GRAPHS)
    assert [id(p) for p in alike.parameters()] == [id(p) for p in model.parameters()]
    native = NativeBPNN(alike, 2)
    kept = [store_frame(native, g, derivatives=True) for g in GRAPHS]
    assert {tuple(frame.features.shape) for frame in kept} == {(12, 6)}
    results = []
    for module in (model, training_module(alike, backend, 2), StoredModule(native, kept)):
        found = evaluate(module, graph, model.couple, create_graph=True)
        loss = (found.energy**2).sum() + (found.forces**2).sum() + (found.virial**2).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        results.append([found.energy.detach(), found.forces.detach(), found.virial.detach(), *gradients])
    for expected, evaluated, stored in zip(*results):
        assert_allclose(evaluated, expected, rtol=0, atol=1e-11 * float(expected.abs().max()))
        assert_allclose(stored, expected, rtol=0, atol=3e-6 * float(expected.abs().max()))


def test_models_with_all_features_are_trained_as_they_are():
    plain = fitted(directions=None)
    assert plain.on_inputs() is plain
    trained = fitted(SOAPConfig(n_max=3, l_max=2, species_channels=1))
    assert trained.on_inputs() is trained


@pytest.mark.parametrize("descriptor", DESCRIPTORS)
def test_the_file_needs_no_directions(descriptor, tmp_path):
    """Export compares the native engine, which knows no mixing, with the module; it must not refuse."""
    model = fitted(descriptor)
    energies = dict.fromkeys(SPECIES, 0.0)
    save_model(
        tmp_path / "m.pt", model, reference_energies=energies, reference_energies_source="none", provenance={}
    )
    for symbol, network in zip(SPECIES, model.networks):
        assert model.weights()[f"{symbol}.0.weight"].shape == (1, 5, network.columns.numel())


def test_defaults_fit_the_descriptor():
    soap = BPNNConfig(descriptor={"kind": "soap"})
    assert (soap.hidden, soap.activation, soap.directions) == ([64, 64], "silu", 400)
    given = BPNNConfig(descriptor=SOAPConfig(), hidden=[8], activation="tanh", directions=None)
    assert (given.hidden, given.activation, given.directions) == ([8], "tanh", None)
    for other in ({"kind": "acsf"}, {"kind": "soap", "species_channels": 2}):
        config = BPNNConfig(descriptor=other)
        assert (config.hidden, config.activation, config.directions) == ([25, 25], "tanh", None)
    assert BPNNConfig.model_validate(soap.model_dump()) == soap
