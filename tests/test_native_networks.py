"""Networks on the core for training against the torch module: values, gradients and second derivatives."""

import pytest
import torch

from nearsight.models.activations import ACTIVATIONS
from nearsight.models.native_networks import NativeNetworks
from nearsight.models.native_ops import load_ops
from nearsight.models.networks import NetworkShape, SpeciesNetwork

WIDTH = 21  # of the table


def networks(shapes, outputs=1, members=1, whiten=True):
    """One for each shape, with fewer features each, and random parameters and statistics."""
    torch.manual_seed(4)
    found = [
        SpeciesNetwork(torch.arange(WIDTH - 2 * k), shape, outputs, members, whiten)
        for k, shape in enumerate(shapes)
    ]
    for network in found:
        network.shift.normal_()
        network.scale.uniform_(0.5, 2.0)
        if whiten:
            network.mixing.normal_(std=0.3)
        for layer in network.layers:
            torch.nn.init.normal_(layer.bias)
    return found


def by_torch(networks, species, table):
    members, outputs = networks[0].members, networks[0].layers[-1].bias.size(1)
    found = torch.zeros(len(table), members * outputs, dtype=torch.float64)
    for kind, network in enumerate(networks):
        atoms = torch.nonzero(species == kind).squeeze(1)
        found = found.index_add(0, atoms, network(table[atoms][:, network.columns]))
    return found


def derivatives(evaluate, networks, species, table, nonlinear):
    """Outputs, c = d(outputs)/d(table), and the gradients of a function of both by everything.

    `nonlinear`: the cotangents of the outputs depend on the parameters, as those of an eigenvalue do.
    """
    table = table.clone().requires_grad_()
    outputs = evaluate(species, table)
    energy = (torch.sin(outputs) if nonlinear else outputs).sum()
    (c,) = torch.autograd.grad(energy, table, create_graph=True)
    parameters = [parameter for network in networks for parameter in network.parameters()]
    generator = torch.Generator().manual_seed(7)
    loss = (c * torch.randn(c.shape, generator=generator, dtype=c.dtype)).sum() + (outputs**2).sum()
    return [outputs, c, *torch.autograd.grad(loss, [*parameters, table])]


def compare(networks, count=130, threads=1, nonlinear=False, tolerance=1e-10):
    species = torch.arange(count) % 3 % (len(networks) + 1)
    species[species == len(networks)] = 0
    table = torch.randn(count, WIDTH, dtype=torch.float64)
    native = NativeNetworks(load_ops(), networks, second=True, num_threads=threads)
    expected = derivatives(lambda s, t: by_torch(networks, s, t), networks, species, table, nonlinear)
    found = derivatives(native, networks, species, table, nonlinear)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.detach().abs().max()))
    return found


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation):
    compare(networks([NetworkShape((7, 5), (activation, "tanh", "linear"))]))


def test_the_last_layer_may_have_an_activation():
    compare(networks([NetworkShape((4,), ("tanh", "tanh"))]))


def test_one_layer():
    compare(networks([NetworkShape((), ("linear",))]))


@pytest.mark.parametrize("nonlinear", [False, True])
def test_members_outputs_and_species_with_different_networks(nonlinear):
    shapes = [NetworkShape((18, 17), ("tanh", "silu", "linear")), NetworkShape((3,), ("softplus", "linear"))]
    compare(networks(shapes, outputs=3, members=2, whiten=False), nonlinear=nonlinear)


def test_a_species_without_atoms():
    shape = NetworkShape((4,), ("tanh", "linear"))
    found = compare(networks([shape, shape, shape]), count=2)
    assert all(bool(torch.all(gradient == 0.0)) for gradient in found[-5:-1])


def test_threads_change_no_bit():
    shape = NetworkShape((40, 40), ("tanh", "tanh", "linear"))
    made = networks([shape])
    torch.manual_seed(1)
    alone = compare(made, count=5000)
    torch.manual_seed(1)
    together = compare(made, count=5000, threads=3)
    assert all(torch.equal(a, b) for a, b in zip(alone, together))
