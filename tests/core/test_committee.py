"""Members of a committee and extrapolations in the core, against single files and the pure torch path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from committees_for_tests import CUTOFF, ENERGIES, SPECIES, graph_of, random_model, save

from nearsight.couple import evaluate_members
from nearsight.errors import EvaluationError
from nearsight.lib import _core
from nearsight.models import BPNN, ACSFConfig, training_module
from nearsight.models.ace import ACEConfig
from nearsight.models.ani import ANIConfig
from nearsight.models.networks import NetworkShape
from nearsight.models.soap import SOAPConfig

from .core_models import random_box

MEMBERS = 3
PERIODIC = [True, True, True]
BOX = random_box(5, n=70, edge=9.0)  # two tiles
TRAINING = random_box(2, n=40, edge=8.0)


@pytest.fixture(scope="module")
def model():
    return random_model(3, [graph_of(*TRAINING)], MEMBERS)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    return save(tmp_path_factory.mktemp("committee") / "committee.pt", model)


def whole(matrix):
    return matrix[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]


@pytest.mark.parametrize("backend", ["native", "torchscript"])
@pytest.mark.parametrize("pbc", [PERIODIC, [False] * 3], ids=["periodic", "open"])
def test_members_are_those_of_the_module(path, model, backend, pbc):
    x, s, cell = BOX
    found = _core.Evaluator(str(path), backend=backend).evaluate(x, s, cell, pbc, members=True)
    expected = evaluate_members(model, graph_of(x, s, cell, pbc), MEMBERS)
    reference = sum(ENERGIES[SPECIES[kind]] for kind in s)
    np.testing.assert_allclose(found["member_energies"], expected.energy[:, 0] + reference, rtol=1e-12)
    for name, other in (
        ("forces", expected.forces.numpy()),
        ("virials", whole(expected.virial[:, 0].numpy())),
    ):
        scale = np.abs(other).max()
        np.testing.assert_allclose(found[f"member_{name}"], other, rtol=0, atol=1e-11 * scale)
    assert np.ptp(found["member_energies"]) > 1.0  # they differ


@pytest.mark.parametrize("backend", ["native", "torchscript"])
@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_the_mean_is_the_mean_of_the_members(path, backend, precision):
    found = _core.Evaluator(str(path), backend=backend, precision=precision).evaluate(
        *BOX, PERIODIC, members=True
    )
    tolerance = 1e-12 if precision == "double" else 1e-5
    assert found["member_energies"].mean() == pytest.approx(found["energy"], rel=1e-14)
    scale = np.abs(found["forces"]).max()
    assert np.abs(found["member_forces"].mean(0) - found["forces"]).max() < tolerance * scale
    virial = whole(found["virial"][None])[0]
    assert np.abs(found["member_virials"].mean(0) - virial).max() < tolerance * np.abs(virial).max()


def test_looking_at_the_members_changes_no_bit(path):
    blind, watched = (
        _core.Evaluator(str(path), precision="mixed").evaluate(
            *BOX, PERIODIC, members=look, extrapolations=look
        )
        for look in (False, True)
    )
    for name in ("energy", "energies", "forces", "virial", "virials"):
        assert (np.asarray(watched[name]) == blind[name]).all()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads(path, threads):
    one, many = (
        _core.Evaluator(str(path), threads=t).evaluate(*BOX, PERIODIC, members=True, extrapolations=True)
        for t in (1, threads)
    )
    for name in ("member_energies", "member_forces", "member_virials"):
        assert np.abs(many[name] - one[name]).max() < 1e-12 * np.abs(one[name]).max()
    assert many["extrapolations"] == one["extrapolations"] != []


@pytest.mark.parametrize(
    "config",
    [
        ACSFConfig(size="medium"),
        ACEConfig(max_degree=[8, 5, 3], l_max=3),
        SOAPConfig(n_max=3, l_max=2),
        ANIConfig(),
    ],
    ids=["acsf", "ace", "soap", "ani"],
)
def test_every_descriptor(config, tmp_path):
    """Reverse passes with other cotangents after one forward, and features that stay what they were."""
    shape = NetworkShape.uniform([6], "tanh")
    torch.manual_seed(6)
    model = BPNN(SPECIES, CUTOFF, config.build(CUTOFF, SPECIES), dict.fromkeys(SPECIES, shape), members=3)
    model.fit_ranges([graph_of(*BOX)])
    path = save(tmp_path / "model.pt", model)
    expected = evaluate_members(model, graph_of(*BOX), 3).forces.numpy()
    for precision, tolerance in (("double", 1e-11), ("mixed", 1e-4)):
        evaluator = _core.Evaluator(str(path), precision=precision)
        for _ in range(2):
            found = evaluator.evaluate(*BOX, PERIODIC, members=True, extrapolations=True)
            assert np.abs(found["member_forces"] - expected).max() < tolerance * np.abs(expected).max()
            assert found["extrapolations"] == []


@pytest.mark.parametrize("hidden", [[], [70, 5]], ids=["linear", "wide"])
def test_other_shapes(hidden, tmp_path):
    """No hidden layer; and networks that are in single precision in `mixed`."""
    model = random_model(4, [graph_of(*TRAINING)], 2, hidden=hidden or [9])
    if not hidden:
        shape = NetworkShape((), ("linear",))
        model = BPNN(
            SPECIES, model.cutoff, model.descriptor, dict.fromkeys(SPECIES, shape), members=2,
            architecture="linear",
        )  # fmt: skip
    path = save(tmp_path / "model.pt", model)
    expected = evaluate_members(model, graph_of(*BOX), 2)
    for precision, tolerance in (("double", 1e-11), ("mixed", 1e-4)):
        found = _core.Evaluator(str(path), precision=precision).evaluate(*BOX, PERIODIC, members=True)
        scale = float(expected.forces.abs().max())
        assert np.abs(found["member_forces"] - expected.forces.numpy()).max() < tolerance * scale


@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_extrapolations_are_those_of_the_features(path, model, precision):
    """Counts and values by the torch module and the definition, but for what round-off may decide."""
    graph = graph_of(*BOX)
    found = _core.Evaluator(str(path), precision=precision).evaluate(*BOX, PERIODIC, extrapolations=True)
    by_name = {(e[0], e[1]): e[2:] for e in found["extrapolations"]}
    total = 0
    for kind, (network, x) in enumerate(zip(model.networks, model.features(graph))):
        labels = model.descriptor.labels(SPECIES[kind])
        margin = 1e-5 * (torch.maximum(network.minimum.abs(), network.maximum.abs()) + 1 / network.scale)
        outside = (x < network.minimum - margin) | (x > network.maximum + margin)
        for n, label in enumerate(labels):
            count = int(outside[:, n].sum())
            total += count
            if count == 0:
                assert (kind, label) not in by_name
                continue
            values = torch.cat([x[outside[:, n], n], network.minimum[n : n + 1], network.maximum[n : n + 1]])
            expected = (count, values.min(), values.max(), network.minimum[n], network.maximum[n])
            np.testing.assert_allclose(by_name[kind, label], [float(v) for v in expected], rtol=1e-4)
    assert total > 50


@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_the_training_set_has_none(path, precision):
    evaluator = _core.Evaluator(str(path), precision=precision)
    assert evaluator.evaluate(*TRAINING, PERIODIC, extrapolations=True)["extrapolations"] == []


def test_a_species_without_ranges_is_not_judged(tmp_path):
    x, s, cell = TRAINING
    model = random_model(3, [graph_of(x[s == 0], s[s == 0], cell)])
    path = save(tmp_path / "model.pt", model)
    found = _core.Evaluator(str(path)).evaluate(*BOX, PERIODIC, extrapolations=True)["extrapolations"]
    assert {e[0] for e in found} == {0}


def test_statistics_of_the_native_training_module(model):
    """Ranges from the core's features are those from the torch module's."""
    graph = graph_of(*BOX)
    model.fit_ranges([graph])
    slow = [(n.minimum.clone(), n.maximum.clone()) for n in model.networks]
    model.fit_ranges([graph], training_module(model, "native"))
    for network, (low, high) in zip(model.networks, slow):
        assert torch.allclose(network.minimum, low, rtol=1e-11, atol=1e-30)
        assert torch.allclose(network.maximum, high, rtol=1e-11, atol=1e-30)
    model.fit_ranges([graph_of(*TRAINING)])


def test_models_that_cannot_tell(tmp_path, path, two_states):
    single = save(tmp_path / "single.pt", random_model(1, [], descriptor=ACSFConfig()))
    for file in (single, two_states):
        with pytest.raises(EvaluationError, match=r"\.pt' is no committee, so there are no results of its"):
            _core.Evaluator(str(file)).evaluate(*BOX, PERIODIC, members=True)
        with pytest.raises(
            EvaluationError, match=r"with backend native knows no ranges of its features in the training set"
        ):
            _core.Evaluator(str(file)).evaluate(*BOX, PERIODIC, extrapolations=True)
    with pytest.raises(EvaluationError, match="with backend torchscript knows no ranges"):
        _core.Evaluator(str(path), backend="torchscript").evaluate(*BOX, PERIODIC, extrapolations=True)
