"""The BPNN module: derivatives, symmetries, locality and edge cases, with random weights in double."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from nearsight.couple import evaluate
from nearsight.models import ACSFConfig, BPNNConfig, build_model
from nearsight.neighbors import Graph, collate, make_graph

CUTOFF = 4.0
CELL = np.array([[5.0, 0.0, 0.0], [1.2, 4.5, 0.0], [-0.8, 0.9, 5.5]])
NO_CELL = np.zeros((3, 3))
SPECIES = ["H", "O", "C"]


def model_of(**config):
    torch.manual_seed(7)
    return build_model(BPNNConfig(cutoff=CUTOFF, **config), SPECIES)


def cluster(count, seed=0, box=4.0):
    """Random positions no two of which are closer than 0.9 Å, and species."""
    rng = np.random.default_rng(seed)
    positions = np.zeros((0, 3))
    while len(positions) < count:
        candidate = rng.random(3) * box
        if (np.linalg.norm(positions - candidate, axis=1) > 0.9).all():
            positions = np.vstack([positions, candidate])
    return positions, np.arange(count) % len(SPECIES)


def results_of(model, positions, species, cell=NO_CELL, periodic=False):
    return evaluate(model, make_graph(positions, species, cell, [periodic] * 3, model.cutoff), model.couple)


def edges_of(graph):
    return graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms


def central_differences(energy_of, x, step):
    """dE/dx of a function of a numpy array by central differences of fourth order."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        for shift, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            moved = x.copy()
            moved[place] += shift * step
            gradient[place] += weight * energy_of(moved) / (12 * step)
    return gradient


@pytest.mark.parametrize(
    "config",
    [
        {"descriptor": ACSFConfig(size="small")},
        {"descriptor": ACSFConfig(size="large", cutoff_function="cos")},
        {
            "descriptor": ACSFConfig(size="medium", cutoff_function="tanh3"),
            "activation": "silu",
            "hidden": [7],
        },
        {"descriptor": ACSFConfig(size="small", cutoff_function="poly4"), "states": 3, "state": 1},
    ],
)
def test_forces_and_virial_equal_differences_of_the_energy(config):
    model = model_of(**config)
    positions, species = cluster(7)
    results = results_of(model, positions, species, CELL, True)

    def at_positions(x):
        return results_of(model, x, species, CELL, True).energy.item()

    forces = -central_differences(at_positions, positions, 1e-3)
    scale = np.abs(forces).max()
    assert results.forces.numpy() == pytest.approx(forces, abs=1e-7 * scale)

    def at_strain(strain):
        deform = np.eye(3) + 0.5 * (strain + strain.T)
        return results_of(model, positions @ deform, species, CELL @ deform, True).energy.item()

    virial = -central_differences(at_strain, np.zeros((3, 3)), 3e-4)
    assert results.virial[0].numpy() == pytest.approx(virial, abs=1e-7 * np.abs(virial).max())


@pytest.mark.parametrize("states", [1, 2])
def test_energy_is_invariant_and_forces_turn_along(states):
    model = model_of(states=states)
    positions, species = cluster(9)
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))  # a reflection too
    order = np.random.default_rng(4).permutation(9)
    before = results_of(model, positions, species)
    after = results_of(model, (positions @ rotation + [3.0, -2.0, 11.0])[order], species[order])
    assert after.energy.item() == pytest.approx(before.energy.item(), rel=1e-12)
    assert after.forces.numpy() == pytest.approx((before.forces.numpy() @ rotation)[order], abs=1e-12)
    assert before.forces.sum(0).numpy() == pytest.approx(np.zeros(3), abs=1e-12)


