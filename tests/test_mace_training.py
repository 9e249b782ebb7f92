"""Native training of MACE against the torch module, and its functions against those of torch."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from gradients_for_tests import assert_native_equals_torch
from message_passing_models import CONFIGS, CUTOFF, graph_of, make, molecule

from nearsight.couple import evaluate
from nearsight.errors import ConfigError
from nearsight.models import equivariant, training_module
from nearsight.models.equivariant_native import (
    ContractionTables,
    ConvolutionTables,
    Neighborhoods,
    dual_dense,
    edge_convolution,
    padded,
    symmetric_contraction,
)
from nearsight.models.feature_maps import Maps
from nearsight.models.harmonics import spherical_harmonics
from nearsight.models.irreps import irrep, starts
from nearsight.models.mace_config import coupling_rows, layer_record
from nearsight.models.mace_edges import Edges
from nearsight.models.polynomials import symmetric_polynomials
from nearsight.neighbors import Graph, collate

CELL = np.array([[5.0, 0.0, 0.0], [0.7, 5.2, 0.0], [-0.4, 0.5, 4.8]])
K = 8  # one run of float64


def batch() -> Graph:
    """A molecule, a lone atom, and a crystal with edges from atoms to their own images."""
    lone = graph_of(np.zeros((1, 3)), [1], CUTOFF)
    return collate([graph_of(*molecule(), CUTOFF), lone, graph_of(*molecule(3, 5), CUTOFF, CELL)])


def no_edges() -> Graph:
    return collate([graph_of(np.zeros((1, 3)), [kind], CUTOFF) for kind in (2, 0, 2)])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("graph", [batch(), no_edges()], ids=["batch", "no edges"])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_results_and_gradients_equal_those_of_torch(name, graph, threads):
    assert_native_equals_torch(make(name), graph, 1e-11, threads)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_mixed_precision(name):
    assert_native_equals_torch(make(name), batch(), 2e-5, 1, "mixed")


def test_native_where_it_exists():
    model = make("one interaction")
    assert training_module(model, "torch") is model
    assert [training_module(model, name).model is model for name in ("auto", "native")] == [True, True]
    assert training_module(model).dtype == torch.float32


def gradients(module, graph):
    results = evaluate(module, graph, {"kind": "sum"}, create_graph=True)
    loss = (results.forces**2).sum() + results.energy.square().sum()
    return [results.energy, *torch.autograd.grad(loss, list(module.model.parameters()))]


@pytest.mark.parametrize("precision", ["mixed", "double"])
def test_threads_change_no_bit(precision):
    model, graph = make("both parities"), batch()
    one, *others = (gradients(training_module(model, "native", n, precision), graph) for n in (1, 2, 5))
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(one, other))


def test_energies_alone():
    """Gradients of energies by parameters, at once with those by positions, and without them."""
    model, graph = make("two interactions"), batch()
    found = []
    for module in (model, training_module(model, "native", 1, "double")):
        vectors = graph.edge_vectors.clone().requires_grad_(True)
        energy = module(graph.species, graph.edge_index, vectors, graph.num_atoms)["energy"]
        parameters = list(model.parameters())
        alone = torch.autograd.grad((energy**2).sum(), parameters, retain_graph=True)
        both = torch.autograd.grad((energy**2).sum(), [vectors, *parameters])
        found.append([*alone, *both[1:]])
    for expected, native in zip(*found):
        torch.testing.assert_close(native, expected, rtol=1e-11, atol=1e-11 * float(expected.abs().max()))


def test_second_derivatives_by_parameters_are_refused():
    model, graph = make("one interaction"), batch()
    module = training_module(model, "native", 1, "double")
    energy = module(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)["energy"]
    weight = model.layers[0].radial.network.layers[0].values
    (gradient,) = torch.autograd.grad(energy.square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice a function that was marked"):
        gradient.sum().backward()


def test_second_derivatives_by_radial_functions_are_refused():
    graph = batch()
    found = neighborhoods(graph)
    tables = ConvolutionTables(torch.tensor([[0, 1, 1, 0]]), torch.ones(1, 1, dtype=torch.float64))
    values = torch.ones(found.firsts.numel(), K, dtype=torch.float64, requires_grad=True)
    sources, harmonics = (
        torch.ones(graph.num_atoms * K).double(),
        torch.ones(len(graph.edge_vectors), 1).double(),
    )
    sums = edge_convolution(sources, values, values.detach(), harmonics, values[:, 0].detach(), found, tables)
    (gradient,) = torch.autograd.grad(sums.square().sum(), values, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivatives by parameters: take"):
        torch.autograd.grad(gradient.sum(), values)


def test_precision_is_checked():
    with pytest.raises(ConfigError, match="training precision is 'half', expected mixed or double"):
        training_module(make("one interaction"), "native", 1, "half")


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_other_instruction_sets(isa):
    """The main test of this file on narrower vectors; what the machine does not have falls back."""
    test = f"{__file__}::test_results_and_gradients_equal_those_of_torch"
    command = [sys.executable, "-m", "pytest", "-q", "-x", test, "-k", "both and 3", "-p", "no:cacheprovider"]
    environment = os.environ | {"NEARSIGHT_ISA": isa}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# ---- the functions ----


def neighborhoods(graph: Graph, threads: int = 2) -> Neighborhoods:
    return Neighborhoods.make(graph.species, graph.edge_index, graph.edge_vectors, 3, threads)


def test_pairs():
    """Both edges of a pair have opposite vectors; first ones first; a lone edge is a pair of its own."""
    graph = batch()
    found = neighborhoods(graph)
    assert found.firsts.numel() == graph.edge_index.size(1) / 2
    assert torch.equal(torch.sort(found.order).values, torch.arange(graph.edge_index.size(1)))
    vectors = graph.edge_vectors[found.order]
    torch.testing.assert_close(vectors.abs(), vectors[found.firsts][found.pairs].abs(), rtol=0, atol=1e-12)
    sums = torch.zeros(found.firsts.numel(), 3, dtype=torch.float64).index_add(0, found.pairs, vectors)
    torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-12)
    centers = graph.edge_index[0][found.order]
    assert torch.equal(centers, graph.edge_index[0])
    first = torch.zeros(len(centers), dtype=torch.bool).index_fill(0, found.firsts, True)
    assert torch.equal(first, torch.arange(len(centers)) < found.middles[centers])
    one_way = Graph(graph.species[:2], torch.tensor([[0], [1]]), torch.ones(1, 3).double(), graph.frame[:2])
    assert neighborhoods(one_way).firsts.tolist() == [0]


def random_layer(inputs: list[str], messages: list[str], l_max: int) -> tuple[dict, list[list[int]]]:
    record = layer_record([irrep(x) for x in inputs], [irrep(x) for x in messages], [], l_max, 1)
    sizes = [irrep(x).size for x in inputs]
    paths = [[inputs.index(one), irrep(one).size, irrep(three).size] for one, _, three in record["paths"]]
    return record | {"sizes": sizes}, paths


def flat(features: torch.Tensor, graph: Neighborhoods, sizes: list[int]) -> torch.Tensor:
    """Features [atoms, components, K] in the layout of the core."""
    rows = torch.empty_like(features).index_copy(0, graph.places, features)
    return torch.cat([part.reshape(-1) for part in rows.split(sizes, dim=1)])


def unflat(numbers: torch.Tensor, graph: Neighborhoods, sizes: list[int]) -> torch.Tensor:
    parts = numbers.split([graph.num_atoms * size * K for size in sizes])
    rows = torch.cat([part.view(graph.num_atoms, size, K) for part, size in zip(parts, sizes)], dim=1)
    return rows.index_select(0, graph.places)


def random_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.randn(tensor.shape, dtype=tensor.dtype)  # whatever its strides


def assert_same_derivatives(functions, inputs, first, second):
    """Values, gradients by the inputs named in `first`, and of a random sum of them by those in `second`."""
    outcomes = []
    for function in functions:
        torch.manual_seed(2)
        given = {name: value.clone().requires_grad_(True) for name, value in inputs.items()}
        output = function(**given)
        adjoints = random_like(output).requires_grad_(True)
        sources = {name: given[name] for name in first}
        gradient = torch.autograd.grad((output * adjoints).sum(), list(sources.values()), create_graph=True)
        total = sum((random_like(part) * part).sum() for part in [*gradient, output])
        wanted = [adjoints, *(given[name] for name in second)]
        outcomes.append([output, *gradient, *torch.autograd.grad(total, wanted)])
    for expected, found in zip(*outcomes):
        scale = float(expected.detach().abs().max()) if expected.numel() else 1.0
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    ("inputs", "messages", "l_max"),
    [
        (["0e"], ["0e", "1o", "2e", "3o"], 3),
        (["0e", "1o"], ["0e", "1o", "2e", "3o"], 3),
        (["0e", "0o", "1o", "1e", "2e"], ["0e", "0o", "1o", "1e", "2e", "2o"], 2),
        (["3o"], ["0e", "4e"], 4),
    ],
)
def test_edge_convolution(inputs, messages, l_max, threads):
    graph = batch()
    record, paths = random_layer(inputs, messages, l_max)
    found = neighborhoods(graph, threads)
    rows = torch.from_numpy(coupling_rows(record["paths"]))
    couplings = torch.zeros((l_max + 1) ** 2, sum(a * b for _, a, b in paths), dtype=torch.float64)
    couplings[rows[:, 1].long(), rows[:, 0].long()] = rows[:, 2]
    sizes, thirds = record["sizes"], [record["message"].index(path[2]) for path in record["paths"]]
    first = starts([irrep(name) for name in inputs])
    tables = ConvolutionTables(
        torch.tensor([[first[p], a, b, third] for (p, a, b), third in zip(paths, thirds)]), couplings
    )
    torch.manual_seed(1)
    pairs, edges, atoms = found.firsts.numel(), graph.edge_index.size(1), graph.num_atoms
    tensors = {
        "sources": torch.randn(atoms, sum(sizes), K),
        "values": torch.randn(pairs, len(paths) * K),
        "slopes": torch.randn(pairs, len(paths) * K),
        "harmonics": torch.randn(edges, (l_max + 1) ** 2),
        "distances": torch.rand(pairs),
    }
    edge_index = graph.edge_index[:, found.order]

    def oracle(sources, values, slopes, harmonics, distances):
        radial = values + slopes * (distances - distances.detach()).unsqueeze(1)
        radial = radial[found.pairs.long()].view(edges, len(paths), K)
        return equivariant.edge_convolution(
            sources, radial, harmonics, edge_index, couplings, sizes, paths, atoms
        )

    def native(sources, values, slopes, harmonics, distances):
        numbers = edge_convolution(
            flat(sources, found, sizes),
            1.0 * values,
            1.0 * slopes,
            1.0 * harmonics,
            1.0 * distances,
            found,
            tables,
        )
        blocks = [irrep(name).size * thirds.count(n) for n, name in enumerate(record["message"])]
        # From [m3, path] to [path, m3].
        parts = unflat(numbers, found, blocks).split(blocks, dim=1)
        turned = [
            part.view(atoms, irrep(name).size, -1, K).transpose(1, 2).flatten(1, 2)
            for part, name in zip(parts, record["message"])
        ]
        return torch.cat(turned, dim=1)

    inputs = {name: tensor.double() for name, tensor in tensors.items()}
    positions = ["sources", "harmonics", "distances"]
    assert_same_derivatives([oracle, native], inputs, positions, ["sources", "values", "slopes"])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("message", "output", "degree"),
    [
        (["0e", "1o", "2e", "3o"], ["0e", "1o"], 3),
        (["0e", "0o", "1o", "1e"], ["0e", "0o", "1e"], 3),
        (["0e", "1o"], ["0e"], 2),
        (["0e", "1o"], ["1o"], 1),
    ],
)
def test_symmetric_contraction(message, output, degree, threads):
    graph = batch()
    found = neighborhoods(graph, threads)
    sizes, target_sizes = ([irrep(name).size for name in names] for names in (message, output))
    polynomials = symmetric_polynomials(tuple(map(irrep, message)), tuple(map(irrep, output)), degree)
    rows = torch.from_numpy(polynomials.rows)
    terms, place = torch.unique(rows[:, 1:5].long(), dim=0, return_inverse=True)
    coefficients = torch.zeros(len(terms), polynomials.num_paths, dtype=torch.float64)
    coefficients[place, rows[:, 0].long()] = rows[:, 5]
    tables = ContractionTables.make(terms, sizes, target_sizes)
    factors, sums = equivariant.horner_tables(terms)
    stages = [len(factors[1]), len(factors[2]), sum(target_sizes)]
    torch.manual_seed(1)
    inputs = {
        "messages": torch.randn(graph.num_atoms, sum(sizes), K, dtype=torch.float64),
        "weights": torch.randn(3, polynomials.num_paths, K, dtype=torch.float64),
    }

    def oracle(messages, weights):
        return equivariant.symmetric_contraction(
            messages, weights, graph.species, coefficients, factors, sums, stages
        )

    def native(messages, weights):
        contracted = torch.matmul(coefficients[tables.order], weights)
        products = symmetric_contraction(flat(messages, found, sizes), contracted, found, tables)
        return unflat(products, found, target_sizes)

    assert_same_derivatives([oracle, native], inputs, ["messages", "weights"], ["messages", "weights"])


@pytest.mark.parametrize("l_max", [1, 3, 6])
def test_distances_and_harmonics(l_max):
    graph = batch()
    found, basis = neighborhoods(graph), make("one interaction").basis
    graphs = graph.species, graph.edge_index, graph.edge_vectors
    edges = Edges.make(found, basis, l_max, True, *graphs, torch.float64)

    def joined(distances, harmonics):
        return torch.cat([distances, harmonics.reshape(-1)])

    def oracle(vectors):
        ordered = vectors.index_select(0, found.order)
        distances = ordered.square().sum(1).sqrt()
        harmonics = (4.0 * torch.pi) ** 0.5 * spherical_harmonics(ordered / distances.unsqueeze(1), l_max)
        return joined(distances.index_select(0, found.firsts), harmonics)

    def native(vectors):
        return joined(*edges.of(vectors))

    assert_same_derivatives([oracle, native], {"vectors": graph.edge_vectors}, ["vectors"], [])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_edges_of_frames_joined(count):
    """Edges of a batch are those of its frames one after another, to the bit."""
    lone = graph_of(np.zeros((1, 3)), [1], CUTOFF)
    graphs = [graph_of(*molecule(), CUTOFF), *[lone] * min(count, 1), graph_of(*molecule(3, 5), CUTOFF, CELL)]
    graphs = graphs[: max(count, 1)]
    module = training_module(make("one interaction"), "native", 1, "double")
    whole = collate(graphs)
    expected = module.stored(whole)
    found = Edges.join([module.stored(graph) for graph in graphs], whole.species)
    for one, other in ((expected, found), (expected.graph, found.graph)):
        for name, value in vars(one).items():
            other_value = getattr(other, name)
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(other_value, value, rtol=1e-14, atol=1e-14)
    assert found.nbytes == expected.nbytes
    arguments = (whole.species, whole.edge_index, whole.edge_vectors, whole.num_atoms)
    stored = module.with_stored([module.stored(graph) for graph in graphs])
    torch.testing.assert_close(stored(*arguments), module(*arguments), rtol=1e-13, atol=1e-13)


def test_maps_of_features():
    """Maps with and without species, from and to some of the irreps, against products of each atom."""
    counts, atoms = [2, 0, 3], 5
    maps = Maps([(1, 4), (3, 2)], [(3, 5), (1, 6), (5, 7)], [(1, 0), (0, 1)])
    torch.manual_seed(6)
    kinds = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    inputs = {
        "x": torch.randn(atoms * 10, dtype=torch.float64),
        "vectors": torch.randn(3, 5, 2, dtype=torch.float64),
        "scalars": torch.randn(6, 4, dtype=torch.float64),
    }

    def oracle(x, vectors, scalars):
        first, second = x.split([atoms * 4, atoms * 6])
        of_vectors = torch.einsum("nci,noi->nco", second.view(atoms, 3, 2), vectors[kinds])
        of_scalars = first.view(atoms, 4) @ scalars.T
        return torch.cat([of_vectors.reshape(-1), of_scalars.reshape(-1), x.new_zeros(atoms * 35)])

    def native(x, vectors, scalars):
        return maps(1.0 * x, [1.0 * vectors, 1.0 * scalars], counts)

    assert_same_derivatives([oracle, native], inputs, ["x"], ["vectors", "scalars"])
    given = [tensor.clone().requires_grad_(True) for tensor in inputs.values()]
    gradient, *_ = torch.autograd.grad(native(*given).square().sum(), given[1:], create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivatives by parameters: take"):
        torch.autograd.grad(gradient.sum(), given)


@pytest.mark.parametrize("count", [1, 13])
def test_dense_layers_with_derivatives(count):
    """Outputs, their derivatives along the input's, and gradients of both by weights."""
    torch.manual_seed(4)
    x, tangent = 3.0 * torch.randn(2, count, 5, dtype=torch.float64)
    weights = [
        torch.randn(b, a, dtype=torch.float64, requires_grad=True) for a, b in ((5, 7), (7, 6), (6, 3))
    ]

    def network(x):
        for number, weight in enumerate(weights):
            x = (torch.nn.functional.silu(x) if number else x) @ weight.T
        return x

    expected = torch.autograd.functional.jvp(network, x, tangent, create_graph=True)
    found = dual_dense(torch.stack([x, tangent]), weights)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    adjoints = torch.randn(2, count, 3, dtype=torch.float64)
    totals = [sum((a * part).sum() for a, part in zip(adjoints, parts)) for parts in (expected, found)]
    for a, b in zip(*(torch.autograd.grad(total, weights) for total in totals)):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)


def test_runs_of_channels():
    assert [padded(k, torch.float32) for k in (1, 16, 17)] == [16, 16, 32]
    assert [padded(k, torch.float64) for k in (1, 8, 9)] == [8, 8, 16]
