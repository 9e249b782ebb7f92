"""Charges that equilibrate: OpenMM, ASE and Python agree, also from step to step."""

import numpy as np
import pytest
from ase import Atoms
from core.equilibrated_files import equilibrated
from models_for_tests import random_structure
from test_force import TRICLINIC, energy_forces, make_context, make_system

openmm = pytest.importorskip("openmm", reason="openmm is not installed")

import nearsight  # noqa: E402
from nearsight.openmm import create_force  # noqa: E402


@pytest.mark.parametrize(("periodic", "efield"), [(True, None), (False, [1.0, -2.0, 3.0])])
def test_hosts_agree(tmp_path, periodic, efield):
    """efield in V/nm."""
    path = equilibrated(tmp_path, residual=1e-12, rtol=1e-8)[1]
    positions, _ = random_structure(1, 24, TRICLINIC)
    symbols = ["O", "H", "H"] * 8
    force = create_force(path, symbols, periodic=periodic, precision="double", charge=-1.5, efield=efield)
    system = make_system(symbols, TRICLINIC)
    system.addForce(force)
    context = make_context(system, positions)
    field = None if efield is None else 0.1 * np.array(efield)
    calculator = nearsight.Calculator(path, charge=-1.5, efield=field)
    atoms = Atoms(symbols, positions, cell=TRICLINIC, pbc=periodic, calculator=calculator)
    for step in range(4):
        moved = positions + 0.01 * step * np.sin(np.arange(72.0)).reshape(24, 3)
        atoms.positions = moved
        context.setPositions(0.1 * moved)
        energy, forces = energy_forces(context)
        fresh = nearsight.Potential(path).compute(moved, symbols, TRICLINIC, periodic, -1.5, field)
        assert energy == pytest.approx(fresh.energy, rel=1e-10)
        assert atoms.get_potential_energy() == pytest.approx(fresh.energy, rel=1e-10)
        scale = np.abs(fresh.forces).max()
        np.testing.assert_allclose(forces, fresh.forces, rtol=0, atol=1e-6 * scale)
        np.testing.assert_allclose(atoms.get_forces(), fresh.forces, rtol=0, atol=1e-6 * scale)
        np.testing.assert_allclose(atoms.get_charges(), fresh.charges[:, 0], rtol=0, atol=1e-6)
