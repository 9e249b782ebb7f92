"""Every refusal of the native engine for a damaged file of a MACE model."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from nearsight.errors import ModelFileError
from nearsight.export import save_model
from nearsight.lib import _core
from nearsight.models import MACEConfig, build_model


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    config = MACEConfig(
        cutoff=3.0,
        channels=2,
        l_max=1,
        correlation=2,
        num_interactions=2,
        zbl=True,
        density=True,
        radial={"hidden": [4], "transform": "agnesi"},
    )
    target = tmp_path_factory.mktemp("mace") / "mace.pt"
    save_model(
        target,
        build_model(config, ["H", "O"]),
        reference_energies={"H": 0.0, "O": 0.0},
        reference_energies_source="given",
        provenance={},
    )
    return target


def record(*keys, value):
    """A change of the hyperparameters."""

    def change(hyperparameters, tensors):
        place = hyperparameters
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def tensor(name, function):
    """A change of a tensor; a function that gives None takes it away."""

    def change(hyperparameters, tensors):
        found = function(tensors.pop(name).copy())
        if found is not None:
            tensors[name] = np.ascontiguousarray(found)

    return change


def entry(name, row, column, value):
    def put(table):
        table[row, column] = value
        return table

    return tensor(name, put)


def both(*changes):
    def change(hyperparameters, tensors):
        for each in changes:
            each(hyperparameters, tensors)

    return change


def selects_one_irrep(hyperparameters, tensors):
    tensors["layers.0.select.0e"] = np.zeros((2, 2, 2))


CASES = {
    "channels and l_max cannot be negative": record("l_max", value=-1),
    "a model has at least one layer": record("layers", value=[]),
    "a list with a number for each species has 1 of them": record("zbl", "radii", value=[1.0]),
    "radial basis 'sine' is not known, expected bessel, chebyshev or gaussian": record(
        "radial", "basis", "kind", value="sine"
    ),
    "envelope is 'none', expected basis or functions": record("radial", "envelope", value="none"),
    "transform of distances 'log' is not known, expected agnesi or soft": record(
        "radial", "transform", "kind", value="log"
    ),
    "irrep '1x' is not a number and a parity, such as 1o": record("layers", 0, "output", value=["0e", "1x"]),
    "a path has irrep '5e', which its layer lacks": record("layers", 0, "paths", 0, 2, value="5e"),
    r"'layers.0.radial.1.weight' do not take 4 inputs": tensor(
        "layers.0.radial.1.weight", lambda w: w[:, :3]
    ),
    "'layers.0.radial' have 2 outputs, expected 4": tensor("layers.0.radial.1.weight", lambda w: w[:2]),
    "a layer's output does not begin with 0e": record("layers", 1, "output", value=["1o"]),
    "a layer's input is not the output of the one before": record("layers", 1, "input", value=["0e"]),
    "layers lack their radial weights": both(
        tensor("layers.0.radial.0.weight", lambda w: None), tensor("layers.0.radial.1.weight", lambda w: None)
    ),
    "a readout has one or two dense layers": tensor("layers.0.readout.0.weight", lambda w: None),
    "an irrep of the output has no update weights": tensor("layers.0.update.1o", lambda w: None),
    "an irrep of the input has no up weights": tensor("layers.1.up.1o", lambda w: None),
    "an irrep of the message has no select weights": selects_one_irrep,
    "a path has harmonics above l_max": record("layers", 0, "paths", 1, 1, value=2),
    "no path reaches a message irrep": record("layers", 0, "message", value=["0e", "1o", "2e"]),
    "couplings are not in order": tensor("layers.1.couplings", lambda rows: rows[::-1]),
    "'product.weights' is not \\[species, polynomials, K\\]": tensor(
        "layers.0.product.weights", lambda w: w.reshape(-1)
    ),
    "'layers.0.product.terms' is not \\[rows, 6\\]": tensor(
        "layers.0.product.terms", lambda rows: rows[:, :5]
    ),
    "a table has an index out of range": entry("layers.0.product.terms", 0, 1, 99.0),
    "the components of a product's term are not in order": entry("layers.0.product.terms", 0, 4, -1.0),
    "a term is above the correlation": record("layers", 0, "correlation", value=1),
    "a layer's correlation is not 1, 2 or 3": record("layers", 0, "correlation", value=0),
    "lacks the weights 'embedding'": tensor("embedding", lambda w: None),
    r"'layers.1.skip.0e' have shape \[2, 2\], expected \[2, 2, 2\]": tensor(
        "layers.1.skip.0e", lambda w: w[0]
    ),
    "has damaged hyperparameters": record("layers", 0, "paths", value=3),
}


@pytest.mark.parametrize("message", list(CASES))
def test_damaged_files_are_refused(path, message, tmp_path):
    target = tmp_path / "changed.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        content = {name: old.read(name) for name in old.namelist()}
        (metadata_name,) = (name for name in content if name.endswith("nearsight.json"))
        (weights_name,) = (name for name in content if name.endswith("weights.safetensors"))
        metadata, tensors = json.loads(content[metadata_name]), load(content[weights_name])
        CASES[message](metadata["hyperparameters"], tensors)
        content |= {metadata_name: json.dumps(metadata).encode(), weights_name: save(tensors)}
        for name, data in content.items():
            new.writestr(name, data)
    with pytest.raises(ModelFileError, match=f"{message}.*export .*again"):
        _core.Evaluator(str(target), backend="native")
