"""Ops of stored derivatives and of products of moments on a device, against those of the CPU."""

import pytest
import torch
from test_stored import DESCRIPTORS, frames, neighborhoods, random_bpnn

from nearsight.models.native import NativeBPNN
from nearsight.training.stored import compress

from .device_ops import assert_same

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
