"""Models with charges from the configuration to the file: what is refused, a run, what the file says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from core.charge_models import CELLS, KINDS, SPECIES, case, charged_of, graph_of, random_model

from nearsight import Potential, keys
from nearsight.couple import ChargedStructure, CoulombCouple, FrameCharger, evaluate
from nearsight.data import Frame, read_frames, write_extxyz
from nearsight.data.frame import total_charge
from nearsight.data.hdf5 import write_hdf5
from nearsight.errors import ConfigError, DataError, ModelFileError
from nearsight.export import load, read_metadata, save_model, torchforce_module
from nearsight.export.describe import describe
from nearsight.export.torchscript import freeze
from nearsight.interfaces.predictions import predict
from nearsight.models import LinearConfig, LongRangeConfig, PaiNNConfig, build_model
from nearsight.models.bpnn import BPNNConfig
from nearsight.training import plots, train
from nearsight.training.config_file import parse_config
from nearsight.units import KJ_PER_MOL

DATA = {"data": {"training": "x.xyz"}}


@pytest.mark.parametrize(
    ("long_range", "message"),
    [
        ({}, "long_range.charges is missing from the configuration"),
        ({"charges": "free"}, "long_range.charges is 'free', expected 'fixed', 'environment', 'latent' or"),
        (
            {"charges": "fixed"},
            "long_range: values {H: 0.4, …} are needed for fixed charges, and",
        ),
        ({"charges": "latent", "values": {"H": 1.0}}, "are needed for fixed charges, and for them alone"),
        (
            {"charges": "fixed", "values": {"H": 1.0}, "weighted": True},
            "not projected to a total",
        ),
        (
            {"charges": "environment", "channels": 2},
            "only latent charges have several channels, found 2",
        ),
        (
            {"charges": "latent", "widths": -1.0},
            "long_range.widths is -1.0, expected greater than",
        ),
        ({"charges": "latent", "rtol": 0.5}, "long_range.rtol is 0.5, expected less than or equal to 0.01"),
        ({"charges": "latent", "width": 1.0}, "Unknown key 'width' in long_range; did you mean 'widths'?"),
    ],
)
def test_what_the_section_refuses(long_range, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(DATA | {"long_range": long_range})
    assert message in str(caught.value)


@pytest.mark.parametrize("long_range", [None, {"charges": "latent"}])
def test_a_loss_of_charges_needs_charges_of_the_environment(long_range):
    values = DATA | {"long_range": long_range, "training": {"loss": {"charges": 1.0}}}
    with pytest.raises(ConfigError, match=r"training\.loss\.charges is 1, but only long_range\.charges: env"):
        parse_config(values)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("dipole", "environment, latent or equilibrated"), ("born_charges", "environment or latent")],
)
@pytest.mark.parametrize("long_range", [None, KINDS["fixed"]])
def test_a_loss_of_dipoles_needs_charges_that_are_trained(long_range, name, kinds):
    values = DATA | {"long_range": long_range, "training": {"loss": {name: 2.0}}}
    message = rf"training\.loss\.{name} is 2, but only long_range\.charges: {kinds} gives {name}"
    with pytest.raises(ConfigError, match=message):
        parse_config(values)


def test_defaults_of_latent_charges():
    config = LongRangeConfig(charges="latent", channels=2)
    assert config.couple(SPECIES) == {
        "kind": "coulomb",
        "charges": "latent",
        "channels": 2,
        "widths": [1.0, 1.0],
        "weighted": False,
        "rtol": 1e-4,
    }
    assert LongRangeConfig(charges="latent", widths=None).couple(SPECIES)["widths"] is None


@pytest.mark.parametrize(
    ("config", "long_range", "message"),
    [
        (
            LinearConfig(architecture="linear"),
            {"charges": "environment"},
            "linear models, which are solved",
        ),
        (
            LinearConfig(architecture="linear"),
            KINDS["fixed"],
            "linear models, which are solved",
        ),
        (BPNNConfig(states=2), KINDS["latent"], "long_range needs a model with one trained energy"),
        (
            BPNNConfig(),
            {"charges": "fixed", "values": {"H": 1.0}},
            "values has numbers for H, but",
        ),
        (
            BPNNConfig(),
            {"charges": "latent", "widths": {"O": 1.0, "Na": 1.0}},
            "widths has numbers for Na",
        ),
    ],
)
def test_models_that_cannot_have_such_charges(config, long_range, message):
    with pytest.raises(ConfigError, match=message):
        build_model(config, SPECIES, LongRangeConfig(**long_range))


@pytest.mark.parametrize("more", [{"members": 2}, {"states": 2}])
def test_readouts_beside_one_energy_only(more):
    config = BPNNConfig(states=more.pop("states", 1))
    with pytest.raises(ValueError, match="several states or members of a committee have no readouts beside"):
        config.build(SPECIES, readouts={"charge": 1}, **more)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"charges": "free"}, "has charges that are one of fixed, environment, latent"),
        ({"charges": "fixed"}, "and values if they are fixed, found 'fixed' and values None"),
        ({"charges": "latent", "channels": 0}, "at least one channel"),
        ({"charges": "fixed", "values": [1.0], "weighted": True}, "exactly one without weights"),
    ],
)
def test_couples_that_cannot_be(parameters, message):
    with pytest.raises(ConfigError, match=message):
        CoulombCouple(rtol=1e-4, **parameters)


def test_a_couple_with_charges_needs_more_than_a_graph():
    model = random_model("environment")
    with pytest.raises(ConfigError, match="needs positions, total charges and cells, and a graph has none"):
        evaluate(model, graph_of(case("open", False, "environment")), model.couple)


def test_fixed_charges_must_add_up():
    charger = FrameCharger(random_model("fixed").couple)
    neutral, charged = (case("triclinic", net, "fixed") for net in (False, True))
    with pytest.raises(ConfigError, match=r"add up to -1\.2 e, but a periodic frame is taken to have 0 e"):
        charger(ChargedStructure(*charged[:4]))
    with pytest.raises(ConfigError, match=r"fixed charges add up to -?\d.* e, but its total charge is 1 e"):
        charger(ChargedStructure(*neutral[:4], 1.0))
    open_one = case("open", True, "fixed")
    assert charger(ChargedStructure(*open_one[:4])).frames.frame.numel() == 12


@pytest.mark.parametrize("name", ["total_charge", "charge", "Q"])
def test_total_charges_of_files(tmp_path, name):
    frame = Frame([[0.0, 0, 0]], ["H"], np.zeros((3, 3)), [False] * 3, info={name: 1})
    write_extxyz(tmp_path / "x.xyz", [frame])
    (found,) = read_frames(tmp_path / "x.xyz", {"total_charge": name} if name == "Q" else None)
    assert total_charge(found.info, "x") == 1.0
    write_hdf5(tmp_path / "x.h5", [found])
    assert total_charge(read_frames(tmp_path / "x.h5")[0].info, "x") == 1.0


def test_a_total_charge_that_is_no_number():
    assert total_charge({}, "here") is None
    for value in ("much", [1.0, 2.0], np.nan):
        with pytest.raises(DataError, match=r"here: the total charge \(key 'charge'\) is .*, expected"):
            total_charge({"charge": value}, "here")


def labelled(kind, count=10):
    """Frames with labels of a random model; every cell, every second one charged."""
    model, frames = random_model(kind), []
    rng = np.random.default_rng(5)
    for number in range(count):
        cell = list(CELLS)[number % 4]
        one = case(cell, bool(number % 2), kind)
        one = one._replace(positions=one.positions + rng.normal(scale=0.05, size=one.positions.shape))
        found = evaluate(model, graph_of(one), model.couple, charged=charged_of(model, one), born_charges=1)
        labels = {
            keys.ENERGY: found.energy.item() - 10.0 * len(one.species),
            keys.FORCES: found.forces.numpy(),
            keys.VIRIAL: found.virial[0].numpy(),
            keys.CHARGES: found.charges[:, 0].numpy(),
            keys.BORN_CHARGES: found.born_charges.numpy(),
        }
        if cell == "open":
            labels[keys.DIPOLE] = found.dipole[0].numpy()
        symbols = [SPECIES[z] for z in one.species]
        info = {"total_charge": one.charge}
        frames.append(Frame(one.positions, symbols, one.cell, one.pbc, labels=labels, info=info))
    return frames


MACE = {"architecture": "mace", "channels": 4, "l_max": 1, "correlation": 2}
RUNS = {**{kind: (kind, {"hidden": [8]}) for kind in KINDS}, "mace": ("weighted", MACE)}


@pytest.fixture(scope="module", params=RUNS)
def trained(request, tmp_path_factory):
    """A short run on frames that are the test set, too."""
    (kind, model), folder = RUNS[request.param], tmp_path_factory.mktemp("run")
    write_extxyz(folder / "data.xyz", labelled(kind))
    long_range = KINDS[kind] | ({"widths": {"H": 0.1, "O": 0.5}} if kind == "latent" else {})
    values = {
        "data": {"training": str(folder / "data.xyz"), "validation": 2},
        "model": {"cutoff": 4.0, **model},
        "long_range": long_range,
        "training": {"epochs": 3, "loss": {"virial": 0.1}},
    }
    if "environment" in KINDS[kind].values():
        values["training"]["loss"] |= {"charges": 1.0, "dipole": 1.0, "born_charges": 0.1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "plot_parity", lambda *_, **__: [])
        patch.setattr(plots, "plot_history", lambda *_: None)
        train(parse_config(values), folder / "run")
    return kind, folder


def test_a_run_ends_with_what_the_core_gives(trained):
    kind, folder = trained
    errors = json.loads((folder / "run" / "results.json").read_text())
    assert ("charges" in errors["training"]) == (kind != "latent")
    assert errors["training"]["dipole"]["unit"] == "me·Å" and errors["training"]["born_charges"]["r2"] <= 1
    model = Potential(folder / "run" / "model.pt")
    frames = read_frames(folder / "data.xyz")
    numbers = np.loadtxt(folder / "run" / "split" / "validation.txt", dtype=int)
    differences = [
        (predict(model, frames[n])[keys.FORCES] - frames[n].labels[keys.FORCES]).ravel() for n in numbers
    ]
    rmse = 1000 * np.sqrt(np.mean(np.concatenate(differences) ** 2))
    assert errors["validation"]["forces"]["rmse"] == pytest.approx(rmse, rel=2e-3)


def test_the_energies_of_an_untrained_model_are_right(tmp_path, monkeypatch):
    """The local energies begin at what is left of the data without the electrostatic energy of fixed charges,
    here -1 eV per atom."""
    monkeypatch.setattr(plots, "plot_parity", lambda *_, **__: [])
    monkeypatch.setattr(plots, "plot_history", lambda *_: None)
    frames = labelled("fixed", 20)
    write_extxyz(tmp_path / "data.xyz", frames)
    values = {
        "data": {"training": str(tmp_path / "data.xyz"), "validation": 2, "reference_energies": "none"},
        "model": {"cutoff": 4.0},
        "long_range": KINDS["fixed"],
        "training": {"epochs": 1, "learning_rate": 1e-12},
    }
    train(parse_config(values), tmp_path / "run")
    model = Potential(tmp_path / "run" / "model.pt")
    found = [
        (predict(model, frame)[keys.ENERGY] - frame.labels[keys.ENERGY]) / len(frame) for frame in frames
    ]
    one = frames[0]
    total = total_charge(one.info, "")
    results = model.compute(one.positions, one.symbols, one.cell, one.pbc, total)
    assert results.electrostatic_energy / len(one) < -1.0
    assert abs(np.mean(found)) < 0.01


def test_what_a_file_says(trained, capsys):
    kind, folder = trained
    metadata = read_metadata(folder / "run" / "model.pt")
    names = [readout["name"] for readout in metadata["readouts"]]
    expected = {
        "fixed": ["energy"],
        "environment": ["energy", "charge"],
        "weighted": ["energy", "charge", "charge_weight"],
        "latent": ["energy", "charge", "charge_weight"],
    }
    assert names == expected[kind]
    from rich.console import Console

    Console(width=200).print(describe(metadata))
    line = next(row for row in capsys.readouterr().out.splitlines() if row.startswith("couple"))
    assert f"kind coulomb, charges {metadata['couple']['charges']}" in line
    assert ("values H 0.4 O -0.8" in line) == (kind == "fixed")


@pytest.mark.parametrize("kind", ["fixed", "latent"])
def test_charges_of_painn(kind, tmp_path):
    torch.manual_seed(1)
    config = PaiNNConfig(cutoff=4.0, channels=4, num_interactions=2)
    model = build_model(config, SPECIES, LongRangeConfig(**KINDS[kind]))
    save_model(
        tmp_path / "model.pt",
        model,
        reference_energies=dict.fromkeys(SPECIES, 0.0),
        reference_energies_source="given",
        provenance={},
    )
    one = case("triclinic", True, kind)
    found = Potential(tmp_path / "model.pt").compute_indices(*one)
    expected = evaluate(model, graph_of(one), model.couple, charged=charged_of(model, one))
    scale = np.abs(found.forces).max()
    np.testing.assert_allclose(found.forces, expected.forces.numpy(), atol=1e-7 * scale)
    np.testing.assert_allclose(found.charges, expected.charges.numpy(), atol=1e-12)


def save(kind, path, architecture="bpnn"):
    source = {"reference_energies": {"H": -13.0, "O": -431.0}, "reference_energies_source": "given"}
    save_model(path, random_model(kind, architecture=architecture), **source, provenance={})
    return path


@pytest.mark.parametrize(
    ("kind", "architecture"), [*((kind, "bpnn") for kind in KINDS), ("latent", "mace with messages")]
)
@pytest.mark.parametrize("cell", ["open", "triclinic"])
def test_torchforce(kind, architecture, cell, tmp_path):
    """The frozen module and the core choose the same mesh for the same structure."""
    path, one = save(kind, tmp_path / "model.pt", architecture), case(cell, True, kind)
    symbols, periodic = [SPECIES[z] for z in one.species], cell != "open"
    arguments = {"periodic": periodic, "charge": one.charge}
    if periodic:
        arguments |= {"positions": one.positions, "cell": one.cell}
    module = freeze(torchforce_module(path, symbols, **arguments))
    x = torch.tensor(0.1 * one.positions, requires_grad=True)
    inputs = (x, torch.tensor(0.1 * one.cell)) if periodic else (x,)
    expected = Potential(path).compute_indices(*one)
    for _ in range(3):
        energy = module(*inputs)
        (gradient,) = torch.autograd.grad(energy, x)
        assert energy.item() * KJ_PER_MOL == pytest.approx(expected.energy, rel=1e-12)
        forces = -0.1 * KJ_PER_MOL * gradient.numpy()
        np.testing.assert_allclose(forces, expected.forces, atol=1e-9 * np.abs(expected.forces).max())


@pytest.mark.parametrize(
    ("kind", "architecture", "periodic"),
    [("latent", "bpnn", False), ("fixed", "bpnn", True), ("environment", "mace with messages", False)],
)
def test_torchforce_in_a_field(kind, architecture, periodic, tmp_path):
    path = save(kind, tmp_path / "model.pt", architecture)
    one = case("triclinic" if periodic else "open", True, kind)
    arguments = {"periodic": periodic, "charge": one.charge, "efield": [3.0, -2.0, 5.0]}
    if periodic:
        arguments |= {"positions": one.positions, "cell": one.cell}
    module = torchforce_module(path, [SPECIES[z] for z in one.species], **arguments)
    x = torch.tensor(0.1 * one.positions, requires_grad=True)
    energy = module(x, torch.tensor(0.1 * one.cell)) if periodic else module(x)
    (gradient,) = torch.autograd.grad(energy, x)
    expected = Potential(path).compute_indices(*one, [0.3, -0.2, 0.5])
    assert energy.item() * KJ_PER_MOL == pytest.approx(expected.energy, rel=1e-12)
    forces = -0.1 * KJ_PER_MOL * gradient.numpy()
    np.testing.assert_allclose(forces, expected.forces, atol=1e-9 * np.abs(expected.forces).max())


def test_what_torchforce_refuses(tmp_path):
    path = save("environment", tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="mesh of a periodic system is chosen for a structure: give positi"):
        torchforce_module(path, ["H", "O"], periodic=True)
    with pytest.raises(ConfigError, match="acts along periodic directions on fixed charges only: leave efie"):
        torchforce_module(path, ["H", "O"], periodic=True, efield=[1.0, 0.0, 0.0])
    path = save("fixed", tmp_path / "fixed.pt")
    with pytest.raises(ConfigError, match=r"fixed charges add up to -0\.4 e, but a periodic frame"):
        torchforce_module(path, ["H", "O"], periodic=True)
    model = random_model("environment")
    model.couple, model.readouts = {"kind": "sum"}, model.readouts[:1]
    source = {"reference_energies": {"H": -13.0, "O": -431.0}, "reference_energies_source": "given"}
    save_model(tmp_path / "sum.pt", BPNNConfig(cutoff=4.0).build(SPECIES), **source, provenance={})
    with pytest.raises(ConfigError, match="a total charge was given, but the model has no electrostatics"):
        torchforce_module(tmp_path / "sum.pt", ["H", "O"], periodic=False, charge=1.0)
    with pytest.raises(ConfigError, match="an electric field was given, but the model has no electrostatics"):
        torchforce_module(tmp_path / "sum.pt", ["H", "O"], periodic=False, efield=[1.0, 0.0, 0.0])


def test_check_structures_have_charges(tmp_path):
    save("environment", tmp_path / "model.pt")
    from nearsight.export import read_entry

    structures = json.loads(read_entry(tmp_path / "model.pt", keys.CHECKS_FILE))
    assert [(s["name"], s["charge"]) for s in structures] == [
        ("triclinic", 1.0),
        ("lone atom", 0.0),
        ("molecule", 0.0),
    ]


def test_a_file_whose_backends_disagree_about_charges_is_refused(tmp_path, monkeypatch):
    model = random_model("environment")
    weights = model.weights()
    weights["H.1.bias"] = weights["H.1.bias"] + 1e-6
    monkeypatch.setattr(model, "weights", lambda: weights)
    source = {"reference_energies": {"H": -13.0, "O": -431.0}, "reference_energies_source": "given"}
    with pytest.raises(ModelFileError, match="the native backend does not give the module's results"):
        save_model(tmp_path / "model.pt", model, **source, provenance={})
    assert load is not None and not (tmp_path / "model.pt").exists()
