"""MACE: the canonical form of its file, derivatives by parameters, parity, configuration."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from message_passing_models import CONFIGS, CUTOFF, SPECIES, close, graph_of, make, molecule
from pydantic import ValidationError

from nearsight.couple import evaluate
from nearsight.models import MACE, MACEConfig


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request) -> MACE:
    return make(request.param)


def test_envelope_has_two_derivatives_at_the_cutoff(model):
    x = torch.tensor([[4.0 - 1e-7], [4.0], [4.5]], dtype=torch.float64, requires_grad=True)
    kinds, edges = torch.zeros(2, dtype=torch.int64), torch.tensor([[0, 0, 0], [1, 1, 1]])
    value = model.basis(x.squeeze(1), kinds, edges)[1].sum()
    slope = torch.autograd.grad(value, x, create_graph=True)[0]
    curvature = torch.autograd.grad(slope.sum(), x)[0]
    assert abs(value) < 1e-9 and slope.abs().max() < 1e-9 and curvature.abs().max() < 1e-4


def test_canonical_form_is_complete(model):
    """A model made of record and tensors gives the same results, and the same tensors again."""
    weights = model.weights()
    again = MACE(model.species, model.cutoff, model.record(), weights)
    graph = graph_of(*molecule(), CUTOFF)
    found, expected = (evaluate(m, graph, model.couple) for m in (again, model))
    close(found.energy.numpy(), expected.energy.numpy(), 1e-13)
    close(found.forces.numpy(), expected.forces.numpy(), 1e-12)
    assert again.weights().keys() == weights.keys()
    for name, tensor in again.weights().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-15, atol=0)
    assert all(tensor.dtype == torch.float64 for tensor in weights.values())


def test_readouts_are_part_of_the_canonical_form():
    torch.manual_seed(1)
    readouts, config = {"charge": 2, "charge_weight": 1}, MACEConfig(channels=3, l_max=1, num_interactions=2)
    model = config.build(SPECIES, readouts)
    weights = model.weights()
    assert weights["layers.0.readout.0.weight"].shape == (4, 3)
    assert weights["layers.1.readout.0.weight"].shape[0] == weights["layers.1.readout.1.weight"].shape[1]
    again = MACE(SPECIES, model.cutoff, model.record(), weights, readouts)
    assert again.readouts == model.readouts
    graph = graph_of(*molecule(), model.cutoff)
    arguments = (graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
    for found, expected in zip(again(*arguments).values(), model(*arguments).values()):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_maps_by_the_center_s_species():
    """`select` follows the messages' map: where all species have the same one it can be part of it."""
    model = make("two interactions")
    weights = model.weights()
    names = [name.split(".", 2)[2] for name in weights if name.startswith("layers.1.message.")]
    generator = torch.Generator().manual_seed(6)
    split, joined = dict(weights), dict(weights)
    for which in (name.removeprefix("message.") for name in names):
        select = torch.randn(4, 4, generator=generator, dtype=torch.float64)
        joined[f"layers.1.message.{which}"] = select @ weights[f"layers.1.message.{which}"]
        split[f"layers.1.select.{which}"] = select.expand(len(SPECIES), 4, 4).clone()
    energies = []
    for tensors in (split, joined):
        other = MACE(SPECIES, CUTOFF, model.record(), tensors)
        assert other.weights().keys() == tensors.keys()
        energies.append(
            evaluate(other, graph_of(*molecule(), CUTOFF), other.couple).readouts["energy"].numpy()
        )
    close(energies[0], energies[1])
    # Of another species it is another map.
    split["layers.1.select.0e"][0] += 1.0
    other = MACE(SPECIES, CUTOFF, model.record(), split)
    positions, species = molecule()
    changed = evaluate(other, graph_of(positions, species, CUTOFF), other.couple).readouts["energy"].numpy()
    assert (np.abs(changed - energies[0]) > 1e-6).tolist() == (species == 0).tolist()


def test_skips_can_be_absent():
    model = make("two interactions")
    weights = {name: tensor for name, tensor in model.weights().items() if ".skip" not in name}
    other = MACE(SPECIES, CUTOFF, model.record(), weights)
    assert other.weights().keys() == weights.keys()
    energy = float(evaluate(other, graph_of(np.zeros((1, 3)), [2], CUTOFF), other.couple).energy)
    assert energy == float(weights["shift"][2])


def test_messages_of_an_untrained_model_have_unit_size(model):
    """By the scales of the weights, the same however often it is done, and kept in the state."""
    model = copy.deepcopy(model)
    graphs = [graph_of(*molecule(seed), CUTOFF) for seed in (1, 2)]
    before = model.weights()
    model.fit_statistics(graphs, 2.0)
    once = model.weights()
    model.fit_statistics(graphs, 2.0)
    after = model.weights()
    assert float(after["scale"]) == 2.0
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, once[name], rtol=1e-9, atol=1e-9)
        if not any(part in name for part in (".message.", ".radial.", ".density.", "scale", "shift")):
            assert torch.equal(tensor, before[name])
    energies = [evaluate(model, graph, model.couple).energy for graph in graphs]
    assert abs(float(sum(energies))) < 1e-10
    graph, layer = graphs[0], model.layers[0]
    h = model.embedding()[graph.species].unsqueeze(1)
    edges = model.edges(graph.species, graph.edge_index, graph.edge_vectors)[1:]
    sums = layer.sums(h, graph.species, graph.edge_index, *edges, graph.num_atoms)
    m = layer.messages(sums, graph.species, graph.edge_index, *edges[:2])
    assert 0.1 < float(m.detach().square().mean().sqrt()) < 3.0
    other = MACE(model.species, model.cutoff, model.record(), before)
    other.load_state_dict(model.state_dict())
    for name, tensor in other.weights().items():
        assert torch.equal(tensor, after[name])


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
    model.fit_statistics([graph_of(*twisted_pair(False), 3.1)], 1.0)
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
