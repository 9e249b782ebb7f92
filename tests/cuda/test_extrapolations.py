"""Features outside of their ranges in the training set on a device, against the CPU and the features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from committees_for_tests import SPECIES, graph_of, random_model, save
from core.core_models import random_box

import nearsight
from nearsight.errors import EvaluationError
from nearsight.lib import _core
from nearsight.models import ACEConfig, ACSFConfig, ANIConfig, SOAPConfig
from nearsight.models.bpnn import BPNN

PERIODIC = [True] * 3
TRAINING = random_box(2, n=40, edge=8.0)
# More than a block's rows of a species.
OTHERS = random_box(5, n=170, edge=12.0)
KINDS = {
    "acsf": {"descriptor": ACSFConfig(size="medium")},
    "ani": {"descriptor": ANIConfig(), "activation": "celu"},
    "soap": {"descriptor": SOAPConfig(n_max=3, l_max=2)},
    "ace": {"descriptor": ACEConfig(max_degree=[8, 5, 3], l_max=3)},
}
MODELS = KINDS | {
    "committee": KINDS["acsf"] | {"members": 3},
    "wide networks": KINDS["ani"] | {"hidden": [70, 5]},
    "states": KINDS["acsf"] | {"states": 2},  # whose cotangents wait for all readouts
}


def make_model(name) -> BPNN:
    return random_model(3, [graph_of(*TRAINING)], **MODELS[name])


@pytest.fixture(scope="module")
def path_of(tmp_path_factory):
    """Returns the file of a model, written when it is first wanted."""
    folder, files = tmp_path_factory.mktemp("models"), {}

    def write(name):
        if name not in files:
            files[name] = save(folder / f"{len(files)}.pt", make_model(name))
        return files[name]

    return write


def find(path, device, system=OTHERS, precision="double", pbc=PERIODIC, **wanted):
    """(species, label) -> count, lowest, highest, minimum, maximum."""
    evaluator = _core.Evaluator(str(path), device=device, precision=precision)
    found = evaluator.evaluate(*system, pbc, extrapolations=True, **wanted)["extrapolations"]
    return {(species, label): numbers for species, label, *numbers in found}


def assert_same(found, expected, relative):
    assert list(found) == list(expected)
    for name, numbers in expected.items():
        assert found[name][0] == numbers[0], name
        np.testing.assert_allclose(found[name][1:], numbers[1:], rtol=relative, atol=1e-13, err_msg=str(name))


def decided(model, system):
    """The features that are not as near to an end of what is allowed as round-off of single precision."""
    names = set()
    for kind, (network, x) in enumerate(zip(model.networks, model.features(graph_of(*system)))):
        unit = torch.maximum(network.minimum.abs(), network.maximum.abs()) + 1 / network.scale
        ends = network.minimum - 1e-5 * unit, network.maximum + 1e-5 * unit
        far = torch.stack([(x - end).abs() > 2e-6 * unit for end in ends]).all(1).all(0)
        labels = model.descriptor.labels(SPECIES[kind])
        names |= {(kind, label) for label, one in zip(labels, far.tolist()) if one}
        assert far.double().mean() > 0.95
    return names


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_cpu(path_of, thread_order, name):
    expected = find(path_of(name), "cpu")
    assert_same(find(path_of(name), "cuda"), expected, 1e-10)
    # Some atoms of each species are outside, some inside; values lie on either side.
    counts = {kind: [n[0] for (s, _), n in expected.items() if s == kind] for kind in range(2)}
    assert all(1 < max(c) < np.sum(OTHERS[1] == kind) for kind, c in counts.items())
    assert any(n[1] < n[3] for n in expected.values()) and any(n[2] > n[4] for n in expected.values())


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_cpu_in_mixed_precision(path_of, name):
    names = decided(make_model(name), OTHERS)
    found, expected = (
        {f: n for f, n in find(path_of(name), device, precision="mixed").items() if f in names}
        for device in ("cuda", "cpu")
    )
    assert_same(found, expected, 1e-4)
    assert sum(numbers[0] for numbers in found.values()) > 100


@pytest.mark.parametrize("name", MODELS)
def test_threads_in_any_order_give_the_same_bits(path_of, name, monkeypatch):
    results = []
    for order in ("forward", "reverse"):
        monkeypatch.setenv("NEARSIGHT_EMULATION_ORDER", order)
        results.append(find(path_of(name), "cuda"))
    assert results[0] == results[1]


@pytest.mark.parametrize("precision", ["double", "mixed"])
@pytest.mark.parametrize("name", KINDS)
def test_the_training_set_has_none(path_of, name, precision):
    """Its atoms lie at the ends of the ranges."""
    assert find(path_of(name), "cuda", TRAINING, precision) == {}


@pytest.mark.parametrize("precision", ["double", "mixed"])
@pytest.mark.parametrize("name", KINDS)
def test_every_atom_is_outside(path_of, name, precision):
    x, s, cell = TRAINING
    dense = (0.6 * x, s, 0.6 * cell)
    found = find(path_of(name), "cuda", dense, precision)
    assert_same(found, find(path_of(name), "cpu", dense, precision), 1e-10 if precision == "double" else 1e-4)
    for kind in range(2):
        assert max(n[0] for (species, _), n in found.items() if species == kind) == np.sum(s == kind)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["double", "mixed"])
@pytest.mark.parametrize("name", KINDS)
def test_room_for_round_off(tmp_path, name, precision, device):
    """Of what is allowed, features are outside of ranges that are too narrow by half as much, then twice."""
    for part in (0.5, 2.0):
        model = make_model(name)
        x = model.features(graph_of(*TRAINING))
        for network in model.networks:
            size = torch.maximum(network.minimum.abs(), network.maximum.abs())
            room = 1e-5 * part * (size + 1.0 / network.scale)
            network.minimum += room
            network.maximum -= room
        found = find(save(tmp_path / "model.pt", model), device, TRAINING, precision)
        if part < 1.0:
            assert found == {}
            continue
        for kind, network in enumerate(model.networks):
            for n, label in enumerate(model.descriptor.labels(SPECIES[kind])):
                outside = (x[kind][:, n] == x[kind][:, n].min()) | (x[kind][:, n] == x[kind][:, n].max())
                assert found[kind, label][0] >= int(outside.sum()), label
                assert found[kind, label][3:] == [float(network.minimum[n]), float(network.maximum[n])]


@pytest.mark.parametrize("name", ["acsf", "ani", "ace", "committee", "states"])
def test_tiles_change_nothing(path_of, name, monkeypatch):
    members = name == "committee"
    whole = find(path_of(name), "cuda", members=members)
    monkeypatch.setenv("NEARSIGHT_EMULATED_BYTES", str(1 << 20))  # tiles of 32 rows
    assert find(path_of(name), "cuda", members=members) == whole


def test_lone_atoms_and_species_that_are_absent(path_of):
    positions = np.array([[0.0, 0.0, 0.0], [30.0, 0.0, 0.0], [31.0, 0.5, 0.0]])
    for s in ([0, 1, 1], [0, 0, 0], [1, -1, 1]):
        system = (positions, np.array(s, dtype=np.int32), np.zeros((3, 3)))
        expected = find(path_of("acsf"), "cpu", system, pbc=[False] * 3)
        assert expected
        assert_same(find(path_of("acsf"), "cuda", system, pbc=[False] * 3), expected, 1e-10)


def test_a_species_without_ranges_is_not_judged(tmp_path):
    x, s, cell = TRAINING
    model = random_model(3, [graph_of(x[s == 1], s[s == 1], cell)])
    path = save(tmp_path / "model.pt", model)
    found = find(path, "cuda")
    assert {species for species, _ in found} == {1}
    assert_same(found, find(path, "cpu"), 1e-10)


@pytest.mark.parametrize("name", ["acsf", "committee", "states"])
def test_looking_changes_no_bit(path_of, name):
    """And a step that is not asked finds nothing."""
    evaluator = _core.Evaluator(str(path_of(name)), device="cuda")
    looks = (False, True, False, True)
    steps = [evaluator.evaluate(*OTHERS, PERIODIC, extrapolations=look) for look in looks]
    for step in steps[1:]:
        for array in ("energy", "energies", "forces", "virial", "virials"):
            assert (np.asarray(step[array]) == steps[0][array]).all()
    assert tuple("extrapolations" in step for step in steps) == looks
    assert steps[1]["extrapolations"] == steps[3]["extrapolations"] != []


def test_counts_are_those_of_the_features(path_of):
    model = make_model("acsf")
    found = find(path_of("acsf"), "cuda")
    for kind, (network, x) in enumerate(zip(model.networks, model.features(graph_of(*OTHERS)))):
        room = 1e-5 * (torch.maximum(network.minimum.abs(), network.maximum.abs()) + 1 / network.scale)
        counts = ((x < network.minimum - room) | (x > network.maximum + room)).sum(0)
        for label, count in zip(model.descriptor.labels(SPECIES[kind]), counts.tolist()):
            assert found.get((kind, label), [0])[0] == count


def test_ase(path_of):
    x, s, cell = OTHERS
    results = []
    for device in ("cpu", "cuda"):
        calculator = nearsight.Calculator(path_of("committee"), device=device)
        atoms = Atoms([SPECIES[k] for k in s], x, cell=cell, pbc=True, calculator=calculator)
        results.append(calculator.get_property("extrapolations", atoms))
    worst = [max(found, key=lambda extrapolation: extrapolation.beyond) for found in results]
    assert (worst[0].species, worst[0].label) == (worst[1].species, worst[1].label)
    assert worst[0].value == pytest.approx(worst[1].value, rel=1e-6)
    assert [(e.species, e.label, e.count) for e in results[0]] == [
        (e.species, e.label, e.count) for e in results[1]
    ]


def test_a_model_without_ranges(tmp_path):
    path = save(tmp_path / "model.pt", random_model(1, [], descriptor=ACSFConfig()))
    with pytest.raises(EvaluationError, match="knows no ranges of its features in the training set"):
        find(path, "cuda")
