"""Molecules that keep charges of their own in OpenMM: the core, bonds, XML, what is refused."""

import copy
import sys
import types

import numpy as np
import pytest
from core.charge_models import random_model
from core.equilibrated_files import equilibrated
from core.test_charge_models import save
from models_for_tests import random_structure
from test_force import TRICLINIC, energy_forces, make_context, make_system, water_topology

openmm = pytest.importorskip("openmm", reason="openmm is not installed")

from nearsight import Potential  # noqa: E402
from nearsight.errors import ConfigError, EvaluationError  # noqa: E402
from nearsight.interfaces.openmm_ml import NearsightPotentialFactory  # noqa: E402
from nearsight.openmm import SystemPotential, create_force  # noqa: E402

SYMBOLS = ["O", "H", "H"] * 8
NUMBERS = np.random.default_rng(3).integers(0, 3, 24) * 7 - 5
CHARGES = [1.0, -0.5, 0.25]
KEPT = {"molecules": NUMBERS, "molecule_charges": CHARGES}


@pytest.fixture(scope="module", params=["equilibrated", "latent"])
def path(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("molecules")
    if request.param == "equilibrated":
        return equilibrated(folder, residual=1e-12, rtol=1e-8)[1]
    return save(folder / "model.pt", random_model("latent"))


def bonded_waters(cell=None):
    topology = water_topology(cell)
    atoms = list(topology.atoms())
    for oxygen in (0, 3):
        for hydrogen in (1, 2):
            topology.addBond(atoms[oxygen + hydrogen], atoms[oxygen])
    return topology


@pytest.mark.parametrize(("periodic", "efield"), [(True, None), (False, [1.0, -2.0, 3.0])])
def test_the_core(path, periodic, efield):
    """From step to step, through copies and XML, and as reporters see it."""
    positions, _ = random_structure(1, 24, TRICLINIC)
    force = create_force(path, SYMBOLS, periodic=periodic, precision="double", efield=efield, **KEPT)
    xml = openmm.XmlSerializer.serialize(force)
    assert 'version="2"' in xml
    field = None if efield is None else 0.1 * np.array(efield)
    for other in (force, copy.deepcopy(force), openmm.XmlSerializer.deserialize(xml)):
        system = make_system(SYMBOLS, TRICLINIC)
        system.addForce(other)
        context = make_context(system, positions)
        for step in range(3):
            moved = positions + 0.01 * step * np.sin(np.arange(72.0)).reshape(24, 3)
            context.setPositions(0.1 * moved)
            energy, forces = energy_forces(context)
            expected = Potential(path).compute(moved, SYMBOLS, TRICLINIC, periodic, efield=field, **KEPT)
            assert energy == pytest.approx(expected.energy, rel=1e-10)
            scale = np.abs(expected.forces).max()
            np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=1e-6 * scale)
        found = SystemPotential(system).compute(context.getState(getPositions=True))
        assert found.energy == pytest.approx(energy, rel=1e-10)
        sums = [found.charges[number == NUMBERS, 0].sum() for number in np.unique(NUMBERS)]
        np.testing.assert_allclose(sums, CHARGES, rtol=0, atol=1e-12)


@pytest.mark.parametrize("particles", [None, [4, 0, 3, 2, 5]])
def test_molecules_of_bonds(path, particles):
    """Of those that the model sees; in the order of the Topology."""
    positions, _ = random_structure(1, 6, TRICLINIC / 2)
    force = create_force(
        path,
        bonded_waters(TRICLINIC),
        particles=particles,
        precision="double",
        molecules=True,
        molecule_charges=[1.0, -2.0],
    )
    system = make_system(SYMBOLS[:6], TRICLINIC)
    system.addForce(force)
    energy, _ = energy_forces(make_context(system, positions))
    chosen = list(range(6)) if particles is None else particles
    given = {"molecules": [i // 3 for i in chosen], "molecule_charges": [1.0, -2.0]}
    symbols = [SYMBOLS[i] for i in chosen]
    expected = Potential(path).compute(positions[chosen], symbols, TRICLINIC, True, **given)
    assert energy == pytest.approx(expected.energy, rel=1e-10)


def test_openmm_ml(path, monkeypatch):
    module = types.ModuleType("openmmml.mlpotential")
    module.MLPotentialImpl = type("MLPotentialImpl", (), {})
    monkeypatch.setitem(sys.modules, "openmmml", types.ModuleType("openmmml"))
    monkeypatch.setitem(sys.modules, "openmmml.mlpotential", module)
    potential = NearsightPotentialFactory().createImpl("nearsight", modelPath=path)
    positions, _ = random_structure(1, 6, TRICLINIC / 2)
    system, given = make_system(SYMBOLS[:6], TRICLINIC), {"molecules": True, "molecule_charges": 0.5}
    potential.addForces(bonded_waters(TRICLINIC), system, None, 0, precision="double", **given)
    energy, _ = energy_forces(make_context(system, positions))
    given["molecules"] = [0, 0, 0, 1, 1, 1]
    expected = Potential(path).compute(positions, SYMBOLS[:6], TRICLINIC, True, **given)
    assert energy == pytest.approx(expected.energy, rel=1e-10)


def test_forces_without_molecules_stay_readable(path):
    """By plugins that know none."""
    force = create_force(path, SYMBOLS, periodic=False, charge=1.0)
    assert 'version="1"' in openmm.XmlSerializer.serialize(force)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (KEPT | {"charge": 1.0}, ConfigError, "a total charge and molecules were given, which have charges"),
        (
            {"molecules": True},
            ConfigError,
            "molecules=True takes molecules from the bonds of a Topology, fou",
        ),
        (
            {"molecules": [0]},
            EvaluationError,
            r"molecules have shape \(1,\) and type int64, expected a whole",
        ),
        ({"molecule_charges": 0.0}, EvaluationError, "charges of molecules were given, but not which atoms"),
    ],
)
def test_what_is_refused(path, given, error, message):
    with pytest.raises(error, match=message):
        create_force(path, SYMBOLS, periodic=False, **given)
    if given == {"molecules": True}:
        with pytest.raises(error, match=message):
            create_force(path, water_topology(), **given)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            ' molecule="1"',
            ' molecule="9"',
            "molecule 9 of a particle is not one of 2 with charges, counted fr",
        ),
        (' molecule="1"', "", "1 molecules but 2 species were given; give the molecule of each particle"),
        ('charge="2"', 'charge="nan"', "the charge of a molecule must be a number of e, not nan"),
    ],
)
def test_damaged_xml(path, old, new, message):
    given = {"molecules": [0, 1], "molecule_charges": [0.5, 2.0]}
    xml = openmm.XmlSerializer.serialize(create_force(path, ["H", "O"], periodic=False, **given))
    assert old in xml
    with pytest.raises(openmm.OpenMMException, match=f"nearsight: {message}"):
        openmm.XmlSerializer.deserialize(xml.replace(old, new))


def test_models_without_electrostatics(model):
    system = make_system(["H", "O"])
    system.addForce(create_force(model, ["H", "O"], periodic=False, molecules=[0, 0]))
    with pytest.raises(openmm.OpenMMException, match=r"the charge of a molecule was given, but '.*' has no"):
        energy_forces(make_context(system, [[0.0, 0, 0], [2.0, 0, 0]]))
