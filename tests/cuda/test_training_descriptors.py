"""Ops of descriptors, stored derivatives and products of moments on a device, against those of the CPU."""

import pytest
import test_models_native
import test_moments_native
import torch
from test_models_native import every_kind
from test_stored import DESCRIPTORS, frames, neighborhoods, random_bpnn

from nearsight.models import ACSFConfig, ANIConfig, native, native_ops
from nearsight.models.native import NativeBPNN
from nearsight.neighbors import collate
from nearsight.training.stored import compress

from .device_ops import DeviceOps, assert_same

pytestmark = pytest.mark.usefixtures("thread_order")


@pytest.mark.parametrize("descriptor", DESCRIPTORS)
def test_stored_derivatives(descriptor):
    """Also: reverse and tangent are each other's transposes."""
    model = random_bpnn(descriptor=descriptor)
    graph = frames(model.cutoff)[0]
    jacobian = neighborhoods(NativeBPNN(model, 1), graph).jacobian()
    stored = compress(jacobian, graph)
    start = stored.values, stored.edges, stored.columns, stored.sizes, stored.centers
    edges, width = len(stored.centers), jacobian.size(2)
    torch.manual_seed(3)
    cotangents = torch.randn(graph.num_atoms, width, dtype=torch.float64)
    directions = torch.randn(edges, 3, dtype=torch.float64)
    (gradients,) = assert_same("stored_reverse", *start, cotangents, torch.zeros_like(directions), 1)
    (tangents,) = assert_same("stored_tangent", *start, directions, torch.zeros_like(cotangents), 1)
    left, right = (gradients * directions).sum(), (tangents * cotangents).sum()
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5 * float(gradients.abs().sum()))
    slots = torch.full((edges,), -1)
    slots[3], slots[edges - 1], slots[8] = 1, 0, 2
    (dense,) = assert_same("stored_gather", *start, slots, torch.zeros(3, 3, width).double(), 1)
    assert torch.equal(dense, jacobian[[edges - 1, 3, 8]].double())


def test_no_stored_derivatives():
    nothing = torch.zeros(0, dtype=torch.int32)
    start = torch.zeros(0), nothing, nothing, torch.zeros(0, 2, dtype=torch.int64), nothing
    table, edges = torch.zeros(3, 5).double(), torch.zeros(0, 3).double()
    assert_same("stored_reverse", *start, table, edges, 1)
    (tangents,) = assert_same("stored_tangent", *start, edges, table, 1)
    assert not tangents.any()


@pytest.mark.parametrize("count", [0, 5, 70])
def test_products_of_moments(count):
    """Node 1 and 2 are moments; targets that need others come in parts."""
    torch.manual_seed(count)
    terms = [
        [(1, 2, 0.7), (3, 3, -1.2)],
        [(1, 0, 2.0)],
        [(4, 3, 0.3), (5, 5, 1.1)],
        [(6, 4, 1.5), (6, 1, -0.4)],
    ]
    first = torch.tensor([0, 2, 3, 5, 7], dtype=torch.int32)
    factors = torch.tensor([[a, b] for target in terms for a, b, _ in target], dtype=torch.int32)
    coefficients = torch.tensor([c for target in terms for _, _, c in target], dtype=torch.float64)
    features = torch.tensor([2, 4, 6, 7], dtype=torch.int32)
    moments, directions = torch.randn(2, count, 3, dtype=torch.float64).unbind(0)
    cotangents, zero = torch.randn(count, 4, dtype=torch.float64), torch.zeros(count, 4).double()
    start = first, factors, coefficients, features, moments, 1
    assert_same("products_forward", *start, zero)
    assert_same("products_reverse", *start, cotangents, torch.zeros_like(moments))
    assert_same("products_second", *start, cotangents, directions, zero, torch.zeros_like(moments))


@pytest.mark.parametrize("descriptor", [*DESCRIPTORS, *map(every_kind, ("cos", "poly2", "tanh3"))])
def test_descriptors(descriptor):
    """Also: reverse and tangent are each other's transposes; frames without edges."""
    model = random_bpnn(descriptor=descriptor, cutoff=5.0)
    module = NativeBPNN(model, 1)
    for graph in (collate(frames(model.cutoff)), frames(model.cutoff)[-1]):
        found = neighborhoods(module, graph)
        found = getattr(found, "evaluated", found)
        start = found.descriptor.handle, found.species, found.offsets, found.neighbors, found.vectors
        table, edges = found._table().zero_(), torch.zeros_like(found.vectors)
        torch.manual_seed(3)
        cotangents, directions = torch.randn_like(table), torch.randn_like(edges)
        assert_same("descriptor_forward", *start, found.vectors, table, 1)
        (gradients,) = assert_same("descriptor_reverse", *start, cotangents, edges, 1)
        (tangents,) = assert_same("descriptor_tangent", *start, directions, table, 1)
        left, right = (gradients * directions).sum(), (tangents * cotangents).sum()
        torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11 * float(gradients.abs().sum()))


@pytest.fixture
def device(monkeypatch):
    ops = DeviceOps()
    for module in (native, native_ops):
        monkeypatch.setattr(module, "load_ops", lambda: ops)


@pytest.mark.parametrize("name", test_moments_native.DESCRIPTORS)
def test_models_of_moments(name, device):
    """All ops of a step together."""
    test_moments_native.test_gradients_of_a_loss_with_forces_equal_those_of_torch(name)


@pytest.mark.parametrize(
    "descriptor", [ACSFConfig(size="small"), every_kind("exp", inner_fraction=0.3), ANIConfig()]
)
def test_models_of_symmetry_functions(descriptor, device):
    test_models_native.test_results_and_parameter_gradients_equal_those_of_torch({"descriptor": descriptor})
