"""The openmm-ml entry point without openmm-ml; `make test-openmm-ml` runs the real one."""

import subprocess
import sys
import types

import pytest
from models_for_tests import random_structure, reference
from test_force import CUBIC, assert_same, energy_forces, make_context, make_system, water_topology

openmm = pytest.importorskip("openmm", reason="openmm is not installed")

from nearsight.errors import ConfigError  # noqa: E402
from nearsight.interfaces.openmm_ml import NearsightPotentialFactory  # noqa: E402


def test_import_needs_nothing():
    """`import openmmml` loads the entry point and calls it: nothing there may fail, whatever is missing."""
    code = """
import sys
for name in ("numpy", "torch", "ase", "openmm", "openmmml", "nearsight.lib", "nearsight.lib._core"):
    sys.modules[name] = None
from nearsight.interfaces.openmm_ml import NearsightPotentialFactory
NearsightPotentialFactory()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def base(monkeypatch):
    """A stand-in for openmm-ml with the one class that is used."""
    package, module = types.ModuleType("openmmml"), types.ModuleType("openmmml.mlpotential")
    module.MLPotentialImpl = type("MLPotentialImpl", (), {})
    monkeypatch.setitem(sys.modules, "openmmml", package)
    monkeypatch.setitem(sys.modules, "openmmml.mlpotential", module)
    return module.MLPotentialImpl


def test_potential(base, model):
    potential = NearsightPotentialFactory().createImpl("nearsight", modelPath=model)
    assert isinstance(potential, base)
    assert potential.getMLLongRange() is False


@pytest.mark.parametrize("atoms", [None, (5, 3, 4)], ids=["all", "some"])
@pytest.mark.parametrize("cell", [None, CUBIC], ids=["molecule", "box"])
def test_forces_are_added(base, model, atoms, cell):
    chosen = list(range(6) if atoms is None else atoms)
    positions, _ = random_structure(1, 6, CUBIC / 3)
    symbols = ["O", "H", "H"] * 2
    system = make_system(symbols, cell)
    potential = NearsightPotentialFactory().createImpl("nearsight", modelPath=model)
    iterable = None if atoms is None else iter(atoms)
    potential.addForces(water_topology(cell), system, iterable, 4, precision="double", mlLongRange=False)
    energy, forces = energy_forces(make_context(system, positions), {4})
    periodic = cell is not None
    expected = reference(positions[chosen], [symbols[i] for i in chosen], CUBIC, periodic)
    assert_same((energy, forces[chosen]), expected)


def test_a_periodic_system_makes_a_periodic_force(base, model):
    """A Topology without a box, as openmm-ml may have it, in a System that has one."""
    system = make_system(["O", "H", "H"] * 2, CUBIC)
    other = openmm.CustomNonbondedForce("0")
    other.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    system.addForce(other)
    NearsightPotentialFactory().createImpl("nearsight", modelPath=model).addForces(
        water_topology(), system, None, 0
    )
    assert system.getForce(1).usesPeriodicBoundaryConditions()


def test_missing_path():
    with pytest.raises(ConfigError) as caught:
        NearsightPotentialFactory().createImpl("nearsight")
    assert str(caught.value) == (
        'MLPotential("nearsight") needs a model file: MLPotential("nearsight", modelPath="model.pt")'
    )
