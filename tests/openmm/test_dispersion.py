"""Models with dispersion in OpenMM: against the core in one call."""

import numpy as np
import pytest
from dispersion_for_tests import record_of
from models_for_tests import random_structure
from test_force import TRICLINIC, energy_forces, make_context, make_system

openmm = pytest.importorskip("openmm", reason="openmm is not installed")

from nearsight import Potential  # noqa: E402
from nearsight.export import save_model  # noqa: E402
from nearsight.models import NoLocalEnergy  # noqa: E402
from nearsight.openmm import create_force  # noqa: E402


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path, symbols = tmp_path_factory.mktemp("dispersion") / "d3.pt", ["H", "O", "Si"]
    energies = {"reference_energies": dict.fromkeys(symbols, 0.0), "reference_energies_source": "none"}
    save_model(path, NoLocalEnergy(symbols), **energies, provenance={}, dispersion=record_of(symbols))
    return path


@pytest.mark.parametrize("periodic", [True, False])
def test_the_core(alone, periodic):
    positions, symbols = random_structure(1, 24, TRICLINIC)
    system = make_system(symbols, TRICLINIC)
    system.addForce(create_force(alone, symbols, periodic=periodic, precision="double"))
    energy, forces = energy_forces(make_context(system, positions))
    expected = Potential(alone).compute(positions, symbols, TRICLINIC, periodic)
    assert energy == pytest.approx(expected.energy, rel=1e-11)
    np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=1e-11)


def test_particles_of_a_mixed_system(alone):
    """Of some of the particles, as of those of a solute."""
    positions, symbols = random_structure(2, 20, TRICLINIC)
    chosen = [3, 4, 7, 8, 9, 15]
    system = make_system(symbols, TRICLINIC)
    some = [symbols[k] for k in chosen]
    system.addForce(create_force(alone, some, particles=chosen, periodic=True, precision="double"))
    energy, _ = energy_forces(make_context(system, positions))
    expected = Potential(alone).compute(positions[chosen], some, TRICLINIC, True)
    assert energy == pytest.approx(expected.energy, rel=1e-11)
