"""The real openmm-ml: MLPotential("nearsight") for whole and for mixed Systems."""

import subprocess
import sys

import numpy as np
import openmm
import pytest
from openmm import app
from openmmml import MLPotential
from side import PLATFORMS, energy_drift, energy_forces, make_context, make_system, relative_errors

from nearsight.errors import ConfigError, ModelFileError
from nearsight.openmm import create_force

ML_ATOMS = [3, 4, 5, 9, 10, 11]  # two of the molecules


def energy_at(system, positions, platform="Reference", **parameters):
    context = make_context(system, positions, platform)
    for name, value in parameters.items():
        context.setParameter(name, value)
    return energy_forces(context)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_whole_system(model, water, platform):
    topology, positions = water
    system = MLPotential("nearsight", modelPath=model).createSystem(topology, precision="double")
    ours = make_system(topology, create_force(model, topology, precision="double"))
    errors = relative_errors(energy_at(system, positions, platform), energy_at(ours, positions, platform))
    assert max(errors) < 1e-12


@pytest.mark.parametrize("platform", PLATFORMS)
def test_energy_is_conserved_over_1000_steps(model, water, platform):
    topology, positions = water
    system = MLPotential("nearsight", modelPath=model).createSystem(topology)
    change, kinetic = energy_drift(make_context(system, positions, platform))
    print(f"{model.stem} {platform}: energy changed by {change:.2e}, kinetic energy {kinetic:.1f} kJ/mol")
    assert change < 0.01 * kinetic


def mm_system(topology, method=app.PME):
    """Rigid TIP3P water."""
    return app.ForceField("tip3p.xml").createSystem(
        topology, nonbondedMethod=method, nonbondedCutoff=0.39, switchDistance=0.3, removeCMMotion=False
    )


def mixed_system(model, topology, atoms=ML_ATOMS, method=app.PME, **arguments):
    potential = MLPotential("nearsight", modelPath=model)
    return potential.createMixedSystem(
        topology, mm_system(topology, method), atoms, forceGroup=7, precision="double", **arguments
    )


@pytest.mark.parametrize("kind", ["whole", "mixed", "interpolated"])
def test_xml_round_trip(model, water, kind):
    topology, positions = water
    system = {
        "whole": lambda: MLPotential("nearsight", modelPath=model).createSystem(topology),
        "mixed": lambda: mixed_system(model, topology),
        "interpolated": lambda: mixed_system(model, topology, interpolate=True),
    }[kind]()
    copied = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    found, expected = energy_at(copied, positions), energy_at(system, positions)
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_mixed_system_uses_the_model_for_its_atoms(model, water, platform):
    topology, positions = water
    context = make_context(mixed_system(model, topology), positions, platform)
    energy, forces = energy_forces(context, {7})
    subset = create_force(model, topology, particles=ML_ATOMS, precision="double")
    expected = energy_at(make_system(topology, subset), positions, platform)
    assert max(relative_errors((energy, forces), expected)) < 1e-12
    assert not np.delete(forces, ML_ATOMS, axis=0).any()
    assert abs(energy_forces(context, set(range(32)) - {7})[0]) > 1.0


def test_interpolation_between_force_field_and_model(model, water):
    """One molecule: between several, openmm-ml adds Lennard-Jones beyond the cutoff at lambda = 0."""
    topology, positions = water
    system = mixed_system(model, topology, ML_ATOMS[:3], interpolate=True)
    ends = [energy_at(system, positions, lambda_interpolate=value) for value in (0.0, 1.0)]
    for found, plain in zip(ends, (mm_system(topology), mixed_system(model, topology, ML_ATOMS[:3]))):
        assert max(relative_errors(found, energy_at(plain, positions))) < 1e-6
    middle = energy_at(system, positions, lambda_interpolate=0.5)
    assert middle[0] == pytest.approx(0.5 * (ends[0][0] + ends[1][0]), rel=1e-10)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_mixed_system_conserves_energy_over_1000_steps(model, water, platform):
    """Constraints keep the molecules together, which untrained models would not."""
    topology, positions = water
    system = mixed_system(model, topology, method=app.CutoffPeriodic, removeConstraints=False)
    context = make_context(system, positions, platform)
    openmm.LocalEnergyMinimizer.minimize(context)
    change, kinetic = energy_drift(context)
    print(f"{model.stem} {platform}: energy changed by {change:.2e}, kinetic energy {kinetic:.1f} kJ/mol")
    assert change < 0.02 * kinetic


def test_range_is_told_truthfully(model, water):
    """A local model: mlLongRange is known, so that saying it again is refused by openmm-ml."""
    topology, _ = water
    with pytest.raises(ValueError, match="mlLongRange"):
        mixed_system(model, topology, mlLongRange=True)


def test_missing_path_and_file(tmp_path, water):
    with pytest.raises(ConfigError, match=r"modelPath"):
        MLPotential("nearsight")
    with pytest.raises(ModelFileError, match=r"there is no such model file"):
        MLPotential("nearsight", modelPath=tmp_path / "absent.pt").createSystem(water[0])


def test_a_failure_of_ours_does_not_break_openmm_ml():
    """Without our compiled core, other potentials must still be there."""
    code = """
import sys
for name in ("nearsight.lib", "nearsight.lib._core", "nearsight.interfaces.openmm", "nearsight.errors"):
    sys.modules[name] = None
import openmmml
assert "ani2x" in openmmml.MLPotential._implFactories
"""
    subprocess.run([sys.executable, "-c", code], check=True)
