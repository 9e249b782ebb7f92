"""The module for OpenMM-Torch by contract: nm and kJ/mol, frozen, both precisions, own neighbor search."""

import numpy as np
import pytest
import torch

from nearsight.couple import evaluate
from nearsight.errors import ConfigError
from nearsight.export import export_torchforce, load, save_model, torchforce_module
from nearsight.export.torchscript import freeze
from nearsight.models import BPNNConfig, build_model
from nearsight.neighbors import make_graph
from nearsight.units import KJ_PER_MOL

ELEMENTS = ["O", "H", "H", "O", "H", "H"]
CELL = np.array([[6.0, 0.0, 0.0], [1.5, 5.5, 0.0], [-1.0, 0.7, 6.5]])  # Å; shorter than two cutoffs
ENERGIES = {"H": -13.6, "O": -2041.2}


def positions():
    water = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    return np.vstack([water, water[:, [2, 0, 1]] + [2.4, 1.5, 1.0]])


@pytest.fixture(scope="module", params=[1, 2], ids=["sum", "eigenstate"])
def path(request, tmp_path_factory):
    torch.manual_seed(5)
    model = build_model(BPNNConfig(cutoff=5.0, states=request.param), ["H", "O"])
    path = tmp_path_factory.mktemp("torchforce") / "model.pt"
    save_model(path, model, reference_energies=ENERGIES, reference_energies_source="given", provenance={})
    return path


def inputs(periodic, dtype=torch.float64):
    x = torch.tensor(0.1 * positions(), dtype=dtype, requires_grad=True)
    return (x, torch.tensor(0.1 * CELL, dtype=dtype)) if periodic else (x,)


def energy_and_forces(module, arguments):
    energy = module(*arguments)
    (gradient,) = torch.autograd.grad(energy, arguments[0])
    return energy.item(), -gradient.numpy()


def expected(path, periodic):
    """Energy in kJ/mol and forces in kJ/mol/nm through the graph of the core."""
    loaded = load(path)
    species = [loaded.metadata["species"].index(symbol) for symbol in ELEMENTS]
    graph = make_graph(positions(), species, CELL * periodic, [periodic] * 3, loaded.metadata["cutoff"])
    results = evaluate(loaded.module, graph, loaded.metadata["couple"])
    energy = results.energy.item() + sum(ENERGIES[symbol] for symbol in ELEMENTS)
    return energy / KJ_PER_MOL, results.forces.numpy() * 10.0 / KJ_PER_MOL


@pytest.mark.parametrize("periodic", [True, False])
def test_the_module_and_its_frozen_copy_give_the_model_in_openmm_units(path, periodic):
    module = torchforce_module(path, ELEMENTS, periodic=periodic)
    energy, forces = expected(path, periodic)
    scale = np.abs(forces).max()
    for candidate in (freeze(module), module):
        for _ in range(3):  # the first call after freezing is what OpenMM makes; later ones are specialized
            found = energy_and_forces(candidate, inputs(periodic))
            assert found[0] == pytest.approx(energy, rel=1e-13)
            assert found[1] == pytest.approx(forces, abs=1e-11 * scale)


@pytest.mark.parametrize("periodic", [True, False])
def test_frozen_forces_equal_differences_of_the_energy(path, periodic):
    module = freeze(torchforce_module(load(path), ELEMENTS, periodic=periodic))
    x, *box = inputs(periodic)
    _, forces = energy_and_forces(module, (x, *box))
    step = 1e-5
    with torch.no_grad():
        for place in [(0, 0), (1, 2), (4, 1)]:
            values = []
            for sign in (1, -1):
                moved = x.clone()
                moved[place] += sign * step
                values.append(module(moved, *box).item())
            slope = (values[1] - values[0]) / (2 * step)
            assert slope == pytest.approx(forces[place], abs=1e-5 * np.abs(forces).max())


def test_backward_works_as_openmm_torch_calls_it(path):
    module = freeze(torchforce_module(path, ELEMENTS, periodic=True))
    x, box = inputs(True)
    module(x, box).backward()
    assert -x.grad.numpy() == pytest.approx(expected(path, True)[1], rel=1e-9, abs=1e-6)


def test_single_precision_positions_are_computed_in_double(path):
    module = torchforce_module(path, ELEMENTS, periodic=True)
    single, double = inputs(True, torch.float32), inputs(True)
    energy = module(*single)
    assert energy.dtype == torch.float64
    (gradient,) = torch.autograd.grad(energy, single[0])
    assert gradient.dtype == torch.float32
    exact, forces = energy_and_forces(module, double)
    assert energy.item() == pytest.approx(exact, rel=1e-8)
    assert -gradient.numpy() == pytest.approx(forces, abs=1e-4 * np.abs(forces).max())


def test_unwrapped_positions_give_the_same(path):
    module = torchforce_module(path, ELEMENTS, periodic=True)
    x, box = inputs(True)
    shifts = torch.tensor(np.random.default_rng(0).integers(-3, 4, (6, 3)), dtype=torch.float64)
    energy, forces = energy_and_forces(module, (x, box))
    far = (x.detach() + shifts @ box).requires_grad_(True)
    elsewhere = energy_and_forces(module, (far, box))
    assert elsewhere[0] == pytest.approx(energy, rel=1e-13)
    assert elsewhere[1] == pytest.approx(forces, abs=1e-10 * np.abs(forces).max())


def test_atomic_numbers_stand_for_symbols_and_files_come_back(path, tmp_path):
    export_torchforce(tmp_path / "force.pt", path, [8, 1, 1, 8, 1, 1], periodic=False)
    module = torch.jit.load(tmp_path / "force.pt")
    energy, forces = expected(path, False)
    found = energy_and_forces(freeze(module), inputs(False))
    assert found[0] == pytest.approx(energy, rel=1e-13)
    assert found[1] == pytest.approx(forces, abs=1e-11 * np.abs(forces).max())


def test_what_does_not_fit_is_named(path):
    with pytest.raises(ConfigError, match="the model knows the species H, O, found C, Na"):
        torchforce_module(path, ["O", "C", 11], periodic=False)
    with pytest.raises(ConfigError, match="atomic numbers are 1 to 118, found 119"):
        torchforce_module(path, [119], periodic=False)
    module = torchforce_module(path, ELEMENTS, periodic=True)
    x, box = inputs(True)
    with pytest.raises(torch.jit.Error, match="made for 6 atoms, found 5"):
        module(x[:5], box)
    with pytest.raises(torch.jit.Error, match="box vectors are needed if and only if"):
        module(x)