def test_energy_of_a_crystal_is_invariant_to_the_choice_of_cell():
    model = model_of()
    positions, species = cluster(5)
    once = results_of(model, positions, species, CELL, True)
    shifted = positions + np.array([1, -2, 3, 0, 5])[:, None] * CELL[0] - CELL[1]
    double = np.vstack([positions, positions + CELL[2]])
    twice = results_of(model, double, np.tile(species, 2), CELL * [[1], [1], [2]], True)
    unwrapped = results_of(model, shifted, species, CELL, True)
    assert unwrapped.energy.item() == pytest.approx(once.energy.item(), rel=1e-12)
    assert twice.energy.item() == pytest.approx(2 * once.energy.item(), rel=1e-12)
    assert twice.virial.numpy() == pytest.approx(2 * once.virial.numpy(), abs=1e-11)


def test_far_fragments_add():
    model = model_of()
    first, second = cluster(5, seed=1), cluster(4, seed=2)
    together = results_of(
        model, np.vstack([first[0], second[0] + 30.0]), np.concatenate([first[1], second[1]])
    )
    parts = [results_of(model, *fragment) for fragment in (first, second)]
    assert together.energy.item() == pytest.approx(sum(p.energy.item() for p in parts), rel=1e-12)
    torch.testing.assert_close(together.forces, torch.cat([p.forces for p in parts]), rtol=0, atol=1e-13)


@pytest.mark.parametrize("cutoff_function", ["poly2", "poly3", "tanh3"])
def test_energy_and_forces_are_continuous_at_the_cutoff(cutoff_function):
    model = model_of(descriptor=ACSFConfig(cutoff_function=cutoff_function))
    positions, species = cluster(5)
    last = positions[positions[:, 0].argmax()]  # all others stay beyond the cutoff of the probe

    def with_probe(offset):
        probe = last + np.array([CUTOFF + offset, 0.0, 0.0])
        return results_of(model, np.vstack([positions, probe]), np.append(species, 1))

    inside, outside = with_probe(-1e-5), with_probe(1e-5)
    assert inside.energy.item() == pytest.approx(outside.energy.item(), abs=1e-9)
    assert inside.forces.numpy() == pytest.approx(outside.forces.numpy(), abs=1e-5)


def test_first_and_second_derivatives_of_the_readouts():
    def angle(kind, neighbors, cutoff, sign, zeta):
        return {
            "kind": kind,
            "neighbors": neighbors,
            "eta": 0.1,
            "cutoff": cutoff,
            "lambda": sign,
            "zeta": zeta,
        }

    config = {
        "cutoff": CUTOFF,
        "descriptor": {
            "symmetry_functions": {
                "H": [
                    {"kind": "radial", "neighbors": ["O"], "eta": 0.4, "r_shift": 0.3, "cutoff": 4.0},
                    {
                        "kind": "angular_narrow",
                        "neighbors": ["H", "O"],
                        "eta": 0.05,
                        "cutoff": 3.8,
                        "lambda": -1,
                        "zeta": 1,
                    },
                ],
                "O": [
                    {
                        "kind": "angular_wide",
                        "neighbors": ["H", "H"],
                        "eta": 0.1,
                        "cutoff": 4.0,
                        "lambda": 1,
                        "zeta": 4,
                    }
                ],
            },
        },
    }
    torch.manual_seed(1)
    model = build_model(BPNNConfig.model_validate(config), ["H", "O"])
    positions, _ = cluster(5, box=2.5)
    species, index, vectors, owned = edges_of(
        make_graph(positions, [0, 1, 0, 0, 1], NO_CELL, [False] * 3, CUTOFF)
    )

    def readout(v):
        return model(species, index, v, owned)["energy"]

    vectors.requires_grad_(True)
    assert torch.autograd.gradcheck(readout, vectors)
    assert torch.autograd.gradgradcheck(readout, vectors)


