"""Training on the core's symmetry functions against the torch module, which is the oracle."""

from typing import get_args

import numpy as np
import pytest
import torch
from gradients_for_tests import assert_native_equals_torch
from models_for_tests import rarer_functions

from nearsight.errors import ConfigError
from nearsight.models import ACSFConfig, BPNNConfig, build_model, training_module
from nearsight.models.automatic_functions import automatic_functions
from nearsight.models.cutoff_functions import CutoffFunction
from nearsight.neighbors import collate, make_graph

CELL = np.array([[5.0, 0.0, 0.0], [1.2, 4.5, 0.0], [-0.8, 0.9, 5.5]])


def batch(cutoff):
    rng = np.random.default_rng(2)
    grid = np.stack(np.meshgrid(*[[0.1, 0.6]] * 3), -1).reshape(-1, 3)
    frames = [(grid + 0.15 * rng.random((8, 3))) @ CELL for _ in range(2)]
    crystals = [make_graph(x, np.arange(8) % 2, CELL, [True] * 3, cutoff) for x in frames]
    lone = make_graph(np.zeros((1, 3)), [1], np.zeros((3, 3)), [False] * 3, cutoff)
    return collate([crystals[0], lone, crystals[1]])


def every_kind(cutoff_function, inner_fraction=0.0):
    functions = rarer_functions(["H", "O"]) + [
        f.record() for f in automatic_functions(["H", "O"], 5.0, "small")["H"]
    ]
    return ACSFConfig(
        cutoff_function=cutoff_function,
        inner_fraction=inner_fraction,
        symmetry_functions={"H": functions, "O": functions[::2]},
    )


@pytest.mark.parametrize(
    "config",
    [
        {"descriptor": ACSFConfig(size="small")},
        {"descriptor": ACSFConfig(size="large", cutoff_function="cos"), "activation": "silu"},
        {"descriptor": ACSFConfig(size="medium", cutoff_function="tanh3"), "states": 2},
        {"descriptor": ACSFConfig(size="small", cutoff_function="poly4"), "cutoff": 4.5},
        {"descriptor": every_kind("tanh3_normalized")},
        {"descriptor": every_kind("exp", inner_fraction=0.3), "hidden": [3]},
    ],
)
def test_results_and_parameter_gradients_equal_those_of_torch(config):
    torch.manual_seed(3)
    model = build_model(BPNNConfig(**config), ["H", "O"])
    graph = batch(model.cutoff)
    model.fit_statistics([graph], 0.5)
    assert_native_equals_torch(model, graph, 1e-10)


@pytest.mark.parametrize("inner_fraction", [0.0, 0.4])
@pytest.mark.parametrize("cutoff_function", get_args(CutoffFunction))
def test_features_equal_those_of_torch(cutoff_function, inner_fraction):
    model = build_model(BPNNConfig(descriptor=every_kind(cutoff_function, inner_fraction)), ["H", "O"])
    graph = batch(model.cutoff)
    for expected, found in zip(model.features(graph), training_module(model, "native").features(graph)):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


def test_the_jacobian_has_the_rows_of_reverse():
    model = build_model(BPNNConfig(descriptor=every_kind("poly2")), ["H", "O"])
    descriptor = training_module(model, "native").descriptor
    graph = batch(model.cutoff)
    vectors = graph.edge_vectors.clone().requires_grad_(True)
    table = descriptor(graph.species, graph.edge_index, vectors, graph.num_atoms)
    found = descriptor.neighborhoods(graph.species, graph.edge_index, graph.edge_vectors).jacobian()
    for column in range(table.size(1)):
        (expected,) = torch.autograd.grad(table[:, column].sum(), vectors, retain_graph=True)
        torch.testing.assert_close(found[:, :, column].double(), expected, rtol=1e-6, atol=1e-9)


def test_backends_are_chosen_by_name():
    model = build_model(BPNNConfig(), ["H"])
    other = torch.nn.Linear(1, 1)
    assert training_module(model, "torch") is model
    assert training_module(model, "auto").model is model
    assert training_module(other, "auto") is other
    with pytest.raises(ConfigError, match="there is no native training for 'Linear': take backend torch"):
        training_module(other, "native")
    with pytest.raises(ConfigError, match="training backend is 'cuda', expected auto, native or torch"):
        training_module(model, "cuda")
