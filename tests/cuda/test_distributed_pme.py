"""Particle-mesh Ewald of several ranks on a device, against those of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from core.charged_systems import OPEN, PERIODIC, SLAB, System, random_system
from core.test_distributed_pme import KINDS, on_ranks, owners_of, with_shifts

from nearsight.errors import EvaluationError

TOLERANCES = {"double": 1e-11, "single": 2e-6}  # of the largest number, as with one rank
RESULTS = ("energies", "virials", "potentials", "fields", "potentials_alone")


def check(system: System, owners, ranks: int, precision: str = "double", **options):
    """Every rank's share; in single precision an energy is a sum of more digits than shares have."""
    options = {"rtol": 1e-4, "precision": precision} | options
    found, expected = (
        on_ranks(system, owners, ranks, device=device, **options) for device in ("cuda", "cpu")
    )
    for key in RESULTS:
        scale = np.abs(expected[key]).max()
        np.testing.assert_allclose(
            found[key], expected[key], rtol=0, atol=TOLERANCES[precision] * scale, err_msg=key
        )
    return found


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_cpu(kind, ranks, precision):
    system = with_shifts(random_system(51, 60, **KINDS[kind]), 1)
    for how in ("boxes", "random", "one"):
        check(system, owners_of(system, ranks, how), ranks, precision)


@pytest.mark.smallest
@pytest.mark.parametrize("precision", TOLERANCES)
def test_threads_in_any_order(thread_order, precision):
    """The same bits as first found, whichever order that was in."""
    for kind in ("charged", "slab of gaussians", "open"):
        system = with_shifts(random_system(52, 40, **KINDS[kind]), 2)
        owners = owners_of(system, 3, "random")
        result = on_ranks(system, owners, 3, rtol=1e-3, precision=precision, device="cuda")
        for key in RESULTS:
            first = FIRST_RESULTS.setdefault((kind, precision, key), result[key])
            np.testing.assert_array_equal(result[key], first, err_msg=key)


FIRST_RESULTS = {}


@pytest.mark.parametrize(("ranks", "pencils"), [(2, (1, 1)), (4, (2, 2)), (6, (3, 2)), (13, (1, 13))])
def test_grids_of_transforms(ranks, pencils):
    """Some ranks have no charges, some no lines of the mesh."""
    for pbc in (PERIODIC, SLAB):
        system = random_system(53, 60, net=1.0, spacing=1.7, pbc=pbc)
        check(system, owners_of(system, ranks, "boxes"), ranks, pencils=pencils)


def test_mesh_smaller_than_the_spline():
    system = random_system(54, 2, spacing=1.6)  # the cutoff reaches over many cells
    found = check(system, [1, 0], 2, rtol=1e-5, cutoff=9.0, order=8)
    assert min(found["parameters"]["mesh"]) < 8


@pytest.mark.parametrize("order", [4, 5, 7])
def test_charges_on_points_of_the_mesh(order):
    """Bricks begin and end where the charges are."""
    side = 12.0
    grid = np.stack(np.meshgrid(*3 * [np.arange(4)], indexing="ij"), axis=-1).reshape(-1, 3)
    cell = side * np.eye(3)
    charges = np.random.default_rng(55).normal(size=len(grid))
    system = System(side / 4 * grid, charges, cell, PERIODIC)
    for shift in (0.0, -1e-15):
        moved = system._replace(positions=system.positions + shift)
        check(moved, owners_of(system, 4, "boxes"), 4, order=order, cutoff=5.0)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("kind", ["charged", "slab of gaussians"])
@pytest.mark.parametrize("steps", [2, 5, 20])
def test_charges_move(kind, steps, precision):
    """Lists of pairs are kept for some steps, by all ranks or by none."""
    system = with_shifts(random_system(66, 60, **KINDS[kind]), 3)
    drift = np.random.default_rng(67).normal(scale=0.02, size=(60, 3))
    drift[31] *= 5  # one rank notices first
    owners = np.tile(owners_of(system, 4, "boxes"), (steps, 1))
    check(system, owners, 4, precision, drift=drift)


@pytest.mark.parametrize("kind", ["charged", "slab of gaussians", "open"])
def test_charges_change_their_rank(kind):
    """The set-up knows one distribution, evaluations have others, the last one with empty ranks."""
    system = random_system(58, 60, **KINDS[kind])
    check(system, [owners_of(system, 4, how) for how in ("boxes", "random", "slices", "one")], 4)


@pytest.mark.parametrize("pbc", [PERIODIC, SLAB, OPEN])
def test_charges_of_zero_and_no_charges(pbc):
    system = random_system(59, pbc=pbc)
    nothing = system._replace(charges=np.zeros(24))
    silent = on_ranks(nothing, owners_of(system, 3, "slices"), 3, device="cuda")
    assert not silent["potentials"].any()
    empty = System(np.zeros((0, 3)), np.zeros(0), 5 * np.eye(3), pbc)
    assert not on_ranks(empty, np.zeros((1, 0), int), 3, device="cuda")["energies"].any()


@pytest.mark.parametrize("pbc", [PERIODIC, OPEN])
def test_charges_of_two_ranks_at_the_same_place(pbc):
    system = random_system(64, pbc=pbc)
    system.positions[7] = system.positions[8]
    with pytest.raises(EvaluationError, match=r"charges [34] and one of another rank are 0 Å apart"):
        on_ranks(system, np.arange(24) % 2, 2, device="cuda")


def test_times():
    """Of the host's own work: with one rank there is none."""
    system = random_system(60, 200)
    assert on_ranks(system, np.zeros(200, int), 1, device="cuda", rtol=1e-3)["transforms"] == [0.0]
    found = on_ranks(system, owners_of(system, 2, "slices"), 2, pencils=(2, 1), device="cuda", rtol=1e-3)
    assert (found["transforms"] > 0).all()
    assert (found["communication"] > 0).all()


def test_a_device_that_is_not_there():
    system = random_system(65)
    with pytest.raises(EvaluationError, match="GPU number 99 was asked for, but this machine has"):
        on_ranks(system, np.arange(24) % 2, 2, device="cuda:99")
