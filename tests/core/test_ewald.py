"""The direct lattice sum: closed forms, two splittings, central differences, symmetry."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf

from nearsight.errors import EvaluationError
from nearsight.lib import _core
from nearsight.units import COULOMB

from .charged_systems import (
    CHANGES,
    CRYSTALS,
    OPEN,
    PERIODIC,
    SLAB,
    System,
    crystal,
    differences,
    random_system,
    same_crystal,
    supercell,
)

KINDS = {
    "neutral": {},
    "charged": {"net": 1.7},
    "gaussian": {"widths": True},
    "charged gaussian": {"widths": True, "net": -2.0},
}
BOUNDARIES = {"triclinic": PERIODIC, "slab": SLAB, "open": OPEN}


def ewald(system: System, splitting: float = 0.0, threads: int = 1):
    return _core.ewald(*system.arguments(), splitting=splitting, threads=threads)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", CRYSTALS)
def test_lattice_energies(name, change):
    system = same_crystal(crystal(name), change)
    result = ewald(system)
    assert result["energy"] == pytest.approx(system.energy, rel=1e-12)
    assert np.trace(result["virial"]) == pytest.approx(system.energy, rel=1e-11)  # E scales as 1 / length
    assert np.abs(result["forces"].sum(axis=0)).max() < 1e-11


@pytest.mark.parametrize("name", sorted(set(CRYSTALS) - {"wurtzite"}))
def test_forces_vanish_by_symmetry(name):
    assert np.abs(ewald(same_crystal(crystal(name), "shifted"))["forces"]).max() < 1e-11


@pytest.mark.parametrize("boundary", ["triclinic", "slab"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_splittings_agree(kind, boundary):
    system = random_system(1, pbc=BOUNDARIES[boundary], **KINDS[kind])
    first, second = ewald(system, 0.35), ewald(system, 0.6)
    for key, values in first.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(second[key], values, rtol=0, atol=1e-11 * scale, err_msg=key)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives(kind, boundary):
    system = random_system(2, 9, pbc=BOUNDARIES[boundary], **KINDS[kind])
    result = ewald(system)
    potentials, forces, virial = differences(lambda s: ewald(s)["energy"], system, step=2e-3)
    np.testing.assert_allclose(result["potentials"][:4], potentials, atol=2e-9)
    np.testing.assert_allclose(result["forces"][:4], forces, atol=2e-9)
    np.testing.assert_allclose(result["virial"], virial, atol=1e-8)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_quadratic_in_charges(boundary):
    system = random_system(3, pbc=BOUNDARIES[boundary], net=0.5)
    result = ewald(system)
    assert system.charges @ result["potentials"] == pytest.approx(2 * result["energy"], rel=1e-12)
    doubled = ewald(system._replace(charges=2 * system.charges))
    assert doubled["energy"] == pytest.approx(4 * result["energy"], rel=1e-12)
    np.testing.assert_allclose(doubled["fields"], 2 * result["fields"], rtol=1e-10, atol=1e-12)
    # a charge of zero has a potential and a field, but no force
    charges = np.append(system.charges, 0.0)
    probe = ewald(
        system._replace(positions=np.vstack([system.positions, [[0.1, 0.2, 0.3]]]), charges=charges)
    )
    assert probe["energy"] == pytest.approx(result["energy"], rel=1e-12)
    assert not probe["forces"][-1].any()
    assert np.abs(probe["fields"][-1]).max() > 1e-3


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_scaling_with_length(boundary):
    system = random_system(4, pbc=BOUNDARIES[boundary], net=1.0)
    larger = system._replace(positions=2 * system.positions, cell=2 * system.cell)
    first, second = ewald(system), ewald(larger)
    assert second["energy"] == pytest.approx(first["energy"] / 2, rel=1e-12)
    assert np.trace(first["virial"]) == pytest.approx(first["energy"], rel=1e-11)


def test_two_open_gaussians():
    distances = np.array([0.3, 1.0, 2.5, 8.0])
    for r in distances:
        system = System(np.array([[0, 0, 0], [0, r, 0]]), np.array([1.5, -2.0]), np.zeros((3, 3)), OPEN)
        gaussian = ewald(system._replace(widths=np.array([0.6, 0.8])))
        assert gaussian["energy"] == pytest.approx(-3 * COULOMB * erf(r / np.sqrt(2)) / r, rel=1e-13)
        assert ewald(system)["energy"] == pytest.approx(-3 * COULOMB / r, rel=1e-14)


def test_open_system_is_the_sum_over_pairs():
    system = random_system(5, pbc=OPEN)
    r = system.positions[:, None] - system.positions[None]
    inverse = 1 / (np.linalg.norm(r, axis=-1) + np.diag(np.full(len(r), np.inf)))
    q = system.charges
    result = ewald(system)
    assert result["energy"] == pytest.approx(0.5 * COULOMB * q @ inverse @ q, rel=1e-13)
    fields = COULOMB * np.einsum("j,ij,ijc->ic", q, inverse**3, r)
    np.testing.assert_allclose(result["fields"], fields, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("net", [0.0, 1.5])
def test_gaussians_are_their_waves(net):
    """Σ over k ≠ 0 of 4π |ρ(k)|² / (2 V k²), less each Gaussian's own energy: no splitting, no background."""
    system = random_system(6, 8, widths=True, net=net, orthorhombic=True)
    system = system._replace(widths=system.widths + 0.3)
    n = np.arange(-24, 25)
    h = np.stack(np.meshgrid(n, n, n, indexing="ij"), -1).reshape(-1, 3)
    h = h[h.any(axis=1)]
    k = 2 * np.pi * h / np.diag(system.cell)
    k2 = (k**2).sum(axis=1)
    density = (np.exp(-0.5 * np.outer(k2, system.widths**2) - 1j * k @ system.positions.T)) @ system.charges
    waves = 2 * np.pi / np.prod(np.diag(system.cell)) * (np.abs(density) ** 2 / k2).sum()
    own = (system.charges**2 / system.widths).sum() / (2 * np.sqrt(np.pi))
    assert ewald(system)["energy"] == pytest.approx(COULOMB * (waves - own), rel=1e-11)


