"""The torch neighbor search and the graphs made of it, against independent programs."""

import ase
import ase.neighborlist
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nearsight.neighbors import make_graph
from nearsight.neighbors.torch_neighbors import torch_neighbors

CELL = np.array([[3.0, 0.0, 0.0], [1.3, 2.5, 0.0], [-0.9, 0.8, 4.0]])


def search(positions, cell, pbc, cutoff, **options):
    index, shifts, vectors = torch_neighbors(
        torch.tensor(positions), torch.tensor(cell), list(map(bool, pbc)), cutoff, **options
    )
    return index.numpy(), shifts.numpy(), vectors.numpy()


def edge_set(centers, neighbors, shifts):
    edges = [(int(i), int(j), *map(int, s)) for i, j, s in zip(centers, neighbors, shifts)]
    assert len(set(edges)) == len(edges)
    return set(edges)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 6),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    cutoff=st.floats(0.5, 6.0),
)
def test_edges_are_those_of_ase(seed, count, pbc, cutoff):
    rng = np.random.default_rng(seed)
    cell = CELL + 0.5 * rng.normal(size=(3, 3))
    positions = 6.0 * rng.normal(size=(count, 3))  # unwrapped
    index, shifts, vectors = search(positions, cell, pbc, cutoff)
    i, j, s = ase.neighborlist.primitive_neighbor_list("ijS", pbc, cell, positions, cutoff)
    assert edge_set(*index, shifts) == edge_set(i, j, s)
    expected = positions[index[1]] - positions[index[0]] + shifts @ cell
    assert vectors == pytest.approx(expected, abs=1e-12)
    assert (np.diff(index[0]) >= 0).all()


def test_blocks_change_nothing():
    positions = np.random.default_rng(5).random((11, 3)) * 6.0
    whole = search(positions, CELL, [True, False, True], 4.0)
    for block in (1, 100, 1000):
        for a, b in zip(whole, search(positions, CELL, [True, False, True], 4.0, block=block)):
            assert np.array_equal(a, b)


def test_scripted_search_equals_the_eager_one():
    scripted = torch.jit.script(torch_neighbors)
    positions, cell = torch.tensor(np.random.default_rng(6).random((7, 3)) * 5.0), torch.tensor(CELL)
    for a, b in zip(
        scripted(positions, cell, [True] * 3, 4.5), torch_neighbors(positions, cell, [True] * 3, 4.5)
    ):
        assert torch.equal(a, b)


def test_vectors_are_differentiable_by_positions_and_cell():
    positions = torch.tensor(np.random.default_rng(7).random((4, 3)) * 3.0, requires_grad=True)
    cell = torch.tensor(CELL, requires_grad=True)

    def vectors(x, c):
        return torch_neighbors(x, c, [True] * 3, 2.5)[2]

    assert torch.autograd.gradcheck(vectors, (positions, cell))


def test_no_atoms_and_one_atom():
    index, shifts, vectors = search(np.zeros((0, 3)), CELL, [True] * 3, 3.0)
    assert index.shape == (2, 0) and shifts.shape == vectors.shape == (0, 3)
    assert search(np.zeros((1, 3)), np.eye(3), [False] * 3, 3.0)[0].shape == (2, 0)
    index, shifts, _ = search(np.zeros((1, 3)), np.eye(3), [True] * 3, 1.01)
    assert index.tolist() == [[0] * 6, [0] * 6]
    assert sorted(np.abs(shifts).sum(1)) == [1] * 6


@pytest.mark.parametrize("pbc", [[True] * 3, [False] * 3, [True, False, True]])
def test_graphs_of_the_core_are_those_of_the_torch_search(pbc):
    positions = np.random.default_rng(8).random((9, 3)) * 5.0
    graph = make_graph(positions, np.arange(9) % 2, CELL, pbc, 4.2)
    index, _, vectors = search(positions, CELL, pbc, 4.2)
    ours = sorted((i, j, *np.round(v, 9)) for i, j, v in zip(*index, vectors))
    core = sorted(
        (i, j, *np.round(v, 9)) for i, j, v in zip(*graph.edge_index.numpy(), graph.edge_vectors.numpy())
    )
    assert np.array(ours) == pytest.approx(np.array(core), abs=2e-9)
    assert (graph.edge_index[0].diff() >= 0).all()
    assert graph.species.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert graph.num_atoms == 9
    assert graph.num_frames == 1
