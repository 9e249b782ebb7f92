"""Molecular dynamics with the OpenMM force: energy conservation and barostats."""

import numpy as np
import pytest
from models_for_tests import REFERENCE_ENERGIES, random_structure, reference
from test_force import CUBIC, TRICLINIC, assert_same, energy_forces, make_context, make_system

openmm = pytest.importorskip("openmm", reason="openmm is not installed")
unit = openmm.unit

from nearsight import units  # noqa: E402
from nearsight.openmm import create_force  # noqa: E402


def fluctuation_of_total_energy(system, positions, step_ps, duration_ps=0.3):
    """Standard deviation of potential plus kinetic energy over a run, eV."""
    context = make_context(system, positions, integrator=openmm.VerletIntegrator(step_ps))
    context.setVelocitiesToTemperature(300, 1)
    integrator = context.getIntegrator()
    totals = []
    for _ in range(60):
        integrator.step(round(duration_ps / step_ps / 60))
        state = context.getState(getEnergy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        totals.append(total.value_in_unit(unit.kilojoule_per_mole) * units.KJ_PER_MOL)
    return np.std(totals)


@pytest.mark.parametrize("cell", [CUBIC, TRICLINIC], ids=["cubic", "triclinic"])
def test_energy_is_conserved(model, cell):
    """The fluctuation shrinks with the square of the time step: the forces are the energy's gradient."""
    positions, symbols = random_structure(11, 30, cell, minimum=2.0)
    system = make_system(symbols, cell)
    system.addForce(create_force(model, symbols, periodic=True, precision="double"))
    coarse, fine = (fluctuation_of_total_energy(system, positions, step) for step in (0.0005, 0.00025))
    assert fine < 1e-3
    assert coarse / fine == pytest.approx(4.0, rel=0.1)


BAROSTATS = {
    "isotropic": lambda: openmm.MonteCarloBarostat(2000.0, 300.0, 2),
    "anisotropic": lambda: openmm.MonteCarloAnisotropicBarostat(
        openmm.Vec3(2000.0, 2000.0, 2000.0), 300.0, True, True, True, 2
    ),
    "flexible": lambda: openmm.MonteCarloFlexibleBarostat(2000.0, 300.0, 2),
}


@pytest.mark.parametrize("kind", BAROSTATS)
@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_barostat(model, kind, platform):
    """After many attempts, taken and refused, energy and forces are those of the final box."""
    positions, symbols = random_structure(12, 20, TRICLINIC if kind == "flexible" else CUBIC, minimum=1.8)
    cell = TRICLINIC if kind == "flexible" else CUBIC
    system = make_system(symbols, cell)
    system.addForce(create_force(model, symbols, periodic=True, precision="double"))
    barostat = BAROSTATS[kind]()
    barostat.setRandomNumberSeed(5)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005)
    integrator.setRandomNumberSeed(7)
    context = make_context(system, positions, platform, integrator)
    integrator.step(100)
    state = context.getState(getPositions=True)
    box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
    final = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    assert abs(np.linalg.det(box) - np.linalg.det(cell)) > 1.0
    assert_same(energy_forces(context), reference(final, symbols, box, True), rtol=1e-10)


def test_an_isolated_atom_has_its_reference_energy(model):
    system = make_system(["O"])
    system.addForce(create_force(model, ["O"], periodic=False))
    energy, forces = energy_forces(make_context(system, np.zeros((1, 3))))
    assert energy == pytest.approx(REFERENCE_ENERGIES["O"], rel=1e-14)
    assert not forces.any()
