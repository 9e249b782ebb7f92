"""PME on several ranks: shares add up to what one process gives, to round-off."""

from __future__ import annotations

import numpy as np
import pytest

from nearsight.errors import EvaluationError
from nearsight.lib import _core

from .charged_systems import OPEN, PERIODIC, SLAB, SYSTEMS, System, random_system

RANKS = [1, 2, 3, 4, 6, 7, 13]
KINDS = {
    **SYSTEMS,
    "slab of gaussians": {"pbc": SLAB, "widths": True, "net": -2.0},
    "open": {"pbc": OPEN, "widths": True, "net": 1.0},
}


def with_shifts(system: System, seed: int) -> System:
    """The same with charges in other images of the cell."""
    shifts = np.random.default_rng(seed).integers(-2, 3, (len(system.charges), 3)) * system.pbc
    return system._replace(positions=system.positions + shifts @ system.cell)


def owners_of(system: System, ranks: int, how: str) -> np.ndarray:
    rng = np.random.default_rng(ranks)
    n = len(system.charges)
    if how == "random":
        return rng.integers(0, ranks, n)
    if how == "one":  # all others are empty
        return np.full(n, ranks // 2)
    fractions = (system.positions @ np.linalg.inv(system.cell)) % 1.0
    if how == "slices":
        return np.minimum((fractions[:, 1] * ranks).astype(int), ranks - 1)
    assert how == "boxes"  # uneven ones, the last rank has nothing
    sides = {1: (1, 1), 2: (1, 1), 3: (2, 1), 4: (3, 1), 6: (5, 1), 7: (2, 3), 13: (4, 3)}[ranks]
    x, z = (
        np.minimum((fractions[:, d] ** 2 * sides[k]).astype(int), sides[k] - 1) for k, d in enumerate((0, 2))
    )
    return x * sides[1] + z


def on_ranks(system: System, owners, ranks: int, **options):
    return _core.pme_of_ranks(
        system.positions,
        system.charges,
        [(system.cell, system.pbc)] * ranks,
        np.atleast_2d(owners),
        system.widths,
        **options,
    )


def check(system: System, owners, ranks: int, *, rtol: float = 1e-5, tolerance: float = 1e-10, **options):
    single = {key: value for key, value in options.items() if key not in ("pencils", "drift")}
    mesh = _core.Pme(*system.arguments(), rtol=rtol, **single)
    last = system.positions + (len(np.atleast_2d(owners)) - 1) * options.get("drift", 0.0)
    one = mesh.evaluate(*system._replace(positions=last).arguments())
    all_ranks = on_ranks(system, owners, ranks, rtol=rtol, **options)
    for key, value in all_ranks["parameters"].items():
        assert value == pytest.approx(mesh.parameters[key], rel=1e-9)
    assert all_ranks["energies"].shape == (ranks,)
    assert all_ranks["energies"].sum() == pytest.approx(one["energy"], rel=tolerance)
    found = {**all_ranks, "virial": all_ranks["virials"].sum(axis=0)}
    for key in ("potentials", "fields", "virial"):
        scale = np.abs(one[key]).max()
        np.testing.assert_allclose(found[key], one[key], rtol=0, atol=tolerance * scale, err_msg=key)
    scale = np.abs(one["potentials"]).max()
    np.testing.assert_allclose(found["potentials_alone"], one["potentials"], rtol=0, atol=tolerance * scale)
    return all_ranks


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("kind", KINDS)
def test_shares_add_up(kind, ranks):
    system = with_shifts(random_system(51, 60, **KINDS[kind]), 1)
    for how in ("boxes", "random"):
        check(system, owners_of(system, ranks, how), ranks)


@pytest.mark.parametrize("how", ["one", "slices", "random", "boxes"])
@pytest.mark.parametrize("ranks", [4, 13])
def test_ownership(ranks, how):
    system = with_shifts(random_system(52, 90, net=2.0, widths=True), 2)
    check(system, owners_of(system, ranks, how), ranks)


@pytest.mark.parametrize(
    ("ranks", "pencils"),
    [
        (2, (1, 1)),
        (2, (2, 1)),
        (2, (1, 2)),
        (4, (2, 2)),
        (6, (3, 2)),
        (7, (2, 3)),
        (7, (7, 1)),
        (13, (1, 13)),
    ],
)
def test_grids_of_transforms(ranks, pencils):
    system = random_system(53, 60, net=1.0, spacing=1.7)
    for kind in (system, system._replace(pbc=SLAB)):
        check(kind, owners_of(kind, ranks, "boxes"), ranks, pencils=pencils, rtol=1e-6)


@pytest.mark.parametrize("pencils", [(13, 1), (1, 13), (3, 4)])
def test_more_ranks_than_mesh_lines_and_a_mesh_smaller_than_the_spline(pencils):
    system = random_system(30, 2, spacing=1.6)  # the cutoff reaches over many cells
    found = check(system, [12, 3], 13, pencils=pencils, cutoff=9.0, order=8)
    assert min(found["parameters"]["mesh"]) < 8


@pytest.mark.parametrize("order", [4, 5, 7])
def test_thin_cell_and_uneven_mesh(order):
    rng = np.random.default_rng(54)
    cell = np.array([[2.9, 0, 0], [1.1, 31.0, 0], [-0.7, 2.0, 7.0]])
    positions = np.arange(30)[:, None] / 30 * (cell[1] + [0.9, 0, 2.0]) + rng.uniform(-0.2, 0.2, (30, 3))
    charges = rng.normal(size=30)
    system = System(positions, charges, cell, PERIODIC)
    for ranks, pencils in ((3, (1, 3)), (6, (2, 3)), (6, (0, 0))):
        check(system, owners_of(system, ranks, "slices"), ranks, pencils=pencils, order=order, cutoff=6.0)


@pytest.mark.parametrize("kind", ["charged", "slab", "gaussian"])
def test_mesh_of_floats(kind):
    system = random_system(55, 60, **SYSTEMS[kind])
    for ranks, pencils in ((3, (3, 1)), (6, (2, 3))):
        owners = owners_of(system, ranks, "boxes")
        check(system, owners, ranks, pencils=pencils, rtol=1e-5, precision="single", tolerance=2e-6)


def test_systems_too_large_to_measure():
    system = random_system(56, 4200, net=1.0)
    assert len(system.charges) > 4096
    check(system, owners_of(system, 3, "boxes"), 3, rtol=1e-2, cutoff=4.0)


@pytest.mark.parametrize("precision", ["single", "double"])
def test_repetition(precision):
    system = random_system(57, 60, pbc=SLAB, net=1.0, widths=True)
    options = {"rtol": 1e-4, "precision": precision, "pencils": (2, 2)}
    owners = owners_of(system, 6, "boxes")
    first, second = (on_ranks(system, owners, 6, **options) for _ in range(2))
    for key in ("energies", "virials", "potentials", "fields"):
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)


