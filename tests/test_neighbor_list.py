"""The neighbor lists of the core: linked cells and Verlet skin."""

import ase.neighborlist
import matscipy.neighbours
import numpy as np
import pytest
import vesin
from hypothesis import given, settings
from hypothesis import strategies as st

from nearsight.errors import EvaluationError
from nearsight.lib import _core

PERIODIC, OPEN = [True] * 3, [False] * 3
BOX = 10.0 * np.eye(3)


def heights(cell):
    return 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)


def random_cell(kind, rng):
    """A cell whose largest height is about 10 Å."""
    cell = {
        "any": lambda: rng.normal(size=(3, 3)),
        "orthorhombic": lambda: np.diag(rng.uniform(0.3, 2.0, 3)),
        "skewed": lambda: np.eye(3) + np.tril(rng.uniform(-5.0, 5.0, (3, 3)), -1),
        "left-handed": lambda: (np.eye(3) + 0.4 * rng.normal(size=(3, 3)))[[1, 0, 2]],
        "plate": lambda: np.diag([1.0, 1.0, 0.1]) + 0.05 * rng.normal(size=(3, 3)),
        "needle": lambda: np.diag([0.2, 0.2, 2.0])[:, [2, 1, 0]] + 0.05 * rng.normal(size=(3, 3)),
    }[kind]()
    return 10.0 * cell / heights(cell).max()


