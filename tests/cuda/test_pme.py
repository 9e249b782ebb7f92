"""Particle-mesh Ewald and the direct sum on a device, against those of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from core.charged_systems import (
    CHANGES,
    CRYSTALS,
    OPEN,
    PERIODIC,
    SLAB,
    SYSTEMS,
    System,
    crystal,
    random_system,
    same_crystal,
    strained,
)

from nearsight.errors import EvaluationError
from nearsight.lib import _core

KINDS = {
    **SYSTEMS,
    "open": {"pbc": OPEN},
    "open gaussian": {"pbc": OPEN, "widths": True, "net": 1.0},
}
# Of the largest number: parameters come from sums of another order, so that they differ in the last bits.
TOLERANCES = {"double": 1e-11, "single": 2e-6}


def both(system: System, **options):
    """The same set-up on the device and on the CPU."""
    return [_core.Pme(*system.arguments(), device=device, **options) for device in ("cuda", "cpu")]


def assert_equal(result, reference, tolerance):
    assert set(result) == set(reference)
    for key, values in reference.items():
        np.testing.assert_allclose(
            result[key], values, rtol=0, atol=tolerance * np.abs(values).max(), err_msg=key
        )


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_cpu(kind, precision):
    system = random_system(51, 90, **KINDS[kind])
    device, cpu = both(system, rtol=1e-4, precision=precision)
    found, expected = device.parameters, cpu.parameters
    assert (found["mesh"], found["order"], found["cutoff"]) == (
        expected["mesh"],
        expected["order"],
        expected["cutoff"],
    )
    assert found["splitting"] == pytest.approx(expected["splitting"], rel=1e-12)
    assert_equal(
        device.evaluate(*system.arguments()), cpu.evaluate(*system.arguments()), TOLERANCES[precision]
    )


@pytest.mark.smallest
@pytest.mark.parametrize("precision", TOLERANCES)
def test_threads_in_any_order(thread_order, precision):
    """The same bits as first found, whichever order that was in."""
    for kind in ("charged", "open gaussian"):
        system = random_system(52, 40, **KINDS[kind])
        device = _core.Pme(*system.arguments(), rtol=1e-3, precision=precision, device="cuda")
        result = device.evaluate(*system.arguments())
        result["found"] = device.find_potentials(*system.arguments())
        for key, values in FIRST_RESULTS.setdefault((kind, precision), result).items():
            np.testing.assert_array_equal(result[key], values, err_msg=key)


FIRST_RESULTS = {}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", CRYSTALS)
def test_lattice_energies(name, change):
    system = same_crystal(crystal(name), change)
    device = _core.Pme(*system.arguments(), rtol=1e-4, device="cuda")
    assert device.evaluate(*system.arguments())["energy"] == pytest.approx(system.energy, rel=1e-4)


@pytest.mark.smallest
@pytest.mark.parametrize("order", [4, 5, 6, 7, 8])
def test_orders_of_splines(order):
    system = random_system(53, 50, net=2.0)
    device, cpu = both(system, rtol=1e-4, order=order)
    assert device.parameters["order"] == order
    assert_equal(device.evaluate(*system.arguments()), cpu.evaluate(*system.arguments()), 1e-11)


@pytest.mark.smallest
def test_mesh_smaller_than_the_spline():
    """Two charges, which see hundreds of images of each other."""
    system = random_system(54, 2, spacing=1.6)
    device, cpu = both(system, rtol=1e-5, cutoff=9.0, order=8)
    assert min(device.parameters["mesh"]) < 8
    assert_equal(device.evaluate(*system.arguments()), cpu.evaluate(*system.arguments()), 1e-11)


def test_a_cluster_in_much_vacuum():
    """Cells are wider than the cutoff where there would be many more of them than charges."""
    system = random_system(55, 30)
    system = system._replace(cell=np.diag([70.0, 80.0, 90.0]))
    device, cpu = both(system, rtol=1e-2, cutoff=8.0, precision="double")
    assert_equal(device.evaluate(*system.arguments()), cpu.evaluate(*system.arguments()), 1e-11)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("kind", ["gaussian", "charged slab"])
def test_lists_are_kept_while_they_hold_all_pairs(kind, precision):
    """Along a path of moving charges in a changing cell, with charges in other images every other step."""
    system = random_system(56, 60, **KINDS[kind])
    device, cpu = both(system, rtol=1e-4, precision=precision)
    direction = np.random.default_rng(57).normal(size=(60, 3))
    strain = 3e-4 * np.array([[1.0, 0.4, 0.0], [0.4, -0.5, 0.2], [0.0, 0.2, 0.7]])
    for _ in range(8):
        system = strained(system._replace(positions=system.positions + 0.03 * direction), strain)
        result, reference = (pme.evaluate(*system.arguments()) for pme in (device, cpu))
        assert_equal(result, reference, TOLERANCES[precision])
    assert 1 < device.times["lists"] == cpu.times["lists"] < 6


@pytest.mark.parametrize("precision", TOLERANCES)
def test_what_asks_for_a_new_list(precision):
    """Other images of charges; another cell; fewer charges."""
    system = random_system(58, 60)
    device, cpu = both(system, rtol=1e-4, precision=precision)
    images = system.positions + np.outer(np.arange(60) % 3 - 1, system.cell[0] - 2 * system.cell[1])
    fewer = system._replace(positions=system.positions[:50], charges=system.charges[:50])
    pressed = strained(system, -0.08 * np.eye(3))
    steps = [(system, 1), (system._replace(positions=images), 2), (pressed, 3), (fewer, 4), (system, 5)]
    for one, lists in steps:
        assert_equal(device.evaluate(*one.arguments()), cpu.evaluate(*one.arguments()), TOLERANCES[precision])
        assert device.times["lists"] == lists


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("kind", ["charged", "gaussian", "slab", "open gaussian"])
def test_potentials_alone(kind, precision):
    """Of several charges at the same places, between other evaluations, after moves and with other widths."""
    system = random_system(59, 60, **KINDS[kind])
    device, cpu = both(system, rtol=1e-4, precision=precision)
    rng = np.random.default_rng(60)

    def compare(one):
        reference = cpu.evaluate(*one.arguments())
        scale = np.abs(reference["potentials"]).max()
        found = device.find_potentials(*one.arguments())
        np.testing.assert_allclose(found, reference["potentials"], rtol=0, atol=TOLERANCES[precision] * scale)
        return reference

    moved = system._replace(positions=system.positions + 0.02 * rng.normal(size=(60, 3)))
    for places in (system, moved, strained(moved, 1e-3 * np.eye(3))):
        for _ in range(3):
            compare(places._replace(charges=rng.normal(size=60)))
        assert_equal(device.evaluate(*places.arguments()), compare(places), TOLERANCES[precision])
    if system.widths is not None:
        compare(moved._replace(widths=0.5 * moved.widths))
    compare(moved._replace(widths=None))
    compare(moved)


@pytest.mark.parametrize(("kind", "precision"), [("slab", "double"), ("slab", "single"), ("open", "double")])
def test_charges_on_top_of_each_other(kind, precision):
    system = random_system(61, **KINDS[kind])
    device = _core.Pme(*system.arguments(), rtol=1e-3, precision=precision, device="cuda")
    shift = system.cell[0] if kind == "slab" else 0.0
    for gap in (0.0, 5e-4):
        close = system._replace(positions=system.positions.copy())
        close.positions[7] = close.positions[19] + [gap, 0, 0] + shift
        for compute in (device.evaluate, device.find_potentials, device.find_potentials):
            with pytest.raises(EvaluationError, match=r"charges 7 and 19 are .* Å apart, but they must"):
                compute(*close.arguments())
    device.evaluate(*system.arguments())


@pytest.mark.parametrize("pbc", [PERIODIC, SLAB, OPEN])
def test_charges_of_zero_and_no_charges(pbc):
    system = random_system(62, pbc=pbc)
    nothing = system._replace(charges=np.zeros(24))
    device = _core.Pme(*nothing.arguments(), device="cuda")
    assert device.evaluate(*nothing.arguments())["energy"] == 0.0
    device = _core.Pme(*system.arguments(), rtol=1e-3, device="cuda")
    result = device.evaluate(*nothing.arguments())
    assert result["energy"] == 0.0
    assert not result["forces"].any()
    empty = System(np.zeros((0, 3)), np.zeros(0), system.cell, pbc)
    assert device.evaluate(*empty.arguments())["energy"] == 0.0
    assert _core.Pme(*empty.arguments(), device="cuda").evaluate(*empty.arguments())["energy"] == 0.0


@pytest.mark.parametrize("precision", TOLERANCES)
def test_tiny_and_large_charges(precision):
    """The integers of the mesh have a unit for the charges at hand."""
    system = random_system(66, 40, net=1.0)
    device, cpu = both(system, rtol=1e-4, precision=precision)
    for scale in (1e-15, 1e-9, 1e9):
        one = system._replace(charges=scale * system.charges)
        expected = cpu.evaluate(*one.arguments())["potentials"]
        np.testing.assert_allclose(
            device.find_potentials(*one.arguments()),
            expected,
            rtol=0,
            atol=TOLERANCES[precision] * np.abs(expected).max(),
        )


def test_errors_of_evaluations():
    system = random_system(63, pbc=OPEN)
    device = _core.Pme(*system.arguments(), device="cuda")
    wrong = system._replace(charges=np.full(24, np.nan))
    with pytest.raises(EvaluationError, match="charge 0 is nan e, but charges must be finite"):
        device.evaluate(*wrong.arguments())
    wrong = system._replace(positions=np.full((24, 3), np.inf))
    with pytest.raises(EvaluationError, match=r"atom 0 is at .*, but positions must be finite"):
        device.evaluate(*wrong.arguments())
    with pytest.raises(EvaluationError, match="device is 'gpu', expected cpu, cuda or cuda:N"):
        _core.Pme(*system.arguments(), device="gpu")
    for pbc in (PERIODIC, OPEN):
        with pytest.raises(EvaluationError, match="GPU number 99 was asked for, but this machine has"):
            _core.Pme(*system._replace(pbc=pbc).arguments(), device="cuda:99")


def test_absurdly_many_images():
    """Found on the device where the CPU does not measure: in large systems."""
    system = random_system(64, 4100)
    with pytest.raises(EvaluationError, match=r"reaches over about .* images of atoms, but at most 2e"):
        _core.Pme(*system.arguments(), cutoff=1e4, rtol=1e-3, device="cuda")
