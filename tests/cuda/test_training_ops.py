"""Ops of MACE training on a device: the tests of the CPU's ops, and against those to the last digits."""

import pytest
import torch
from message_passing_models import make
from test_mace_training import (  # noqa: F401
    batch,
    gradients,
    neighborhoods,
    no_edges,
    test_dense_layers_with_derivatives,
    test_distances_and_harmonics,
    test_edge_convolution,
    test_pairs,
    test_symmetric_contraction,
)
from test_mace_training import test_mixed_precision as mixed_precision
from test_mace_training import test_results_and_gradients_equal_those_of_torch as results_and_gradients

from nearsight.models import equivariant_native, mace_edges, native_ops, training_module
from nearsight.neighbors import Graph

from .device_ops import DeviceOps, assert_same

MODULES = (equivariant_native, mace_edges, native_ops)
L_MAX = 5


@pytest.fixture
def take_device(monkeypatch):
    """Lets training take the ops of the device."""
    ops = DeviceOps()

    def take():
        for module in MODULES:
            monkeypatch.setattr(module, "load_ops", lambda: ops)

    return take


@pytest.fixture(autouse=True)
def device_by_default(request, take_device, monkeypatch):
    """Tests of the CPU's ops see those of the device, in the order that is not the usual one."""
    monkeypatch.setenv("NEARSIGHT_EMULATION_ORDER", "reverse")
    if "take_device" not in request.function.__code__.co_varnames:
        take_device()


@pytest.mark.parametrize("name", ["one interaction", "two interactions", "both parities"])
def test_models(name):
    results_and_gradients(name, batch(), 1)


def test_models_without_edges():
    results_and_gradients("two interactions", no_edges(), 1)


def test_mixed_models():
    mixed_precision("both parities")


def test_order_of_threads_changes_no_bit(monkeypatch):
    found = []
    for order in ("forward", "reverse"):
        monkeypatch.setenv("NEARSIGHT_EMULATION_ORDER", order)
        for precision in ("double", "mixed"):
            module = training_module(make("two interactions"), "native", 1, precision)
            found.append(gradients(module, batch()))
    for one, other in ((found[0], found[2]), (found[1], found[3])):
        assert all(torch.equal(a, b) for a, b in zip(one, other))


# ---- against the ops of the CPU ----


def random_graph(atoms: int, edges: int, lone: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Edges by center, all but some of them with the opposite one; [2, E] and vectors [E, 3]."""
    index, vectors = torch.randint(atoms, (2, edges)), torch.randn(edges, 3, dtype=torch.float64)
    index = torch.cat([index, index.flip(0)[:, lone:]], dim=1)
    vectors = torch.cat([vectors, -vectors[lone:]])
    order = torch.argsort(index[0], stable=True)
    return index[:, order].contiguous(), vectors[order].contiguous()


SIZES = [(7, 600), (40, 100), (3, 3), (2, 0)]


@pytest.mark.parametrize(("atoms", "edges"), SIZES)
def test_pairs_equal_those_of_the_cpu(atoms, edges):
    torch.manual_seed(edges)
    index, vectors = random_graph(atoms, edges)
    count = index.size(1)
    offsets = native_ops.offsets_of(torch.bincount(index[0], minlength=atoms))
    empty = torch.full((count,), -1)
    pairs, middles = empty.to(torch.int32), torch.full((atoms,), -1)
    assert_same("edge_pairs", offsets, index[1], vectors, empty, middles, pairs, empty, torch.full((1,), -1))


@pytest.mark.parametrize(("atoms", "edges"), SIZES)
def test_sums_and_differences_of_edges(atoms, edges):
    """Also: one is the other's transpose."""
    torch.manual_seed(edges)
    index, vectors = random_graph(atoms, edges)
    frame = torch.sort(torch.randint(4, (atoms,))).values
    forces, virials = torch.zeros(atoms, 3).double(), torch.zeros(4, 3, 3).double()
    gradients = torch.randn_like(vectors)
    sums = assert_same("edge_sums", index, frame, vectors, gradients, forces, virials)
    along = [torch.randn_like(part) for part in sums]
    (differences,) = assert_same("edge_differences", index, frame, vectors, *along, torch.zeros_like(vectors))
    left = sum((a * b).sum() for a, b in zip(sums, along))
    torch.testing.assert_close((differences * gradients).sum(), left, rtol=1e-12, atol=1e-12)


def convolution(atoms: int, edges: int, channels: int, dtype: torch.dtype) -> tuple[list, dict]:
    """What the ops of a convolution begin with, and tensors of the sizes of results."""
    index, vectors = random_graph(atoms, edges)
    graph = Graph(torch.randint(3, (atoms,)), index, vectors, torch.zeros(atoms, dtype=torch.int64))
    found = neighborhoods(graph)
    paths = [[0, 1, 1, 0], [1, 3, 1, 0], [0, 1, 3, 1], [1, 3, 3, 1], [4, 11, 3, 1], [1, 3, 11, 2]]
    harmonics, phi, components = (L_MAX + 1) ** 2, sum(a * b for _, a, b, _ in paths), 15
    couplings = torch.randn(harmonics, phi) * (torch.rand(harmonics, phi) < 0.3)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype)

    pairs, count = found.firsts.numel(), index.size(1)
    tensors = {
        "sources": random(atoms * components * channels),
        "radial": random(pairs, len(paths) * channels),
        "harmonics": random(count, harmonics),
        "distances": torch.randn(pairs, dtype=torch.float64),
        "sums": random(atoms * sum(path[2] for path in paths) * channels),
    }
    tables = equivariant_native.ConvolutionTables(torch.tensor(paths), couplings.to(dtype))
    given = tensors["sources"], tensors["radial"], random(pairs, len(paths) * channels), tensors["harmonics"]
    return equivariant_native._arguments(found, tables, given), tensors


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("atoms", "edges", "channels"), [(5, 60, 144), (4, 90, 16), (6, 20, 48), (2, 0, 16)])
def test_convolutions(atoms, edges, channels, dtype):
    """Of irreps up to l = 5, more channels than a warp has, and lone edges."""
    torch.manual_seed(edges)
    start, tensors = convolution(atoms, edges, channels, dtype)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    along = {name: torch.randn_like(tensor) for name, tensor in tensors.items()}
    nothing = tensors["sources"].new_empty(0)
    assert_same("edge_convolution", *start, zeros["sums"])
    results = zeros["distances"], zeros["harmonics"]
    for by_sources in (zeros["sources"], nothing):
        assert_same("edge_convolution_by_geometry", *start, tensors["sums"], by_sources, *results)
    results = zeros["sources"], zeros["radial"]
    assert_same("edge_convolution_by_parameters", *start, tensors["sums"], *results)
    results = zeros["sums"], zeros["sources"], zeros["radial"], zeros["radial"]
    for sources in (along["sources"], nothing):
        tangents = sources, along["distances"], along["harmonics"]
        assert_same("edge_convolution_of_tangent", *start, tensors["sums"], *tangents, *results)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("counts", "channels"), [([3, 0, 9], 48), ([1, 1], 32), ([0, 0, 0], 16)])
