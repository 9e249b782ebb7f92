"""Stored descriptors: nothing is lost, products are those of the core, and a bound on memory is kept."""

import numpy as np
import pytest
import torch
from core.core_models import explicit_functions, random_box, random_bpnn
from numpy.testing import assert_allclose

from nearsight.couple import evaluate
from nearsight.errors import NearsightError
from nearsight.models import ACSFConfig
from nearsight.models.native import NativeBPNN
from nearsight.neighbors import collate, make_graph
from nearsight.training import stored as stored_module
from nearsight.training.stored import STRAINS, StoredModule, compress, store_frame, store_frames

DESCRIPTORS = [
    ACSFConfig(),
    ACSFConfig(symmetry_functions=explicit_functions(), cutoff_function="poly4"),
]


def frames(cutoff, count=2):
    """Periodic boxes, and at last two atoms that do not see each other."""
    boxes = [make_graph(x, s, c, [True] * 3, cutoff) for x, s, c in (random_box(k, 14) for k in range(count))]
    return [*boxes, make_graph(np.diag([0.0, 9.0, 0.0])[:2], [0, 1], np.zeros((3, 3)), [False] * 3, cutoff)]


def neighborhoods(native, graph):
    return native.descriptor.neighborhoods(graph.species, graph.edge_index, graph.edge_vectors)


@pytest.mark.parametrize("descriptor", DESCRIPTORS)
def test_jacobian_against_the_torch_module(descriptor):
    """Every feature of every atom by every edge."""
    model = random_bpnn(descriptor=descriptor)
    graph = frames(model.cutoff)[0]
    found = neighborhoods(NativeBPNN(model, 2), graph).jacobian().double()
    vectors = graph.edge_vectors.clone().requires_grad_()
    table = model.descriptor(graph.species, graph.edge_index, vectors, graph.num_atoms)
    for kind, network in enumerate(model.networks):
        mine = graph.species[graph.edge_index[0]] == kind
        for number, column in enumerate(network.columns.tolist()):
            (gradient,) = torch.autograd.grad(table[:, column].sum(), vectors, retain_graph=True)
            assert_allclose(
                found[mine, :, number], gradient[mine], rtol=1e-6, atol=1e-7 * gradient.abs().max()
            )


@pytest.mark.parametrize("descriptor", DESCRIPTORS)
def test_blocks_hold_every_number_that_is_not_zero(descriptor):
    model = random_bpnn(descriptor=descriptor)
    graph = frames(model.cutoff)[0]
    jacobian = neighborhoods(NativeBPNN(model, 1), graph).jacobian()
    derivatives = compress(jacobian, graph)
    dense = torch.zeros(jacobian.shape, dtype=torch.float64)
    derivatives.apply("stored_gather", torch.arange(len(dense)), dense, 1)
    assert torch.equal(dense, jacobian.double())
    assert derivatives.values.numel() < 0.75 * jacobian.numel()
    some = torch.full((len(dense),), -1)
    some[5], some[17] = 1, 0
    two = torch.zeros(2, *jacobian.shape[1:], dtype=torch.float64)
    derivatives.apply("stored_gather", some, two, 1)
    assert torch.equal(two, jacobian[[17, 5]].double())


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("descriptor", DESCRIPTORS)
def test_products_are_those_of_the_core(descriptor, threads, monkeypatch):
    """Energies, forces, virials and the gradient of a loss of them."""
    model = random_bpnn(descriptor=descriptor)
    native = NativeBPNN(model, threads)
    graphs = frames(model.cutoff)
    graph = collate(graphs)
    kept = [store_frame(native, g, derivatives=True) for g in graphs]
    features = [store_frame(native, g, derivatives=False) for g in graphs]
    results = []
    for module in (native, StoredModule(native, features), StoredModule(native, kept)):
        found = evaluate(module, graph, model.couple, create_graph=True)
        loss = (found.energy**2).sum() + (found.forces**2).sum() + (found.virial**2).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        results.append([found.energy.detach(), found.forces.detach(), found.virial.detach(), *gradients])
    for evaluated, with_features, with_derivatives in zip(*results):
        assert torch.equal(with_features, evaluated)
        assert_allclose(with_derivatives, evaluated, rtol=0, atol=3e-6 * float(evaluated.abs().max()))


def test_collective_derivatives_by_differences():
    """Of all features: one atom moves; the frame is strained."""
    model = random_bpnn()
    native = NativeBPNN(model, 1)
    positions, species, cell = random_box(3, 10)
    h = 1e-4

    def features(shift, strain):
        moved = (positions + shift) @ (np.eye(3) + strain)
        graph = make_graph(moved, species, cell @ (np.eye(3) + strain), [True] * 3, model.cutoff)
        return neighborhoods(native, graph).forward().numpy()

    graph = make_graph(positions, species, cell, [True] * 3, model.cutoff)
    found = store_frame(native, graph, derivatives=True, collective=True).collective.numpy()
    shift = np.zeros_like(positions)
    shift[4, 1] = h
    numbers = (features(shift, 0) - features(-shift, 0)) / (2 * h)
    assert_allclose(found[4, 1], numbers[4], atol=1e-5 * np.abs(numbers[4]).max())
    for row, (a, b) in enumerate(STRAINS, start=3):
        strain = np.zeros((3, 3))
        strain[a, b] += h / 2
        strain[b, a] += h / 2
        numbers = (features(0, strain) - features(0, -strain)) / (2 * h)
        assert_allclose(found[:, row], numbers, atol=1e-5 * np.abs(numbers).max())


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_what_does_not_fit_into_memory_goes_to_a_file_without_a_name(part, tmp_path):
    model = random_bpnn()
    native = NativeBPNN(model, 1)
    graphs = frames(model.cutoff)
    whole = store_frames(native, graphs, True, np.inf, tmp_path, threads=2)
    sizes = [frame.derivatives.values.nbytes for frame in whole]
    bound = part * sum(sizes)
    spilled = store_frames(native, graphs, True, bound, tmp_path, threads=2)
    assert list(tmp_path.iterdir()) == []
    assert sum(size for frame, size in zip(spilled, sizes) if frame.in_memory) <= bound
    assert not all(frame.in_memory for frame in spilled) and all(frame.in_memory for frame in whole)
    for a, b in zip(whole, spilled):
        assert torch.equal(a.derivatives.values, b.derivatives.values)
    energy = evaluate(StoredModule(native, spilled), collate(graphs), model.couple).energy
    assert torch.equal(energy, evaluate(native, collate(graphs), model.couple).energy)


def test_full_disk(monkeypatch):
    monkeypatch.setattr(stored_module.tempfile, "TemporaryFile", lambda dir: open("/dev/full", "w+b"))  # noqa: SIM115
    model = random_bpnn()
    with pytest.raises(
        NearsightError, match=r"cannot be written .*; free some space, or raise training.cache_gb"
    ):
        store_frames(NativeBPNN(model, 1), frames(model.cutoff), True, 0.0, None, threads=1)