def test_the_parameter_gradient_of_a_force_loss_equals_differences():
    model = model_of(hidden=[4], states=2)
    positions, species = cluster(6)
    graph = make_graph(positions, species, NO_CELL, [False] * 3, CUTOFF)
    model.fit_statistics([make_graph(*cluster(12, seed=k), CELL, [True] * 3, CUTOFF) for k in range(5)], 1.0)
    weight = model.networks[1].layers[0].weight

    def loss():
        return (evaluate(model, graph, model.couple, create_graph=True).forces ** 2).sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    place, step = torch.unravel_index(gradient.abs().argmax(), weight.shape), 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[place] += sign * step
        values.append(loss().item())
        with torch.no_grad():
            weight[place] -= sign * step
    assert gradient[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize(
    "config", [{}, {"descriptor": ACSFConfig(size="large"), "activation": "silu"}, {"states": 2}]
)
def test_scripted_and_eager_modules_agree(config):
    model = model_of(**config)
    scripted = torch.jit.script(model)
    positions, species = cluster(8)
    graph = make_graph(positions, species, CELL, [True] * 3, CUTOFF)
    parameters = list(model.parameters())
    for _ in range(3):  # TorchScript specializes in the first calls
        outcomes = []
        for module in (model, scripted):
            results = evaluate(module, graph, model.couple, create_graph=True)
            gradient = torch.autograd.grad((results.forces**2).sum() + results.energy.sum(), parameters)
            outcomes.append([results.energy, results.forces, *gradient])
        for eager, compiled in zip(*outcomes):
            torch.testing.assert_close(compiled, eager, rtol=1e-10, atol=1e-12)


def test_single_atoms_and_graphs_without_edges():
    model = model_of()
    single = results_of(model, np.zeros((1, 3)), [1])
    network = model.networks[1]
    expected = network(torch.zeros(1, network.columns.numel(), dtype=torch.float64)).item()
    assert single.energy.item() == pytest.approx(expected, rel=1e-14)
    assert torch.equal(single.forces, torch.zeros(1, 3, dtype=torch.float64))
    none = results_of(model, np.zeros((0, 3)), [])
    assert none.energy.tolist() == [0.0]
    assert none.forces.shape == (0, 3)


@pytest.mark.parametrize("third", [[2.0, 0, 0], [-1.1, 0, 0]])
def test_straight_angles_have_finite_derivatives(third):
    model = model_of(descriptor=ACSFConfig(size="large"))
    positions = np.array([[0, 0, 0], [1.0, 0, 0], third])
    graph = make_graph(positions, [0, 1, 2], NO_CELL, [False] * 3, CUTOFF)
    results = evaluate(model, graph, model.couple, create_graph=True)
    gradient = torch.autograd.grad((results.forces**2).sum(), list(model.parameters()), allow_unused=True)
    assert all(g.isfinite().all() for g in gradient if g is not None)
    assert results.forces[:, 1:].abs().max().item() == pytest.approx(0.0, abs=1e-12)


def test_ghosts_give_no_rows_but_are_seen():
    model = model_of()
    positions, species = cluster(6)
    graph = make_graph(positions, species, NO_CELL, [False] * 3, CUTOFF)
    owned = graph.edge_index[0] < 3
    everything = model(*edges_of(graph))["energy"]
    part = model(graph.species, graph.edge_index[:, owned], graph.edge_vectors[owned], 3)["energy"]
    torch.testing.assert_close(part, everything[:3], rtol=1e-13, atol=0)


def test_a_batch_gives_what_its_frames_give():
    model = model_of(states=2)
    graphs = [make_graph(*cluster(n, seed=n), CELL, [True] * 3, CUTOFF) for n in (3, 1, 6)]
    batch = evaluate(model, collate([collate(graphs[:2]), graphs[2]]), model.couple)
    singles = [evaluate(model, graph, model.couple) for graph in graphs]
    torch.testing.assert_close(batch.energy, torch.cat([s.energy for s in singles]))
    torch.testing.assert_close(batch.forces, torch.cat([s.forces for s in singles]))
    torch.testing.assert_close(batch.virial, torch.cat([s.virial for s in singles]))


def test_single_precision_is_close_and_keeps_its_type():
    model = model_of()
    positions, species = cluster(8)
    graph = make_graph(positions, species, CELL, [True] * 3, CUTOFF)
    double = evaluate(model, graph, model.couple)
    single = evaluate(model.to(torch.float32), graph.to(dtype=torch.float32), model.couple)
    assert single.readouts["energy"].dtype == torch.float32
    assert single.energy.dtype == single.forces.dtype == torch.float64
    torch.testing.assert_close(single.forces, double.forces, rtol=0, atol=1e-5)


def test_statistics_are_those_of_the_training_set():
    model = model_of()
    graphs = [make_graph(*cluster(n, seed=n), CELL, [True] * 3, CUTOFF) for n in (4, 9, 2)]
    features = [torch.cat(parts).numpy() for parts in zip(*(model.features(g) for g in graphs))]
    model.fit_statistics(iter(graphs), 0.7)
    assert model.output_scale.tolist() == [0.7]
    for network, x in zip(model.networks, features):
        assert network.shift.numpy() == pytest.approx(x.mean(0), abs=1e-12)
        assert network.scale.numpy() == pytest.approx(1 / np.maximum(x.std(0), 1e-3), rel=1e-9)


def test_statistics_of_an_absent_species_stay():
    model = model_of()
    positions, _ = cluster(4)
    model.fit_statistics([make_graph(positions, [0, 0, 1, 0], NO_CELL, [False] * 3, CUTOFF)], 1.0)
    assert torch.equal(model.networks[2].scale, torch.ones_like(model.networks[2].scale))
    assert not torch.equal(model.networks[0].scale, torch.ones_like(model.networks[0].scale))


def test_weights_have_the_names_and_shapes_of_the_file_format():
    model = model_of(hidden=[5, 3], states=2)
    shapes = {name: list(tensor.shape) for name, tensor in model.weights().items()}
    functions = model.networks[1].columns.numel()
    assert shapes["O.shift"] == shapes["O.scale"] == [functions]
    assert [shapes[f"O.{i}.weight"] for i in range(3)] == [[1, 5, functions], [1, 3, 5], [1, 3, 3]]
    assert [shapes[f"O.{i}.bias"] for i in range(3)] == [[1, 5], [1, 3], [1, 3]]
    assert shapes["output_scale"] == [3]
    assert len(shapes) == 1 + 3 * 8


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"states": 2, "state": 2}, r"state must be one of 0 to 1 with 2 state\(s\), found 2"),
        ({"hidden": [5, 0]}, r"hidden layers need at least one node each, found \[5, 0\]"),
        (
            {"descriptor": {"symmetry_functions": {"H": []}}},
            "species H has an empty list of symmetry functions",
        ),
        (
            {
                "descriptor": {
                    "symmetry_functions": {
                        "H": [{"kind": "radial", "neighbors": ["H"], "eta": 1.0, "cutoff": 7.0}]
                    }
                }
            },
            "a symmetry function of H reaches 7.0 Å, beyond the cutoff 6.0 Å",
        ),
        ({"cutof": 5.0}, "Extra inputs are not permitted"),
        ({"descriptor": {"cutoff_function": "cosine"}}, "Input should be 'hard', 'cos', 'tanh3'"),
    ],
)
def test_configurations_that_cannot_be_right_are_refused(config, message):
    with pytest.raises(ValidationError, match=message):
        BPNNConfig(**config)


def test_explicit_functions_must_fit_the_species_of_the_data():
    function = {"kind": "radial", "neighbors": ["Cl"], "eta": 1.0, "cutoff": 3.0}
    config = BPNNConfig.model_validate({"descriptor": {"symmetry_functions": {"H": [function]}}})
    message = "the data has H, O, missing are O, unknown are Cl"
    with pytest.raises(ValueError, match=message):
        build_model(config, ["H", "O"])


def test_graphs_change_type_without_changing_indices():
    graph = make_graph(*cluster(3), NO_CELL, [False] * 3, CUTOFF).to(dtype=torch.float32)
    assert isinstance(graph, Graph)
    assert graph.edge_vectors.dtype == torch.float32
    assert graph.species.dtype == graph.edge_index.dtype == graph.frame.dtype == torch.int64