def test_narrow_gaussians_are_points():
    system = random_system(7, net=1.0)
    narrow = ewald(system._replace(widths=np.full(24, 1e-7)))
    np.testing.assert_allclose(narrow["energy"], ewald(system)["energy"], rtol=1e-11)


def test_capacitor():
    """Two layers of a square lattice, ±q each, far apart: the field between them is that of plane sheets."""
    side, gap, q = 3.0, 30.0, 0.8
    cell = np.diag([side, side, 1.0])
    plates = np.array([[0, 0, 0], [0.4, 1.1, gap]])
    near = System(plates, np.array([q, -q]), cell, SLAB)
    far = near._replace(positions=plates + np.array([[0, 0, 0], [0, 0, 5.0]]))
    field = 4 * np.pi * COULOMB * q / side**2
    assert ewald(far)["energy"] - ewald(near)["energy"] == pytest.approx(0.5 * q * field * 5, rel=1e-12)
    np.testing.assert_allclose(ewald(near)["forces"][0], [0, 0, 0.5 * q * field], atol=1e-11)


@pytest.mark.parametrize("net", [0.0, 2.0])
def test_third_vector_of_a_slab_has_no_influence(net):
    system = random_system(8, pbc=SLAB, net=net)
    other = system.cell.copy()
    other[2] = [1.0, 40.0, -3.0]
    for key, values in ewald(system).items():
        np.testing.assert_array_equal(ewald(system._replace(cell=other))[key], values, err_msg=key)


