"""What both suites do with a System."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import unit

PLATFORMS = ("Reference", "CPU")


def make_system(topology, *forces) -> openmm.System:
    """A System of the Topology's atoms and box with the forces."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    for force in forces:
        system.addForce(force)
    return system


def make_context(system, positions, platform="Reference", step_ps=0.0005) -> openmm.Context:
    """A Context of Verlet dynamics; positions in nm."""
    integrator = openmm.VerletIntegrator(step_ps)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(positions)
    return context


def energy_forces(context, groups=-1) -> tuple[float, np.ndarray]:
    """Potential energy in kJ/mol and forces in kJ/mol/nm."""
    state = context.getState(getEnergy=True, getForces=True, groups=groups)
    forces = state.getForces(asNumpy=True)
    return (
        state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole),
        forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer),
    )


def relative_errors(found, expected) -> tuple[float, float]:
    """|dE| / |E| and |dF|_2 / |F|_2."""
    return (
        abs(found[0] - expected[0]) / abs(expected[0]),
        np.linalg.norm(found[1] - expected[1]) / np.linalg.norm(expected[1]),
    )


def energy_drift(context, steps=1000, samples=20) -> tuple[float, float]:
    """NVE from 100 K: largest change of the total energy, and the mean kinetic energy, kJ/mol.

    Steps of 0.1 fs: potentials with random weights are rougher than trained ones.
    """
    context.getIntegrator().setStepSize(0.0001)
    context.setVelocitiesToTemperature(100, 1)
    totals, kinetic = [], []
    for _ in range(samples):
        context.getIntegrator().step(steps // samples)
        state = context.getState(getEnergy=True)
        kinetic.append(state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole))
        potential = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        totals.append(potential + kinetic[-1])
    return np.abs(np.array(totals) - totals[0]).max(), np.mean(kinetic)