@st.composite
def systems(draw, max_atoms=30):
    """Positions, cell, pbc and a cutoff that may reach over several cells."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = ["any", "orthorhombic", "skewed", "left-handed", "plate", "needle"]
    cell = random_cell(draw(st.sampled_from(kinds)), rng)
    pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    fractions = rng.random((draw(st.integers(1, max_atoms)), 3))
    place = draw(st.sampled_from(["inside", "unwrapped", "clustered", "far", "faces"]))
    fractions = {
        "inside": fractions,
        "unwrapped": fractions + rng.integers(-4, 5, fractions.shape),
        "far": fractions + min(1e5, 1e8 / np.abs(cell).max()),  # positions beyond 1e9 Å are refused
        "clustered": 0.2 * fractions - 0.1,
        "faces": np.round(4 * fractions) / 4,
    }[place]
    cutoff = draw(st.floats(0.05, 2.5)) * heights(cell).min()
    return fractions @ cell, cell, pbc, cutoff


def pairs_of(edge_index, shifts):
    """The pairs as a sorted array (E, 5) of i, j, S, each checked to be there once."""
    pairs = np.column_stack([edge_index[0], edge_index[1], shifts]).astype(np.int64).reshape(-1, 5)
    pairs = pairs[np.lexsort(pairs.T)]
    assert np.diff(pairs, axis=0).any(axis=1).all()
    return pairs


def assert_same_pairs(a, b):
    assert np.array_equal(pairs_of(a[0], a[1]), pairs_of(b[0], b[1]))


@settings(max_examples=150, deadline=None)
@given(systems())
def test_linked_cells_equal_brute_force(system):
    edge_index, shifts, vectors = _core.neighbor_list(*system)
    assert_same_pairs((edge_index, shifts), _core.brute_force(*system))
    positions, cell, _, cutoff = system
    expected = positions[edge_index[1]] - positions[edge_index[0]] + shifts @ cell
    assert vectors == pytest.approx(expected, abs=1e-14 * (1.0 + np.abs(positions).max()))
    assert (np.linalg.norm(vectors, axis=1) < cutoff * (1 + 1e-15)).all()
    assert (np.diff(edge_index[0]) >= 0).all()
    assert (edge_index.dtype, shifts.dtype, vectors.dtype) == (np.int64, np.int32, np.float64)


def pairs_of_ase(positions, cell, pbc, cutoff):
    i, j, shifts = ase.neighborlist.primitive_neighbor_list("ijS", pbc, cell, positions, cutoff)
    return (i, j), shifts


def pairs_of_matscipy(positions, cell, pbc, cutoff):
    i, j, shifts = matscipy.neighbours.neighbour_list(
        "ijS", positions=positions, cell=cell, pbc=np.array(pbc), cutoff=cutoff
    )
    return (i, j), shifts


def pairs_of_vesin(positions, cell, pbc, cutoff):
    i, j, shifts = vesin.NeighborList(cutoff=cutoff, full_list=True, n_threads=1).compute(
        positions, cell, np.array(pbc), "ijS"
    )
    return (i, j), shifts


@pytest.mark.parametrize("program", [pairs_of_ase, pairs_of_matscipy, pairs_of_vesin])
@settings(max_examples=60, deadline=None)
@given(systems(max_atoms=12))
def test_linked_cells_equal_independent_programs(program, system):
    assert_same_pairs(_core.neighbor_list(*system), program(*system))


@pytest.mark.parametrize("program", [pairs_of_matscipy, pairs_of_vesin])
@pytest.mark.parametrize("cutoff", [3.0, 6.0, 9.0])
def test_bulk_equals_independent_programs(program, cutoff):
    # Large enough for many bins in all directions, and more than 200 neighbors at 9 Å, where bins are halved.
    cell = np.array([[24.0, 0, 0], [-7.0, 21.0, 0], [5.0, 3.0, 20.0]])
    positions = np.random.default_rng(0).random((1000, 3)) @ cell
    system = positions, cell, PERIODIC, cutoff
    assert_same_pairs(_core.neighbor_list(*system), program(*system))


@settings(max_examples=50, deadline=None)
@given(systems())
def test_reversed_pairs_are_there(system):
    edge_index, shifts, _ = _core.neighbor_list(*system)
    assert_same_pairs((edge_index, shifts), (edge_index[::-1], -shifts))


@settings(max_examples=50, deadline=None)
@given(systems(), st.integers(2, 5))
def test_threads_do_not_change_the_list(system, threads):
    for one, many in zip(_core.neighbor_list(*system), _core.neighbor_list(*system, threads=threads)):
        assert np.array_equal(one, many)


def test_shells_of_fcc():
    # One atom per primitive cell, cutoffs far beyond it: 12, 6, 24, 12, 24 neighbors at a·sqrt(n / 2).
    cell = np.array([[0.0, 2, 2], [2, 0, 2], [2, 2, 0]])
    for shells, expected in enumerate(np.cumsum([12, 6, 24, 12, 24]), start=1):
        cutoff = 4.0 * np.sqrt((shells + 0.5) / 2)
        edge_index, _, vectors = _core.neighbor_list(np.zeros((1, 3)), cell, PERIODIC, cutoff)
        assert edge_index.shape == (2, expected)
        assert vectors.sum(axis=0) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("offset", [0.0, 0.1, 1e6 / 3])
def test_pairs_exactly_at_the_cutoff(offset):
    # A simple cubic crystal: round-off decides about the first shell, the same way in both searches.
    grid = 2.5 * np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    system = grid + offset, BOX, PERIODIC
    for cutoff in (2.5, np.nextafter(2.5, 3.0)):
        assert_same_pairs(_core.neighbor_list(*system, cutoff), _core.brute_force(*system, cutoff))


def test_the_cutoff_itself_is_outside():
    positions = np.array([[0.0, 0.0, 0.0], [2.5, 0.0, 0.0]])
    assert _core.neighbor_list(positions, BOX, OPEN, 2.5)[0].shape == (2, 0)
    assert _core.neighbor_list(positions, BOX, OPEN, np.nextafter(2.5, 3.0))[0].tolist() == [[0, 1], [1, 0]]


def test_shifts_belong_to_the_positions_as_given():
    rng = np.random.default_rng(1)
    cell = random_cell("any", rng)
    inside, moves = rng.random((20, 3)), rng.integers(-7, 8, (20, 3))
    edge_index, shifts, _ = _core.neighbor_list(inside @ cell, cell, PERIODIC, 6.0)
    moved = _core.neighbor_list((inside + moves) @ cell, cell, PERIODIC, 6.0)
    assert_same_pairs((edge_index, shifts + moves[edge_index[0]] - moves[edge_index[1]]), moved)


@pytest.mark.parametrize("pbc", [PERIODIC, OPEN])
@pytest.mark.parametrize("count", [0, 1])
def test_few_atoms(count, pbc):
    edge_index, shifts, vectors = _core.neighbor_list(np.zeros((count, 3)), BOX, pbc, 6.0)
    assert (edge_index.shape, shifts.shape, vectors.shape) == ((2, 0), (0, 3), (0, 3))


def test_atoms_at_one_place_are_neighbors():
    edge_index, _, vectors = _core.neighbor_list(np.ones((3, 3)), BOX, PERIODIC, 6.0)
    assert edge_index.tolist() == [[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]]
    assert not vectors.any()


@pytest.mark.parametrize("pbc", [PERIODIC, [True, True, False], [False, True, False], OPEN])
@pytest.mark.parametrize("size", [60.0, 1e8])
def test_droplet_on_the_corner_of_a_large_box(size, pbc):
    # No grid covers a box of 1e8 Å: the vacuum is cut out, also where the droplet lies across the boundary.
    rng = np.random.default_rng(2)
    droplet = 8.0 * rng.normal(size=(300, 3))
    positions = np.where(pbc, droplet % size, droplet)
    system = positions, size * np.eye(3), pbc, 4.0
    assert_same_pairs(_core.neighbor_list(*system), _core.brute_force(*system))


def test_gas_in_a_huge_box():
    positions = 1e6 * np.random.default_rng(3).random((200, 3))
    positions[1] = positions[0] + 1.0
    edge_index, _, _ = _core.neighbor_list(positions, 1e6 * np.eye(3), PERIODIC, 6.0)
    assert edge_index.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("row", [np.nan, np.inf, 0.0, 1e300])
def test_vectors_of_open_directions_are_ignored(row):
    positions = np.random.default_rng(4).random((30, 3)) * [10, 10, 30]
    cell = np.diag([10.0, 10.0, 30.0])
    expected = _core.neighbor_list(positions, cell, [True, True, False], 6.0)
    cell[2] = row
    for a, b in zip(expected, _core.neighbor_list(positions, cell, [True, True, False], 6.0)):
        assert np.array_equal(a, b)


def refuse(message, positions=((0, 0, 0), (1, 1, 1)), cell=BOX, pbc=PERIODIC, cutoff=6.0):
    """Both searches say the same."""
    for search in (_core.neighbor_list, _core.brute_force):
        with pytest.raises(EvaluationError, match=message):
            search(np.array(positions, dtype=float), cell, pbc, cutoff)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan, np.inf])
def test_bad_cutoff(cutoff):
    refuse(r"the neighbor cutoff is \S+ Å, but it must be positive and finite: give", cutoff=cutoff)


def test_absurd_cutoff():
    with pytest.raises(EvaluationError, match=r"500 Å gives about \S+ neighbor pairs of 1000 atoms, but"):
        _core.neighbor_list(np.random.default_rng(5).random((1000, 3)), BOX, PERIODIC, 500.0)


@pytest.mark.parametrize("pbc", [PERIODIC, OPEN])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2e9])
def test_bad_position(value, pbc):
    positions = np.zeros((5, 3))
    positions[3, 1] = value
    refuse(
        r"atom 3 is at \(0, \S+, 0\) Å, but positions must be finite and within 1e\+09", positions, pbc=pbc
    )


def test_too_many_cells_away():
    refuse("within 200000 Å of the origin", [(3e5, 0, 0)], 0.002 * np.eye(3), cutoff=0.001)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e10])
def test_bad_cell_vector(value):
    cell = BOX.copy()
    cell[1, 2] = value
    refuse(r"cell vector 1 is \(0, 10, \S+\) Å, but vectors of periodic directions must be finite", cell=cell)


@pytest.mark.parametrize(
    ("cell", "direction"),
    [
        (np.zeros((3, 3)), 0),
        (np.diag([10.0, 0.0, 10.0]), 0),
        (np.diag([10.0, 1e-3, 10.0]), 1),
        (np.array([[10.0, 0, 0], [0, 10, 0], [10, 10, 0]]), 0),
        (np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]), 0),
    ],
)
def test_flat_cell(cell, direction):
    refuse(rf"the cell is \S+ Å thick along periodic direction {direction} .* 0.006 Å .*: give", cell=cell)


def test_bad_shapes():
    with pytest.raises(EvaluationError, match=r"positions has shape \(3, 2\), but \(n, 3\) is expected"):
        _core.neighbor_list(np.zeros((3, 2)), BOX, PERIODIC, 6.0)
    with pytest.raises(EvaluationError, match=r"cell has shape \(6,\), but \(3, 3\) is expected"):
        _core.neighbor_list(np.zeros((3, 3)), np.zeros(6), PERIODIC, 6.0)


# ---- Verlet skin


def assert_complete(verlet, positions, cell, pbc, cutoff):
    edge_index, shifts, vectors = verlet.update(positions, cell, pbc)
    inside = np.linalg.norm(vectors, axis=1) < cutoff
    expected = _core.neighbor_list(positions, cell, pbc, cutoff)
    assert_same_pairs((edge_index[:, inside], shifts[inside]), expected)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["any", "orthorhombic", "left-handed", "plate"]),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    follow=st.booleans(),
)
def test_no_pair_is_missed_while_atoms_walk_and_the_cell_strains(seed, kind, pbc, follow):
    rng = np.random.default_rng(seed)
    cell = random_cell(kind, rng)
    positions = rng.random((25, 3)) @ cell
    cutoff = 0.8 * heights(cell).min()
    verlet = _core.VerletList(cutoff, 0.4 * cutoff)
    for _ in range(30):
        strain = np.eye(3) + 0.005 * rng.normal(size=(3, 3))
        cell = cell @ strain
        positions = positions @ (strain if follow else np.eye(3)) + 0.01 * cutoff * rng.normal(size=(25, 3))
        assert_complete(verlet, positions, cell, pbc, cutoff)
    assert verlet.num_builds <= 30


def test_list_is_reused_until_half_the_skin():
    verlet = _core.VerletList(4.0, 1.0)
    positions = 10.0 * np.random.default_rng(6).random((40, 3))
    moved = positions.copy()
    for step, builds in [(0.0, 1), (0.499, 1), (-0.499, 1), (0.501, 2), (0.501, 2)]:
        moved[7] = positions[7] + [0, step, 0]
        assert_complete(verlet, moved, BOX, PERIODIC, 4.0)
        assert verlet.num_builds == builds


def test_random_walk_reuses_the_list():
    rng = np.random.default_rng(7)
    verlet = _core.VerletList(4.0, 1.0)
    positions = 10.0 * rng.random((40, 3))
    for _ in range(100):
        positions += 0.03 * rng.normal(size=positions.shape)
        assert_complete(verlet, positions, BOX, PERIODIC, 4.0)
    assert 2 < verlet.num_builds < 25


@pytest.mark.parametrize("pbc", [PERIODIC, [True, False, True], [False, True, False]])
def test_uniform_strain_is_followed(pbc):
    # Atoms far outside the cell move by more than the skin, but with the cell: nothing is rebuilt while
    # cutoff (1 + |F⁻¹ - I|) <= cutoff + skin, that is |F⁻¹ - I| <= 0.25.
    rng = np.random.default_rng(8)
    cell = 10.0 * np.eye(3) + rng.uniform(-2, 2, (3, 3))
    cell[np.logical_not(pbc)] = 0.0
    directions = cell[np.array(pbc)]
    project = np.linalg.pinv(directions) @ directions
    positions = 10.0 * rng.random((40, 3)) + rng.integers(-50, 50, (40, 3)) @ cell
    verlet = _core.VerletList(4.0, 1.0)
    for strain, builds in [(0.0, 1), (0.1, 1), (-0.1, 1), (0.45, 2), (0.0, 3)]:
        change = np.eye(3) + strain * project / np.sqrt(sum(pbc))
        assert_complete(verlet, positions @ change, cell @ change, pbc, 4.0)
        assert verlet.num_builds == builds


def test_a_cell_that_shrinks_around_resting_atoms():
    positions = np.array([[0.1, 5.0, 5.0], [9.9, 5.0, 5.0]])
    verlet = _core.VerletList(4.0, 1.0)
    for size in (14.9, 14.5, 14.0, 13.9, 13.0, 12.0):
        assert_complete(verlet, positions, np.diag([size, 20.0, 20.0]), PERIODIC, 4.0)
    assert 1 < verlet.num_builds < 6


def test_two_atoms_that_meet():
    verlet = _core.VerletList(4.0, 1.0)
    for gap in np.linspace(6.0, 1.0, 51):
        assert_complete(verlet, np.array([[-gap / 2, 0, 0], [gap / 2, 0, 0]]), BOX, OPEN, 4.0)
    assert 3 < verlet.num_builds < 10


def test_zero_skin_builds_at_every_call():
    verlet = _core.VerletList(4.0, 0.0)
    for _ in range(3):
        assert_complete(verlet, np.ones((1, 3)), BOX, PERIODIC, 4.0)
    assert verlet.num_builds == 3


def test_another_system_needs_another_list():
    verlet = _core.VerletList(4.0, 1.0)
    positions = 10.0 * np.random.default_rng(9).random((10, 3))
    wrapped = positions + [10.0, 0, 0] * (np.arange(10) == 2)[:, None]
    changes = [(positions, PERIODIC), (positions[:9], PERIODIC), (positions, PERIODIC), (positions, OPEN)]
    changes += [(positions[:0], OPEN), (positions, PERIODIC), (wrapped, PERIODIC)]
    for builds, (points, pbc) in enumerate(changes, start=1):
        assert_complete(verlet, points, BOX, pbc, 4.0)
        assert verlet.num_builds == builds


@pytest.mark.parametrize("broken", ["position", "cell"])
def test_a_failed_update_leaves_no_list_behind(broken):
    verlet = _core.VerletList(4.0, 1.0)
    positions = 10.0 * np.random.default_rng(10).random((10, 3))
    verlet.update(positions, BOX, PERIODIC)
    bad = {"position": (np.full((10, 3), np.nan), BOX), "cell": (positions, np.full((3, 3), np.nan))}[broken]
    with pytest.raises(EvaluationError, match="must be finite"):
        verlet.update(*bad, PERIODIC)
    assert_complete(verlet, positions, BOX, PERIODIC, 4.0)
    assert verlet.num_builds == 2


@pytest.mark.parametrize("skin", [-0.1, np.nan, np.inf])
def test_bad_skin(skin):
    with pytest.raises(EvaluationError, match=r"the Verlet skin is \S+ Å, but it must be finite"):
        _core.VerletList(4.0, skin)


def test_bad_cutoff_of_a_verlet_list():
    with pytest.raises(EvaluationError, match="the neighbor cutoff is -4 Å"):
        _core.VerletList(-4.0, 1.0)
