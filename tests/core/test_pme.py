"""Smooth particle-mesh Ewald against the direct sum, closed forms, and central differences."""

from __future__ import annotations

import numpy as np
import pytest

from nearsight.errors import EvaluationError
from nearsight.lib import _core

from .charged_systems import (
    CHANGES,
    CRYSTALS,
    OPEN,
    PERIODIC,
    SLAB,
    SYSTEMS,
    System,
    crystal,
    differences,
    random_system,
    same_crystal,
    strained,
    supercell,
)


def ewald(system: System):
    return _core.ewald(*system.arguments())


def set_up(system: System, **options):
    return _core.Pme(*system.arguments(), **options)


def pme(system: System, **options):
    return set_up(system, **options).evaluate(*system.arguments())


def force_error(result, reference) -> float:
    difference = np.linalg.norm(result["forces"] - reference["forces"])
    return difference / np.linalg.norm(reference["forces"])


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", CRYSTALS)
def test_lattice_energies(name, change):
    system = same_crystal(crystal(name), change)
    assert pme(system, rtol=1e-6)["energy"] == pytest.approx(system.energy, rel=1e-6)


@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("kind", SYSTEMS)
def test_error_is_what_was_asked_for(kind, rtol):
    system = random_system(21, 90, **SYSTEMS[kind])
    reference, mesh = ewald(system), set_up(system, rtol=rtol)
    result = mesh.evaluate(*system.arguments())
    error = force_error(result, reference)
    assert rtol / 30 < error < rtol
    found = mesh.parameters
    assert rtol / 30 < found["force_error"] / found["force_scale"] < rtol
    assert result["energy"] == pytest.approx(reference["energy"], rel=10 * rtol)
    np.testing.assert_allclose(
        result["virial"], reference["virial"], rtol=0, atol=20 * rtol * np.abs(reference["virial"]).max()
    )
    scale = np.abs(reference["potentials"]).max()
    np.testing.assert_allclose(result["potentials"], reference["potentials"], rtol=0, atol=20 * rtol * scale)


@pytest.mark.parametrize("order", [4, 5, 6, 7, 8])
def test_orders_of_splines(order):
    system = random_system(22, 90, net=2.0)
    mesh = set_up(system, rtol=1e-5, order=order)
    assert mesh.parameters["order"] == order
    assert 1e-5 / 30 < force_error(mesh.evaluate(*system.arguments()), ewald(system)) < 1e-5


@pytest.mark.parametrize("cutoff", [3.0, 4.0, 7.0, 10.0])
def test_cutoffs(cutoff):
    system = random_system(23, 90)
    mesh = set_up(system, rtol=1e-5, cutoff=cutoff)
    assert mesh.parameters["cutoff"] == cutoff
    assert 1e-5 / 30 < force_error(mesh.evaluate(*system.arguments()), ewald(system)) < 1e-5


@pytest.mark.parametrize("kind", SYSTEMS)
def test_single_precision(kind):
    system = random_system(24, 90, **SYSTEMS[kind])
    for rtol in (1e-4, 5e-6):
        result = pme(system, rtol=rtol, precision="single")
        assert rtol / 30 < force_error(result, ewald(system)) < rtol


def test_to_round_off():
    """Splines, transforms of all radices and corrections are right, not just close."""
    system = random_system(25, 40, net=1.0)
    result, reference = pme(system, rtol=1e-12, cutoff=14.0, order=8), ewald(system)
    for key, values in reference.items():
        np.testing.assert_allclose(
            result[key], values, rtol=0, atol=1e-11 * np.abs(values).max(), err_msg=key
        )


