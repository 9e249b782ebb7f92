"""Models with equilibrated charges from the configuration to the file and to torchforce."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from core.charge_models import CELLS, REFERENCE_ENERGIES, SPECIES, case, charged_of, graph_of
from core.equilibrated_models import GIVEN, equilibrated_model

from nearsight import Potential, keys
from nearsight.couple import evaluate, present_couple, settle
from nearsight.data import Frame, read_frames, write_extxyz
from nearsight.errors import ConfigError
from nearsight.export import read_metadata, save_model, torchforce_module
from nearsight.export.torchscript import freeze
from nearsight.interfaces.predictions import predict
from nearsight.models import BPNNConfig, LongRangeConfig, PaiNNConfig, build_model
from nearsight.training import plots, read_checkpoint, train
from nearsight.training.config_file import parse_config
from nearsight.training.logbook import read_metrics
from nearsight.units import KJ_PER_MOL

RUNS = {"learned": {}, "given": GIVEN}


def save(path, model):
    source = {"reference_energies": REFERENCE_ENERGIES, "reference_energies_source": "given"}
    save_model(path, model, **source, provenance={})
    return path


def labelled(count=12):
    """Frames with labels of a random model; every cell, every second one charged."""
    model, frames, rng = settle(equilibrated_model()), [], np.random.default_rng(5)
    for number in range(count):
        one = case(list(CELLS)[number % 4], bool(number % 2), "")
        one = one._replace(positions=one.positions + rng.normal(scale=0.05, size=one.positions.shape))
        found = evaluate(model, graph_of(one), model.couple, charged=charged_of(model, one))
        labels = {
            keys.ENERGY: found.energy.item() - 10.0 * len(one.species),
            keys.FORCES: found.forces.numpy(),
            keys.CHARGES: found.charges[:, 0].numpy(),
        }
        symbols = [SPECIES[z] for z in one.species]
        info = {"total_charge": one.charge}
        frames.append(Frame(one.positions, symbols, one.cell, one.pbc, labels=labels, info=info))
    return frames


@pytest.fixture(scope="module", params=RUNS)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_extxyz(folder / "data.xyz", labelled())
    values = {
        "data": {"training": str(folder / "data.xyz"), "validation": 2},
        "model": {"cutoff": 4.0, "hidden": [8]},
        "long_range": {"charges": "equilibrated", **RUNS[request.param]},
        "training": {
            "epochs": 6,
            "batch_size": 1,
            "learning_rate": 0.02,
            "schedule": {"kind": "constant", "warmup_steps": 0},
            "loss": {"charges": 10.0},
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "plot_parity", lambda *_, **__: [])
        patch.setattr(plots, "plot_history", lambda *_: None)
        train(parse_config(values | {"training": values["training"] | {"epochs": 3}}), folder / "run")
        train(parse_config(values), folder / "run", restart=True)
    return request.param, folder


def test_training_lowers_the_loss_and_goes_on_from_a_checkpoint(trained):
    _, folder = trained
    rows = read_metrics(folder / "run")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["validation_loss"] < 0.7 * rows[0]["validation_loss"]


def test_the_file_has_what_was_learned(trained):
    kind, folder = trained
    metadata = read_metadata(folder / "run" / "model.pt")
    couple, content = metadata["couple"], read_checkpoint(folder / "run" / "checkpoints" / "best.ckpt")
    assert [readout["name"] for readout in metadata["readouts"]] == ["energy", "electronegativity"]
    assert couple["charges"] == "equilibrated" and couple["residual"] == 1e-6
    hardness = [GIVEN["hardness"][symbol] for symbol in metadata["species"]]
    changed = {"learned": couple["hardness"] != [12.0, 12.0], "given": couple["hardness"] == hardness}
    assert changed[kind]
    names = [name for name in content["model"] if name.startswith("learned_numbers")]
    assert len(names) == {"learned": 4, "given": 0}[kind]


def test_the_run_has_the_errors_that_the_core_has(trained):
    _, folder = trained
    errors = json.loads((folder / "run" / "results.json").read_text())
    model, frames = Potential(folder / "run" / "model.pt"), read_frames(folder / "data.xyz")
    numbers = np.loadtxt(folder / "run" / "split" / "validation.txt", dtype=int)
    found = [predict(model, frames[n]) for n in numbers]
    for name in (keys.FORCES, keys.CHARGES):
        differences = [(one[name] - frames[n].labels[name]).ravel() for n, one in zip(numbers, found)]
        rmse = 1000 * np.sqrt(np.mean(np.concatenate(differences) ** 2))
        assert errors["validation"][name]["rmse"] == pytest.approx(rmse, rel=2e-3)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save(tmp_path_factory.mktemp("equilibrated") / "model.pt", equilibrated_model())


@pytest.mark.parametrize("cell", ["open", "triclinic"])
def test_torchforce(path, cell):
    """The frozen module has the energy and forces of the torch module."""
    model, one = settle(equilibrated_model()), case(cell, True, "")
    symbols, periodic = [SPECIES[z] for z in one.species], cell != "open"
    arguments = {"periodic": periodic, "charge": one.charge}
    if periodic:
        arguments |= {"positions": one.positions, "cell": one.cell}
    module = freeze(torchforce_module(path, symbols, **arguments))
    x = torch.tensor(0.1 * one.positions, requires_grad=True)
    inputs = (x, torch.tensor(0.1 * one.cell)) if periodic else (x,)
    expected = evaluate(model, graph_of(one), model.couple, charged=charged_of(model, one))
    reference = sum(REFERENCE_ENERGIES[symbol] for symbol in symbols)
    for _ in range(3):
        energy = module(*inputs)
        (gradient,) = torch.autograd.grad(energy, x)
        assert energy.item() * KJ_PER_MOL == pytest.approx(expected.energy.item() + reference, rel=1e-12)
        forces = -0.1 * KJ_PER_MOL * gradient.numpy()
        np.testing.assert_allclose(forces, expected.forces.numpy(), atol=1e-11)


@pytest.mark.parametrize("architecture", ["mace", "mace with messages", "painn"])
def test_files_of_message_passing(architecture, tmp_path):
    torch.manual_seed(3)
    painn = PaiNNConfig(cutoff=4.0, channels=4, num_interactions=2)
    build = {"painn": lambda: build_model(painn, SPECIES, LongRangeConfig(charges="equilibrated"))}
    model = settle(build.get(architecture, lambda: equilibrated_model(architecture))())
    found = Potential(save(tmp_path / "model.pt", model)).compute_indices(*case("open", True, ""))
    one = case("open", True, "")
    expected = evaluate(model, graph_of(one), model.couple, charged=charged_of(model, one))
    np.testing.assert_allclose(found.charges, expected.charges.numpy(), rtol=0, atol=1e-5)
    scale = np.abs(found.forces).max()
    np.testing.assert_allclose(found.forces, expected.forces.numpy(), rtol=0, atol=1e-5 * scale)


def test_models_on_principal_directions_keep_what_is_learned():
    config = BPNNConfig(cutoff=4.0, descriptor={"kind": "soap", "n_max": 2, "l_max": 1}, directions=5)
    model = build_model(config, SPECIES, LongRangeConfig(charges="equilibrated"))
    trained = model.on_inputs()
    assert trained is not model and present_couple(trained)["widths"].requires_grad
    assert trained.learned_numbers is model.learned_numbers
    names = [[name for name, _ in one.named_parameters()] for one in (model, trained)]
    assert names[0] == names[1]


def test_torchforce_in_a_field(path):
    model, one = settle(equilibrated_model()), case("open", True, "")
    symbols = [SPECIES[z] for z in one.species]
    module = torchforce_module(path, symbols, periodic=False, charge=one.charge, efield=[3.0, -2.0, 5.0])
    x = torch.tensor(0.1 * one.positions, requires_grad=True)
    energy = module(x)
    (gradient,) = torch.autograd.grad(energy, x)
    field = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    charged = charged_of(model, one)._replace(field=field)
    expected = evaluate(model, graph_of(one), model.couple, charged=charged)
    reference = sum(REFERENCE_ENERGIES[symbol] for symbol in symbols)
    assert energy.item() * KJ_PER_MOL == pytest.approx(expected.energy.item() + reference, rel=1e-12)
    forces = -0.1 * KJ_PER_MOL * gradient.numpy()
    np.testing.assert_allclose(forces, expected.forces.numpy(), atol=1e-11)


def test_systems_that_torchforce_does_not_take(path):
    with pytest.raises(
        ConfigError, match=r"a dense matrix, of at most 512 atoms, found 513: take the force of n"
    ):
        torchforce_module(path, ["H"] * 513, periodic=False)


def test_levenberg_marquardt_refuses_charges(tmp_path):
    write_extxyz(tmp_path / "data.xyz", labelled(4))
    values = {
        "data": {"training": str(tmp_path / "data.xyz"), "validation": 1},
        "model": {"cutoff": 4.0, "hidden": [4]},
        "long_range": {"charges": "equilibrated"},
        "training": {"epochs": 1, "optimizer": {"kind": "levenberg_marquardt"}},
    }
    with pytest.raises(
        ConfigError, match="levenberg_marquardt trains networks with one energy per atom, but"
    ):
        train(parse_config(values), tmp_path / "run", dry_run=True)