def test_contractions(counts, channels, dtype):
    torch.manual_seed(channels)
    rows = torch.tensor(
        [
            [c, *sorted(f, reverse=True)]
            for c in range(4)
            for f in ((-1, -1, 0), (-1, 1, 2), (0, 1, 3), (3, 3, 3))
        ]
    )
    ascending = torch.cat([rows[:, :1], rows[:, 1:].sort(dim=1).values], dim=1)
    ascending[:, 1:] = torch.where(
        (ascending[:, 1:] < 0).any(1, keepdim=True), ascending[:, 1:].flip(1), ascending[:, 1:]
    )
    tables = equivariant_native.ContractionTables.make(ascending, [1, 3], [1, 3])
    atoms, terms = sum(counts), len(rows)
    sizes = [tables.sizes, tables.target_sizes, torch.tensor(counts)]
    messages, adjoints, along = torch.randn(3, atoms * 4 * channels, dtype=dtype).unbind(0)
    weights, along_weights = torch.randn(2, len(counts), terms, channels, dtype=dtype).unbind(0)
    start = [tables.nodes, tables.leaves, tables.targets, *sizes, messages, weights, 1]
    zero, zeros, nothing = torch.zeros_like(messages), torch.zeros_like(weights), messages.new_empty(0)
    assert_same("message_contraction", *start, zero)
    for by_weights in (zeros, nothing):
        assert_same("message_contraction_reverse", *start, adjoints, zero, by_weights)
    for tangents in ((along, along_weights), (along, nothing), (nothing, along_weights)):
        assert_same("message_contraction_tangent", *start, adjoints, *tangents, zero, zero, zeros)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("count", [0, 1, 300])
def test_functions(count, dtype):
    torch.manual_seed(count)
    vectors, along = torch.randn(2, count, 3, dtype=torch.float64).unbind(0)
    adjoints = torch.randn(count, (L_MAX + 1) ** 2, dtype=dtype)
    zeros = torch.zeros_like(adjoints)
    assert_same("edge_harmonics", vectors, zeros, L_MAX)
    (reverse,) = assert_same("edge_harmonics_reverse", vectors, adjoints, torch.zeros_like(vectors), L_MAX)
    (tangent,) = assert_same("edge_harmonics_tangent", vectors, along, zeros, L_MAX)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    one, other = (reverse * along).sum(), (tangent * adjoints).sum().double()
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * max(count, 1))
    x, by_x = (
        20.0 * torch.randn(2, 2, count, 5, dtype=dtype).unbind(0)[0],
        torch.randn(2, count, 5, dtype=dtype),
    )
    assert_same("dual_silu", x, torch.zeros_like(x))
    assert_same("dual_silu_reverse", x, by_x, torch.zeros_like(x))


def test_ops_of_tests_are_refused_elsewhere(monkeypatch):
    monkeypatch.delenv("NEARSIGHT_CUDA", raising=False)
    native_ops.load_ops()
    vectors = torch.ones(1, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="of the CPU only in tests, with NEARSIGHT_CUDA=emulated"):
        torch.ops.nearsight_device.edge_harmonics(vectors, vectors, 0)