def test_slab_is_a_slab_in_any_direction():
    system = random_system(9, pbc=SLAB, net=1.0)
    turned = system._replace(cell=system.cell[[2, 0, 1]], pbc=[False, True, True])
    assert ewald(turned)["energy"] == pytest.approx(ewald(system)["energy"], rel=1e-12)


def test_sheared_basis_of_a_slab():
    """Far from reduced: the vacuum follows from the lattice and not from its basis."""
    system = random_system(10, 12, pbc=SLAB, net=1.0)
    basis = np.array([[1, 3, 0], [2, 7, 0], [0, 0, 1]])
    sheared = ewald(system._replace(cell=basis @ system.cell))
    assert sheared["energy"] == pytest.approx(ewald(system)["energy"], rel=1e-11)


def test_flat_layer_needs_no_correction():
    """Without a dipole a slab is a crystal with much vacuum."""
    positions = 4.1 * np.array([[0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0]])
    layer = System(positions, np.array([1.0, -1, 1, -1]), np.diag([4.1, 4.1, 40.0]), PERIODIC)
    assert ewald(layer)["energy"] == pytest.approx(ewald(layer._replace(pbc=SLAB))["energy"], rel=1e-12)


def test_cell_thinner_than_the_cutoff():
    system = crystal("NaCl")
    thin = random_system(11, 4, spacing=1.4)
    wide = supercell(thin._replace(energy=0.0), (3, 3, 3))
    assert ewald(wide, 0.5)["energy"] == pytest.approx(27 * ewald(thin, 0.5)["energy"], rel=1e-11)
    assert ewald(system, 0.2)["energy"] == pytest.approx(system.energy, rel=1e-11)


def test_permutation_and_threads():
    system = random_system(12, net=1.0)
    order = np.random.default_rng(0).permutation(24)
    result = ewald(system)
    permuted = ewald(system._replace(positions=system.positions[order], charges=system.charges[order]))
    np.testing.assert_allclose(permuted["potentials"], result["potentials"][order], rtol=1e-11)
    for key, values in ewald(system, threads=3).items():
        np.testing.assert_array_equal(values, result[key], err_msg=key)


def test_no_charges():
    empty = System(np.zeros((0, 3)), np.zeros(0), 5 * np.eye(3), PERIODIC)
    for pbc in BOUNDARIES.values():
        assert ewald(empty._replace(pbc=pbc))["energy"] == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pbc": [True, False, False]}, "periodic in one direction, but electrostatics needs 0, 2 or 3"),
        ({"charges": np.ones(3)}, "there are 3 charges, but 24 positions and 0 widths"),
        ({"widths": np.ones(2)}, "there are 24 charges, but 24 positions and 2 widths"),
        ({"charges": np.full(24, np.nan)}, "charge 0 is nan e, but charges must be finite"),
        ({"widths": np.full(24, -1.0)}, "the width of charge 0 is -1 Å, but widths must be finite"),
        ({"positions": np.zeros((24, 3))}, "are 0 Å apart, but they must be at least 0.001 Å apart"),
        ({"positions": np.zeros((24, 3)), "pbc": OPEN}, "charges 0 and 1 are 0 Å apart"),
        ({"positions": np.full((24, 3), np.inf)}, "positions must be finite"),
        ({"positions": np.full((24, 3), np.inf), "pbc": OPEN}, "positions must be finite"),
        ({"cell": np.zeros((3, 3))}, "thick along periodic direction 0"),
        ({"charges": np.ones((24, 2))}, r"charges has shape \(24, 2\), but \(n,\) is expected"),
    ],
)
def test_errors(change, message):
    with pytest.raises(EvaluationError, match=message):
        ewald(random_system(13)._replace(**change))


@pytest.mark.parametrize("splitting", [-1.0, np.inf])
def test_splitting_is_checked(splitting):
    with pytest.raises(EvaluationError, match=r"the splitting of Ewald's sum is .*must be positive"):
        ewald(random_system(14), splitting)