@pytest.mark.parametrize("kind", ["charged", "slab of gaussians", "open"])
def test_charges_change_their_rank(kind):
    """The set-up knows one distribution, evaluations have others, the last one with empty ranks."""
    system = random_system(58, 60, **KINDS[kind])
    owners = [owners_of(system, 6, how) for how in ("boxes", "random", "one", "slices")]
    check(system, owners, 6)


@pytest.mark.parametrize("kind", ["charged", "slab of gaussians"])
@pytest.mark.parametrize("steps", [2, 5, 40])
def test_charges_move(kind, steps):
    """Lists of pairs are kept for some steps, by all ranks or by none."""
    system = with_shifts(random_system(66, 60, **KINDS[kind]), 3)
    drift = np.random.default_rng(67).normal(scale=0.01, size=(60, 3))
    drift[31] *= 5  # one rank notices first
    check(system, np.tile(owners_of(system, 6, "boxes"), (steps, 1)), 6, drift=drift)


def test_drift_needs_a_row_for_each_charge():
    system = random_system(68)
    with pytest.raises(EvaluationError, match=r"drift has shape \(2, 3\), but \(n, 3\) is expected"):
        on_two_ranks(system, [owners_of(system, 2, "slices")], drift=np.zeros((2, 3)))


@pytest.mark.parametrize("pbc", [PERIODIC, SLAB, OPEN])
def test_charges_of_zero_and_no_charges(pbc):
    system = random_system(59, pbc=pbc)
    silent = on_ranks(system._replace(charges=np.zeros(24)), owners_of(system, 3, "slices"), 3)
    assert not silent["energies"].any()
    assert not silent["potentials"].any()
    empty = System(np.zeros((0, 3)), np.zeros(0), 5 * np.eye(3), pbc)
    assert not on_ranks(empty, np.zeros((1, 0), int), 3)["energies"].any()


