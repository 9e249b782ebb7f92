"""The training ops against the pure torch module: values, derivatives, and the gradient of a force loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nearsight.couple import evaluate
from nearsight.errors import ConfigError
from nearsight.export import save_model
from nearsight.models import ACSFConfig, training_module
from nearsight.neighbors import collate, make_graph

from .core_models import explicit_functions, random_box, random_bpnn


def batch(cutoff):
    frames = [random_box(seed, n=14) for seed in (1, 2)]
    return collate([make_graph(x, s, c, [True] * 3, cutoff) for x, s, c in frames])


@pytest.mark.parametrize(
    "config",
    [
        {"descriptor": ACSFConfig(size="medium")},
        {"descriptor": ACSFConfig(symmetry_functions=explicit_functions(), cutoff_function="poly4")},
        {"states": 2},
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_gradient_of_a_force_loss(config, threads):
    model = random_bpnn(**config)
    graph = batch(model.cutoff)
    target = torch.tensor(np.random.default_rng(0).normal(size=(graph.num_atoms, 3)))
    results = {}
    for backend in ("torch", "native"):
        module = training_module(model, backend, threads)
        found = evaluate(module, graph, model.couple, create_graph=True)
        loss = (found.energy**2).sum() + ((found.forces - target) ** 2).sum() + (found.virial**2).sum()
        results[backend] = [found.energy, found.forces, found.virial]
        results[backend] += torch.autograd.grad(loss, list(model.parameters()))
    for a, b in zip(results["torch"], results["native"]):
        assert (a - b).abs().max() <= 1e-12 * a.abs().max()


def test_statistics_do_not_depend_on_the_source():
    model = random_bpnn()
    graph = batch(model.cutoff)
    model.fit_statistics([graph], 2.0)
    slow = [network.scale.clone() for network in model.networks]
    model.fit_statistics([graph], 2.0, training_module(model, "native"))
    for network, scale in zip(model.networks, slow):
        assert torch.allclose(network.scale, scale, rtol=1e-11)


def test_errors():
    model = random_bpnn()
    assert training_module(model, "torch") is model
    with pytest.raises(ConfigError, match="training backend is 'fast', expected auto, native or torch"):
        training_module(model, "fast")
    other = torch.nn.Linear(1, 1)
    assert training_module(other, "auto") is other
    with pytest.raises(ConfigError, match="there is no native training for 'Linear': take backend torch"):
        training_module(other, "native")


def test_inputs_are_decorrelated():
    """Mean 0 and, where the functions vary, unit variance without correlation; noise stays small."""
    model = random_bpnn()
    graph = batch(model.cutoff)
    model.fit_statistics([graph], 1.0)
    for network, features in zip(model.networks, model.features(graph)):
        x = ((features - network.shift) * network.scale) @ network.mixing
        assert x.mean(0).abs().max() < 1e-12
        variance = torch.linalg.eigvalsh(x.T @ x / len(x))
        assert variance.min() >= -1e-12
        assert 0.9 < variance.max() < 1.0 + 1e-12


def test_mixing_is_folded_into_the_file(tmp_path):
    """Export compares the native engine, which knows no mixing, with the module; it must not refuse."""
    model = random_bpnn()
    model.fit_statistics([batch(model.cutoff)], 1.0)
    energies = {"H": 0.0, "O": 0.0}
    save_model(
        tmp_path / "m.pt", model, reference_energies=energies, reference_energies_source="none", provenance={}
    )
    weights = model.weights()
    folded = model.networks[0].layers[0].weight @ model.networks[0].mixing.mT
    assert torch.equal(weights["H.0.weight"], folded)
    assert not torch.allclose(folded, model.networks[0].layers[0].weight)