@pytest.mark.parametrize(("boundary", "rtol"), [(PERIODIC, 1e-9), (SLAB, 1e-6)])
@pytest.mark.parametrize("kind", ["neutral", "charged", "gaussian"])
def test_derivatives(kind, boundary, rtol):
    """To what pairs at the cutoff do to forces, and the vacuum of a slab to its virial."""
    system = random_system(26, 9, **{**SYSTEMS[kind], "pbc": boundary})
    mesh = set_up(system, rtol=rtol)
    result = mesh.evaluate(*system.arguments())
    potentials, forces, virial = differences(
        lambda s: mesh.evaluate(*s.arguments())["energy"], system, step=2e-3
    )
    np.testing.assert_allclose(result["potentials"][:4], potentials, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(result["forces"][:4], forces, rtol=0, atol=10 * rtol)
    np.testing.assert_allclose(result["virial"], virial, rtol=0, atol=100 * rtol)


@pytest.mark.parametrize("order", [4, 5, 8])
def test_derivatives_of_a_coarse_mesh(order):
    """Forces are the derivative of what the mesh gives, however wrong it is; no pair crosses the cutoff."""
    system = random_system(27, 4, spacing=3.0, net=0.7)
    vectors = _core.neighbor_list(system.positions, system.cell, system.pbc, 9.0)[2]
    distances = np.sort(np.linalg.norm(vectors, axis=1))
    gaps = np.diff(distances) * (distances[1:] > 4.0) * (distances[1:] < 7.0)
    widest = np.argmax(gaps)
    assert gaps[widest] > 0.05
    mesh = set_up(system, rtol=0.1, order=order, cutoff=distances[widest : widest + 2].mean())
    result = mesh.evaluate(*system.arguments())
    assert force_error(result, ewald(system)) > 1e-4
    potentials, forces, virial = differences(
        lambda s: mesh.evaluate(*s.arguments())["energy"], system, step=1e-3
    )
    np.testing.assert_allclose(result["potentials"], potentials, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result["forces"], forces, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(result["virial"], virial, rtol=1e-7, atol=1e-8)


def test_quadratic_in_charges():
    system = random_system(28, net=0.5)
    mesh = set_up(system, rtol=1e-4)
    result = mesh.evaluate(*system.arguments())
    assert system.charges @ result["potentials"] == pytest.approx(2 * result["energy"], rel=1e-12)
    tripled = mesh.evaluate(*system._replace(charges=3 * system.charges).arguments())
    np.testing.assert_allclose(tripled["forces"], 9 * result["forces"], rtol=1e-10, atol=1e-12)
    # the potential is that of a symmetric matrix
    other = np.random.default_rng(1).normal(size=24)
    moved = mesh.evaluate(*system._replace(charges=other).arguments())
    assert other @ result["potentials"] == pytest.approx(system.charges @ moved["potentials"], rel=1e-11)


def test_net_force_is_small_and_not_hidden():
    system = random_system(29, 90)
    result = pme(system, rtol=1e-5)
    net = np.linalg.norm(result["forces"].sum(axis=0)) / np.linalg.norm(result["forces"])
    assert 1e-12 < net < 1e-4


def test_mesh_smaller_than_the_spline():
    system = random_system(30, 2, spacing=1.6)
    mesh = set_up(system, rtol=1e-5, cutoff=9.0, order=8)
    assert min(mesh.parameters["mesh"]) < 8
    wide = supercell(system._replace(energy=0.0), (3, 2, 4))
    reference = ewald(wide)
    assert reference["energy"] == pytest.approx(24 * ewald(system)["energy"], rel=1e-11)
    assert force_error(mesh.evaluate(*system.arguments()), ewald(system)) < 1e-5


def test_threads_and_repetition():
    system = random_system(31, 60, net=1.0)
    for precision in ("single", "double"):
        mesh = set_up(system, rtol=1e-5, precision=precision)
        first = mesh.evaluate(*system.arguments())
        for key, values in mesh.evaluate(*system.arguments()).items():
            np.testing.assert_array_equal(values, first[key], err_msg=key)
        threaded = mesh.evaluate(*system.arguments(), threads=3)
        for key in ("energy", "potentials", "fields", "forces"):
            np.testing.assert_array_equal(threaded[key], first[key], err_msg=key)
        np.testing.assert_allclose(threaded["virial"], first["virial"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("precision", "tolerance"), [("double", 1e-12), ("single", 3e-6)])
@pytest.mark.parametrize("kind", SYSTEMS)
def test_lists_are_kept_while_they_hold_all_pairs(kind, precision, tolerance):
    """Along a path: what new lists give, which positions in other cells ask for."""
    system = random_system(38, 90, **SYSTEMS[kind])
    kept, new = (set_up(system, rtol=1e-5, precision=precision) for _ in range(2))
    direction = np.random.default_rng(39).normal(size=(90, 3))
    strain = 3e-4 * np.array([[1.0, 0.4, 0.0], [0.4, -0.5, 0.2], [0.0, 0.2, 0.7]])
    for step in range(12):
        system = strained(system._replace(positions=system.positions + 0.02 * direction), strain)
        result = kept.evaluate(*system.arguments())
        images = system.positions + step % 2 * (system.cell[0] - 2 * system.cell[1])
        for key, values in new.evaluate(*system._replace(positions=images).arguments()).items():
            scale = np.abs(values).max()
            np.testing.assert_allclose(result[key], values, rtol=0, atol=tolerance * scale, err_msg=key)
    assert 1 < kept.times["lists"] < 6
    assert new.times["lists"] == 12


@pytest.mark.parametrize("precision", ["double", "single"])
def test_lists_follow_charges(precision):
    """Other values and other widths of the same charges need no list."""
    system = random_system(40, 60, widths=True)
    mesh = set_up(system, rtol=1e-5, precision=precision)
    changed = system._replace(charges=system.charges[::-1].copy(), widths=system.widths[::-1].copy())
    for one in (system, changed, changed._replace(widths=0.3 * changed.widths)):
        assert force_error(mesh.evaluate(*one.arguments()), ewald(one)) < 3e-5
    assert mesh.times["lists"] == 1


@pytest.mark.parametrize("precision", ["double", "single"])
def test_what_asks_for_a_new_list(precision):
    """A charge that has moved by half the skin since the last list; another cell; fewer charges."""
    system = random_system(41, 90)
    mesh = set_up(system, rtol=1e-5, precision=precision)
    skin = 0.1 * mesh.parameters["cutoff"]

    def moved(distance):
        positions = system.positions.copy()
        positions[17] += distance * np.array([0.6, 0.0, -0.8])
        return system._replace(positions=positions)

    fewer = system._replace(positions=system.positions[:80], charges=system.charges[:80])
    pressed = strained(system, -0.08 * np.eye(3))
    steps = [(system, 1), (moved(0.499 * skin), 1), (moved(0.501 * skin), 2), (moved(0.99 * skin), 2)]
    for one, lists in [*steps, (system, 3), (pressed, 4), (pressed, 4), (fewer, 5), (system, 6)]:
        result = mesh.evaluate(*one.arguments())
        assert mesh.times["lists"] == lists
        assert force_error(result, ewald(one)) < 3e-5


def test_times():
    system = random_system(41, 200)
    mesh = set_up(system)
    assert set(mesh.times.values()) == {0}
    mesh.evaluate(*system.arguments())
    assert min(mesh.times[part] for part in ("pairs", "charges", "transforms")) > 0
    assert mesh.times["communication"] == 0


@pytest.mark.parametrize("precision", ["double", "single"])
def test_charges_on_top_of_each_other(precision):
    system = random_system(42)
    mesh = set_up(system, rtol=1e-4, precision=precision)
    mesh.evaluate(*system.arguments())
    for gap in (0.0, 5e-4):
        close = system.positions.copy()
        close[7] = close[19] + [gap, 0, 0]
        with pytest.raises(
            EvaluationError, match=r"charges (7 and 19|19 and 7) are .* Å apart, but they must"
        ):
            mesh.evaluate(*system._replace(positions=close).arguments())


def test_open_system_is_the_direct_sum():
    system = random_system(32, pbc=OPEN, widths=True, net=1.0)
    for key, values in ewald(system).items():
        np.testing.assert_array_equal(pme(system)[key], values, err_msg=key)


@pytest.mark.parametrize("pbc", [PERIODIC, SLAB, OPEN])
def test_charges_of_zero_and_no_charges(pbc):
    system = random_system(33, pbc=pbc)
    nothing = pme(system._replace(charges=np.zeros(24)))
    assert nothing["energy"] == 0.0
    assert not nothing["forces"].any()
    empty = System(np.zeros((0, 3)), np.zeros(0), 5 * np.eye(3), pbc)
    assert pme(empty)["energy"] == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rtol": 0.5}, "rtol is 0.5, but 1e-13 to 0.1 are expected for a mesh in double precision"),
        ({"rtol": np.nan}, "rtol is nan"),
        (
            {"rtol": 1e-7, "precision": "single"},
            "rtol is 1e-07, but .* single precision: correct it, or take double",
        ),
        ({"precision": "half"}, "precision of the mesh is 'half', expected single or double"),
        ({"order": 9}, "the order of the splines is 9, but 4 to 8 are expected"),
        ({"cutoff": -1.0}, "the neighbor cutoff is -1 Å, but it must be positive"),
        ({"cutoff": 0.01, "rtol": 1e-9}, "the mesh of the charges would have more than 1e9 points"),
        ({"cutoff": 1e5}, "a cutoff of .* Å reaches over about .* images of atoms, but at most 2e"),
    ],
)
def test_errors_of_options(options, message):
    with pytest.raises(EvaluationError, match=message):
        set_up(random_system(34), **options)


def test_cutoff_must_hold_the_gaussians():
    with pytest.raises(EvaluationError, match="the cutoff is 3 Å, but Gaussian charges of width"):
        set_up(random_system(35, widths=True), cutoff=3.0)


def test_errors_of_evaluations():
    system = random_system(36, pbc=SLAB)
    mesh = set_up(system, rtol=1e-3)
    with pytest.raises(
        EvaluationError, match="periodic directions are not those that the mesh was set up for"
    ):
        mesh.evaluate(*system._replace(pbc=PERIODIC).arguments())
    risen = system.positions.copy()
    risen[0] += 300 * np.cross(system.cell[0], system.cell[1]) / 100
    with pytest.raises(EvaluationError, match=r"the slab needs .* Å with its vacuum, but it was set up for"):
        mesh.evaluate(*system._replace(positions=risen).arguments())
    blank = set_up(system._replace(charges=np.zeros(24)))
    with pytest.raises(EvaluationError, match="the mesh was set up without charges, but there are some now"):
        blank.evaluate(*system.arguments())
