"""Neighbor lists made on a device, against the core's."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_neighbor_list import OPEN, PERIODIC, assert_same_pairs, random_cell, systems

from nearsight.errors import EvaluationError
from nearsight.lib import _core

BOX = 10.0 * np.eye(3)
SETTINGS = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(max_examples=100, **SETTINGS)
@given(systems())
def test_equals_the_list_of_the_cpu(system):
    positions, cell, pbc, cutoff = system
    assert_same_pairs(
        _core.CudaList(cutoff).find(positions, cell, pbc), _core.brute_force(positions, cell, pbc, cutoff)
    )


@settings(max_examples=20, **SETTINGS)
@given(systems(max_atoms=12))
def test_threads_in_any_order(thread_order, system):
    positions, cell, pbc, cutoff = system
    assert_same_pairs(
        _core.CudaList(cutoff).find(positions, cell, pbc), _core.brute_force(positions, cell, pbc, cutoff)
    )


@settings(max_examples=20, **SETTINGS)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["any", "skewed", "needle"]),
    st.sampled_from([PERIODIC, OPEN, [True, False, True]]),
)
def test_no_pair_is_missed_while_atoms_walk_and_the_cell_strains(seed, kind, pbc):
    rng = np.random.default_rng(seed)
    cell = random_cell(kind, rng)
    positions = rng.random((20, 3)) @ cell
    cutoff = 2.5
    device = _core.CudaList(cutoff, 0.8)
    for _ in range(12):
        strain = np.eye(3) + 0.01 * rng.normal(size=(3, 3))
        cell = cell @ strain
        positions = positions @ strain + 0.08 * rng.normal(size=positions.shape)
        assert_same_pairs(device.find(positions, cell, pbc), _core.brute_force(positions, cell, pbc, cutoff))


@pytest.mark.parametrize("pbc", [PERIODIC, OPEN])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_atoms(count, pbc):
    positions = np.zeros((count, 3)) + np.arange(count)[:, None]
    assert_same_pairs(
        _core.CudaList(3.0).find(positions, BOX, pbc), _core.brute_force(positions, BOX, pbc, 3.0)
    )


def test_kept_until_half_the_skin():
    positions = np.random.default_rng(1).uniform(0, 10, (30, 3))
    device = _core.CudaList(3.0, 1.0)
    for shift in (0.0, 0.2, 0.49):
        device.find(positions + np.eye(30, 3) * shift, BOX, PERIODIC)
    assert device.num_builds == 1
    device.find(positions + np.eye(30, 3) * 0.51, BOX, PERIODIC)
    assert device.num_builds == 2
    device.find(positions[:-1], BOX, PERIODIC)
    assert device.num_builds == 3


def test_an_atom_that_moves_to_nowhere_is_named():
    positions = np.random.default_rng(1).uniform(0, 10, (30, 3))
    device = _core.CudaList(3.0, 1.0)
    device.find(positions, BOX, PERIODIC)
    positions[7, 1] = np.nan
    with pytest.raises(EvaluationError, match=r"atom 7 is at .*must be finite"):
        device.find(positions, BOX, PERIODIC)


def test_neighbors_too_many_cells_apart():
    positions = np.array([[0.0, 0, 0], [1.0 + 40_000 * 10, 0, 0]])
    with pytest.raises(EvaluationError, match=r"more than 32,767 lattice vectors apart.*wrap the atoms"):
        _core.CudaList(3.0).find(positions, BOX, PERIODIC)


def test_more_atoms_than_threads_of_a_block():
    rng = np.random.default_rng(2)
    cell = random_cell("skewed", rng)
    positions = rng.random((700, 3)) @ cell
    assert_same_pairs(
        _core.CudaList(2.0).find(positions, cell, PERIODIC),
        _core.neighbor_list(positions, cell, PERIODIC, 2.0),
    )