def test_times():
    system = random_system(60, 200)
    one = on_ranks(system, np.zeros(200, int), 1)
    assert one["communication"] == [0.0]
    assert one["transforms"] > 0
    four = on_ranks(system, owners_of(system, 4, "boxes"), 4, pencils=(2, 1))
    assert (four["communication"] > 0).all()
    assert (four["transforms"] > 0).all()
    assert on_ranks(system._replace(pbc=OPEN), np.zeros(200, int), 2)["transforms"].max() == 0.0


def on_two_ranks(system: System, owners, cells=None, **options):
    cells = cells or [(system.cell, system.pbc)] * 2
    return _core.pme_of_ranks(system.positions, system.charges, cells, owners, **options)


def test_errors_of_ownership():
    system = random_system(61)
    owners = owners_of(system, 2, "slices")
    with pytest.raises(
        EvaluationError, match=r"charge 3 belongs to rank 2, but there are 2 ranks, counted from 0"
    ):
        on_two_ranks(system, [np.where(np.arange(24) == 3, 2, owners)])
    with pytest.raises(EvaluationError, match="charge 0 belongs to rank -1"):
        on_two_ranks(system, [np.full(24, -1)])
    with pytest.raises(EvaluationError, match=r"owners has shape \(24,\), but \(steps, n\) is expected"):
        on_two_ranks(system, owners)


def test_all_ranks_must_have_the_same_cell():
    system = random_system(62)
    owners = [owners_of(system, 2, "slices")]
    own = (system.cell, system.pbc)
    for other in ((system.cell * 1.001, system.pbc), (system.cell, SLAB), (system.cell, OPEN)):
        with pytest.raises(
            EvaluationError, match="rank 1 has another cell or other periodic directions than rank 0"
        ):
            on_two_ranks(system, owners, [own, other])


def test_grid_of_transforms_needs_as_many_ranks():
    system = random_system(63)
    for pencils in ((2, 2), (0, 1), (-1, -1)):
        message = rf"by a grid of {pencils[0]} x {pencils[1]} ranks, but there are 2: give a smaller grid"
        with pytest.raises(EvaluationError, match=message):
            on_two_ranks(system, [owners_of(system, 2, "slices")], pencils=pencils)


@pytest.mark.parametrize("pbc", [PERIODIC, OPEN])
def test_charges_of_two_ranks_at_the_same_place(pbc):
    system = random_system(64, pbc=pbc)
    system.positions[7] = system.positions[8]
    owners = [np.arange(24) % 2]
    with pytest.raises(EvaluationError, match=r"charges [34] and one of another rank are 0 Å apart"):
        on_two_ranks(system, owners)


def test_a_rank_that_fails_ends_the_others():
    system = random_system(65)
    system.positions[5] = np.nan
    with pytest.raises(EvaluationError, match="positions must be finite"):
        on_ranks(system, np.arange(24) % 7, 7)
