"""The real TorchForce, on the module that nearsight makes for it, against the compiled force."""

import numpy as np
import openmm
import openmmtorch
import pytest
import torch
from side import PLATFORMS, energy_drift, energy_forces, make_context, make_system, relative_errors

from nearsight.export import export_torchforce
from nearsight.openmm import create_force, torchforce_module


def torch_force(model, topology, periodic=True):
    symbols = [atom.element.symbol for atom in topology.atoms()]
    force = openmmtorch.TorchForce(torchforce_module(model, symbols, periodic=periodic))
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("periodic", [True, False], ids=["periodic", "molecules"])
def test_same_as_the_compiled_force(model, water, platform, periodic):
    topology, positions = water
    ours = make_system(topology, create_force(model, topology, periodic=periodic, precision="double"))
    theirs = make_system(topology, torch_force(model, topology, periodic))
    errors = relative_errors(*(energy_forces(make_context(s, positions, platform)) for s in (theirs, ours)))
    print(f"{model.stem} {platform} periodic={periodic}: relative errors of energy and forces {errors}")
    assert max(errors) < 1e-10


@pytest.mark.parametrize("platform", PLATFORMS)
def test_energy_is_conserved_over_1000_steps(model, water, platform):
    topology, positions = water
    context = make_context(make_system(topology, torch_force(model, topology)), positions, platform)
    change, kinetic = energy_drift(context)
    print(f"{model.stem} {platform}: energy changed by {change:.2e}, kinetic energy {kinetic:.1f} kJ/mol")
    assert change < 0.01 * kinetic


@pytest.mark.parametrize("platform", PLATFORMS)
def test_xml_round_trip(model, water, platform):
    topology, positions = water
    system = make_system(topology, torch_force(model, topology))
    copied = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    assert isinstance(openmmtorch.TorchForce.cast(copied.getForce(0)), openmmtorch.TorchForce)
    found, expected = (energy_forces(make_context(s, positions, platform)) for s in (copied, system))
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])


def test_from_an_exported_file(model, water, tmp_path):
    topology, positions = water
    symbols = [atom.element.symbol for atom in topology.atoms()]
    export_torchforce(tmp_path / "force.pt", model, symbols, periodic=True)
    force = openmmtorch.TorchForce(str(tmp_path / "force.pt"))
    force.setUsesPeriodicBoundaryConditions(True)
    systems = make_system(topology, force), make_system(topology, torch_force(model, topology))
    found, expected = (energy_forces(make_context(system, positions)) for system in systems)
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])


def test_freezing_keeps_the_forces(model, water):
    """openmm-torch freezes the module; torch.jit.freeze removes .detach(), which can silence gradients."""
    topology, positions = water
    symbols = [atom.element.symbol for atom in topology.atoms()]
    module = torchforce_module(model, symbols, periodic=False)
    x = torch.tensor(positions, requires_grad=True)
    plain, frozen = (torch.autograd.grad(m(x), x)[0] for m in (module, torch.jit.freeze(module.eval())))
    assert plain.abs().max() > 1.0
    torch.testing.assert_close(frozen, plain, rtol=1e-10, atol=1e-10)
