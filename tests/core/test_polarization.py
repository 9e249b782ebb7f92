"""Dipoles and Born effective charges in torch: differences, sum rules, and what they do not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nearsight.couple import ChargedStructure, FrameCharger, evaluate, join_charged
from nearsight.errors import ConfigError
from nearsight.models import LongRangeConfig, PaiNNConfig, build_model, training_module
from nearsight.neighbors import collate

from .charge_models import CELLS, KINDS, SPECIES, case, charged_of, graph_of, random_model
from .charged_systems import rotation

MOLECULES = [kind for kind in KINDS if kind != "fixed"]
SEVERAL = ["painn", "mace with messages"]  # interactions


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=["bpnn", "mace"])
def architecture(request):
    """Of one interaction layer."""
    return request.param


def polarized(model, one, interactions=1):
    """Results with dipole and Born charges."""
    return evaluate(
        model,
        graph_of(one, model.cutoff),
        model.couple,
        charged=charged_of(model, one),
        born_charges=interactions,
    )


def moved(one, atom, axis, step):
    positions = one.positions.copy()
    positions[atom, axis] += step
    return one._replace(positions=positions)


def dipole_slope(model, one, atom, axis):
    """d(dipole)/dr by differences, [3]."""
    return slopes(lambda h: polarized(model, moved(one, atom, axis, h), 0).dipole[0].numpy())


def slopes(function, step=1e-3):
    """The derivative of function(h) at 0, of fourth order."""
    return (8 * (function(step) - function(-step)) - function(2 * step) + function(-2 * step)) / (12 * step)


def random_painn(**config):
    torch.manual_seed(1)
    config = PaiNNConfig(cutoff=4.0, channels=4, num_interactions=2, **config)
    return build_model(config, SPECIES, LongRangeConfig(**KINDS["latent"]))


def random_messages(architecture):
    """Two interaction layers, latent charges."""
    return random_painn() if architecture == "painn" else random_model("latent", architecture=architecture)


def test_dipoles(kind):
    """Of the first channel, which has the total charge."""
    one = case("open", True, kind)
    found = polarized(random_model(kind), one)
    expected = found.charges[:, 0].numpy() @ one.positions
    np.testing.assert_allclose(found.dipole[0].numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize("charged", [False, True])
@pytest.mark.parametrize("cell", ["open", "slab"])
def test_they_are_differences_of_the_dipole(kind, architecture, cell, charged):
    """In a slab along its normal, which is z here."""
    model, one = random_model(kind, architecture=architecture), case(cell, charged, kind)
    rows = slice(None) if cell == "open" else slice(2, 3)
    found = polarized(model, one).born_charges.numpy()
    for atom, axis in ((0, 0), (3, 1), (7, 2)):
        expected = dipole_slope(model, one, atom, axis)
        np.testing.assert_allclose(found[atom, rows, axis], expected[rows], atol=1e-8)


@pytest.mark.parametrize("architecture", SEVERAL)
def test_several_interactions(architecture):
    model, one = random_messages(architecture), case("open", True, "latent")
    found = polarized(model, one, 2).born_charges.numpy()
    for atom, axis in ((0, 0), (7, 2)):
        expected = dipole_slope(model, one, atom, axis)
        np.testing.assert_allclose(found[atom, :, axis], expected, atol=1e-8)
    with pytest.raises(ConfigError, match="take a model with one interaction layer, found 2"):
        polarized(model, case("triclinic", True, "latent"), 2)


def test_both_ways_agree(architecture):
    """By edges, and by the positions of all atoms."""
    model, one = random_model("latent", architecture=architecture), case("open", True, "latent")
    by_edges, by_atoms = (polarized(model, one, count).born_charges for count in (1, 2))
    torch.testing.assert_close(by_edges, by_atoms, rtol=0, atol=1e-12)


@pytest.mark.parametrize("charged", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_their_sum_is_the_total_charge(kind, cell, charged):
    one = case(cell, charged, kind)
    found = polarized(random_model(kind), one).born_charges.sum(0).numpy()
    np.testing.assert_allclose(found, one.charge * np.eye(3), atol=1e-12)


@pytest.mark.parametrize("kind", MOLECULES)
def test_periodic_images_and_supercells(kind, architecture):
    """The same whatever images of the atoms are given, and for each cell of a larger one."""
    model, one = random_model(kind, architecture=architecture), case("triclinic", False, kind)
    expected = polarized(model, one).born_charges.numpy()
    rng = np.random.default_rng(4)
    images = one._replace(positions=one.positions + rng.integers(-2, 3, (12, 3)) @ one.cell)
    np.testing.assert_allclose(polarized(model, images).born_charges.numpy(), expected, atol=1e-11)
    shifts = np.array([[0, 0, 0], [1, 0, 0]]) @ one.cell
    large = one._replace(
        positions=(one.positions[None] + shifts[:, None]).reshape(-1, 3),
        species=np.tile(one.species, 2),
        cell=np.diag([2, 1, 1]) @ one.cell,
    )
    found = polarized(model, large).born_charges.numpy().reshape(2, 12, 3, 3)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-11)


@pytest.mark.parametrize("kind", ["environment", "weighted"])
def test_moving_one_atom_of_a_crystal(kind):
    """The local part: raw charges of all atoms near one that moves, in an open piece of the crystal. The rest
    is the same matrix for all atoms, times their shares."""
    model, one = random_model(kind), case("triclinic", True, kind)
    found = polarized(model, one)
    cells = np.stack(np.meshgrid(*3 * [range(-2, 3)], indexing="ij"), -1).reshape(-1, 3)
    center = int(np.flatnonzero((cells == 0).all(1))[0])
    positions = (one.positions[None] + (cells @ one.cell)[:, None]).reshape(-1, 3)
    piece = one._replace(positions=positions, species=np.tile(one.species, len(cells)), pbc=[False] * 3)
    w, missing = shares(model, one)

    def local(atom, axis):
        x = positions - one.positions[atom]
        return slopes(
            lambda h: x.T @ raw_charges(model, moved(piece, 12 * center + atom, axis, h), missing / w.sum())
        )

    rest = []
    for atom in (0, 5):
        columns = np.stack([local(atom, axis) for axis in range(3)], axis=1)
        own = found.charges[atom, 0].item() * np.eye(3)
        rest.append((found.born_charges[atom].numpy() - own - columns) / w[atom])
    np.testing.assert_allclose(rest[0], rest[1], atol=1e-7)


def readouts_of(model, one):
    graph = graph_of(one)
    with torch.no_grad():
        return model(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)


def shares(model, one):
    """Weights w [n] and the charge that the projection adds."""
    readouts = readouts_of(model, one)
    v = readouts.get("charge_weight")
    w = np.ones(12) if v is None else np.logaddexp(0.0, v[:, 0].numpy())
    return w, one.charge - readouts["charge"][:, 0].sum().item()


def raw_charges(model, one, factor):
    """p_j + factor · w_j of all atoms."""
    readouts = readouts_of(model, one)
    p, v = readouts["charge"][:, 0].numpy(), readouts.get("charge_weight")
    return p if v is None else p + factor * np.logaddexp(0.0, v[:, 0].numpy())


@pytest.mark.parametrize("cell", CELLS)
def test_they_turn_with_the_system(kind, architecture, cell):
    model, one = random_model(kind, architecture=architecture), case(cell, True, kind)
    turn = rotation(np.random.default_rng(2))
    turned = one._replace(positions=one.positions @ turn, cell=one.cell @ turn)
    expected = turn.T @ polarized(model, one).born_charges.numpy() @ turn
    np.testing.assert_allclose(polarized(model, turned).born_charges.numpy(), expected, atol=1e-10)


def loss_and_gradients(module, model, cells):
    """Of squares of dipoles and Born charges of several frames at once."""
    cases = [case(cell, charged, "latent") for cell, charged in zip(cells, (True, False, True, False))]
    charger = FrameCharger(model.couple)
    found = evaluate(
        module,
        collate([graph_of(one) for one in cases]),
        model.couple,
        create_graph=True,
        charged=join_charged([charger(ChargedStructure(*one)) for one in cases]),
        born_charges=model.num_interactions,
    )
    generator = torch.Generator().manual_seed(2)
    loss = torch.zeros((), dtype=torch.float64)
    for values in (found.dipole, found.born_charges):
        aim = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        loss = loss + ((values - aim) ** 2).sum()
    return loss.item(), torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)


@pytest.mark.parametrize("kind", MOLECULES)
def test_gradients_of_a_loss_by_the_parameters(kind, architecture):
    def make():
        return random_model(kind, architecture=architecture)

    check_gradients(make, CELLS, "native")


@pytest.mark.parametrize(("architecture", "backend"), [("painn", "torch"), ("mace with messages", "native")])
def test_gradients_of_several_interactions(architecture, backend):
    check_gradients(lambda: random_messages(architecture), ["open", "open"], backend)


def check_gradients(make, cells, backend):
    """Training, autograd of the torch module, and differences."""
    model = make()
    _, gradients = loss_and_gradients(model, model, cells)
    _, trained = loss_and_gradients(training_module(model, backend, 1, "double"), model, cells)
    for a, b in zip(trained, gradients):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8 * max(1.0, b.abs().max().item()))
    check_differences(make, gradients, cells)


def check_differences(make, gradients, cells):
    generator = torch.Generator().manual_seed(3)
    directions = [torch.randn(g.shape, generator=generator, dtype=g.dtype) for g in gradients]
    expected = sum((g * d).sum().item() for g, d in zip(gradients, directions))

    def loss(step):
        model = make()
        with torch.no_grad():
            for parameter, direction in zip(model.parameters(), directions):
                parameter.add_(step * direction)
        return loss_and_gradients(model, model, cells)[0]

    assert slopes(loss, 1e-5) == pytest.approx(expected, rel=1e-7)
