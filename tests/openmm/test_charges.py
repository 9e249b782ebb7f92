"""Models with electrostatics in OpenMM: against the core in one call, and as an OpenMM object."""

import copy
import sys
import types

import numpy as np
import pytest
import torch
from models_for_tests import random_structure
from test_force import TRICLINIC, energy_forces, make_context, make_system, water_topology

openmm = pytest.importorskip("openmm", reason="openmm is not installed")

from nearsight import Potential  # noqa: E402
from nearsight.export import save_model  # noqa: E402
from nearsight.interfaces.openmm_ml import NearsightPotentialFactory  # noqa: E402
from nearsight.models import BPNNConfig, LongRangeConfig, MACEConfig, build_model  # noqa: E402
from nearsight.openmm import SystemPotential, create_force  # noqa: E402

KINDS = {
    "fixed": {"charges": "fixed", "values": {"H": 0.4, "O": -0.8, "Si": 1.6}},
    "environment": {"charges": "environment", "weighted": True},
    "latent": {"charges": "latent", "channels": 2},
    "mace": {"charges": "latent", "weighted": True},
}
MESSAGES = MACEConfig(cutoff=4.0, channels=3, num_interactions=2, l_max=1, correlation=2)
ENERGIES = {"H": -13.6, "O": -2043.0, "Si": -7800.0}


def save(folder, kind):
    torch.manual_seed(3)
    config = MESSAGES if kind == "mace" else BPNNConfig(cutoff=4.0, hidden=[8])
    model = build_model(config, ["H", "O", "Si"], LongRangeConfig(**KINDS[kind]))
    source = {"reference_energies": ENERGIES, "reference_energies_source": "given"}
    save_model(folder / "model.pt", model, **source, provenance={})
    return folder / "model.pt"


@pytest.fixture(scope="module", params=KINDS)
def charged(request, tmp_path_factory):
    return save(tmp_path_factory.mktemp("charges"), request.param)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    return save(tmp_path_factory.mktemp("charges"), "fixed")


def total(path, symbols):
    values = KINDS["fixed"]["values"]
    fixed = Potential(path).metadata["couple"]["charges"] == "fixed"
    return float(sum(values[symbol] for symbol in symbols)) if fixed else -1.5


@pytest.mark.parametrize("periodic", [True, False])
def test_the_core(charged, periodic):
    positions, symbols = random_structure(1, 24, TRICLINIC)
    charge = total(charged, symbols)
    force = create_force(charged, symbols, periodic=periodic, precision="double", charge=charge)
    system = make_system(symbols, TRICLINIC)
    system.addForce(force)
    energy, forces = energy_forces(make_context(system, positions))
    expected = Potential(charged).compute(positions, symbols, TRICLINIC, periodic, charge)
    assert energy == pytest.approx(expected.energy, rel=1e-11)
    np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=1e-9 * np.abs(expected.forces).max())


def test_openmm_ml(charged, monkeypatch):
    """Of a mixed system it wants to know whether the model reaches far; the charge is a keyword."""
    module = types.ModuleType("openmmml.mlpotential")
    module.MLPotentialImpl = type("MLPotentialImpl", (), {})
    monkeypatch.setitem(sys.modules, "openmmml", types.ModuleType("openmmml"))
    monkeypatch.setitem(sys.modules, "openmmml.mlpotential", module)
    potential = NearsightPotentialFactory().createImpl("nearsight", modelPath=charged)
    assert potential.getMLLongRange() is True
    positions, _ = random_structure(1, 6, TRICLINIC / 2)
    symbols = ["O", "H", "H"] * 2
    system, charge = make_system(symbols, TRICLINIC), total(charged, symbols)
    potential.addForces(water_topology(TRICLINIC), system, None, 0, precision="double", charge=charge)
    energy, _ = energy_forces(make_context(system, positions))
    expected = Potential(charged).compute(positions, symbols, TRICLINIC, True, charge)
    assert energy == pytest.approx(expected.energy, rel=1e-11)


def test_copies_and_xml_keep_the_charge(charged):
    positions, symbols = random_structure(1, 12, TRICLINIC)
    charge = total(charged, symbols)
    force = create_force(charged, symbols, periodic=True, precision="double", charge=charge)
    text = openmm.XmlSerializer.serialize(force)
    energies = []
    for other in (force, copy.deepcopy(force), openmm.XmlSerializer.deserialize(text)):
        system = make_system(symbols, TRICLINIC)
        system.addForce(other)
        context = make_context(system, positions)
        energies.append(energy_forces(context)[0])
        state = context.getState(getPositions=True)
        assert SystemPotential(system).compute(state).energy == pytest.approx(energies[0], rel=1e-11)
    assert energies[1:] == energies[:1] * 2


def test_a_charge_without_electrostatics(model):
    system = make_system(["H", "O"])
    system.addForce(create_force(model, ["H", "O"], periodic=False, charge=1.0))
    with pytest.raises(openmm.OpenMMException, match=r"total charge was given, but '.*' has no electros"):
        energy_forces(make_context(system, [[0.0, 0, 0], [2.0, 0, 0]]))


def test_a_charge_that_is_no_number(model):
    with pytest.raises(openmm.OpenMMException, match="nearsight: the total charge must be a number of e"):
        create_force(model, ["H", "O"], periodic=False, charge=float("nan"))


def test_fixed_charges_that_do_not_add_up(fixed):
    system = make_system(["H", "O"], 12 * np.eye(3))
    system.addForce(create_force(fixed, ["H", "O"], periodic=True))
    context = make_context(system, [[0.0, 0, 0], [2.0, 0, 0]])
    with pytest.raises(openmm.OpenMMException, match=r"the fixed charges of the atoms add up to -0\.4 e"):
        energy_forces(context)
