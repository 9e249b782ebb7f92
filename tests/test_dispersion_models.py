"""Dispersion as a part of models: files, Python, ASE, torchforce, committees, training labels, commands."""

import ctypes
import json

import numpy as np
import pytest
import torch
from core import c_api
from core.test_dispersion import core
from dispersion_for_tests import record_of, scattered
from training_toy import CUTOFF, boxes

from nearsight import Calculator, Potential
from nearsight.data import read_frames, write_extxyz
from nearsight.errors import ConfigError, EvaluationError, ModelFileError
from nearsight.export import read_metadata, save_model, torchforce_module
from nearsight.export.committee import merge_models
from nearsight.models import ANIConfig, BPNNConfig, DispersionConfig, MACEConfig, build_model
from nearsight.training import load_config, plots, train
from nearsight.training.datasets import read_sets
from nearsight.units import KJ_PER_MOL

SPECIES = ["H", "O"]
OPEN, CRYSTAL, SLAB = [False] * 3, [True] * 3, [True, True, False]
MODELS = {
    "bpnn": BPNNConfig(cutoff=4.0, hidden=[8]),
    "states": BPNNConfig(cutoff=4.0, hidden=[8], states=2),
    "mace": MACEConfig(cutoff=4.0, channels=3, num_interactions=2, l_max=1, correlation=2),
}


def save(path, config, record, seed=3):
    torch.manual_seed(seed)
    save_model(
        path,
        build_model(config, SPECIES),
        reference_energies={"H": -13.0, "O": -431.0},
        reference_energies_source="given",
        provenance={},
        dispersion=record,
    )
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same models without and with dispersion."""
    folder = tmp_path_factory.mktemp("dispersion")
    record = record_of(SPECIES)
    return {
        name: (
            save(folder / f"{name}.pt", config, None),
            save(folder / f"{name}-d3.pt", config, record),
        )
        for name, config in MODELS.items()
    }


def system(pbc=CRYSTAL):
    positions, species, cell = scattered(21, 12, 2)
    return positions, species, cell, pbc


@pytest.mark.parametrize("pbc", [OPEN, CRYSTAL, SLAB], ids=["open", "crystal", "slab"])
@pytest.mark.parametrize("name", MODELS)
def test_the_sum_of_model_and_dispersion(files, name, pbc):
    local, both = files[name]
    arguments = system(pbc)
    more = core(record_of(SPECIES)).evaluate(*arguments)
    for backend in ("native", "torchscript"):
        for skin in (0.0, 1.0):
            without, found = (
                Potential(path, backend=backend, skin=skin).compute_indices(*arguments)
                for path in (local, both)
            )
            assert found.dispersion_energy == pytest.approx(more["energy"], rel=1e-13)
            for quantity in ("energy", "energies", "forces", "virial", "virials"):
                expected = getattr(without, quantity) + more[quantity]
                np.testing.assert_allclose(getattr(found, quantity), expected, rtol=1e-12, atol=1e-13)
    assert without.dispersion_energy is None


def test_ase(files):
    from ase import Atoms

    positions, species, cell, _ = system()
    atoms = Atoms([SPECIES[kind] for kind in species], positions, cell=cell, pbc=True)
    found = Potential(files["bpnn"][1]).compute(positions, atoms.symbols, cell, True)
    atoms.calc = Calculator(files["bpnn"][1])
    assert atoms.get_potential_energy() == pytest.approx(found.energy, rel=1e-13)
    np.testing.assert_allclose(atoms.get_forces(), found.forces, atol=1e-13)
    np.testing.assert_allclose(atoms.get_stresses().sum(0), atoms.get_stress(), atol=1e-13)


def test_members_of_a_committee(tmp_path):
    config = BPNNConfig(cutoff=4.0, descriptor=ANIConfig(radial_shifts=4), hidden=[8])
    record = record_of(SPECIES)
    paths = [save(tmp_path / f"{seed}.pt", config, record, seed) for seed in (1, 2)]
    merge_models(paths, tmp_path / "committee.pt")
    found = Potential(tmp_path / "committee.pt").compute_indices(*system(), members=True)
    for member, path in enumerate(paths):
        single = Potential(path).compute_indices(*system())
        assert found.member_energies[member] == pytest.approx(single.energy, rel=1e-12)
        np.testing.assert_allclose(found.member_forces[member], single.forces, atol=1e-12)
        six = single.virial[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
        np.testing.assert_allclose(found.member_virials[member], six, atol=1e-11)
    save(tmp_path / "other.pt", config, record_of(SPECIES, functional="b3lyp"), 3)
    with pytest.raises(ModelFileError, match="have different dispersion: members of a committee"):
        merge_models([paths[0], tmp_path / "other.pt"], tmp_path / "none.pt")


@pytest.mark.parametrize("periodic", [True, False])
def test_torchforce(files, periodic):
    positions, species, cell, _ = system()
    symbols = [SPECIES[kind] for kind in species]
    module = torchforce_module(files["bpnn"][1], symbols, periodic=periodic)
    x = torch.tensor(0.1 * positions, requires_grad=True)
    energy = module(x, torch.tensor(0.1 * cell)) if periodic else module(x)
    (gradient,) = torch.autograd.grad(energy, x)
    expected = Potential(files["bpnn"][1]).compute(positions, symbols, cell, periodic)
    assert energy.item() * KJ_PER_MOL == pytest.approx(expected.energy, rel=1e-11)
    np.testing.assert_allclose(-gradient.numpy() * KJ_PER_MOL / 10, expected.forces, atol=1e-10)


def test_a_heat_flux_is_refused(files):
    from nearsight.lib import _core

    evaluator = _core.Evaluator(str(files["bpnn"][1]))
    with pytest.raises(EvaluationError, match="a sum over atoms without dispersion, and this model is none"):
        evaluator.evaluate(*system(), centroid=True)


def test_dispersion_of_the_host(files, tmp_path, run):
    """The file says that it is missing, and the model does not add it."""
    record = record_of(SPECIES, added_by="host")
    path = save(tmp_path / "model.pt", MODELS["bpnn"], record)
    found = Potential(path).compute_indices(*system())
    assert found.dispersion_energy is None
    assert found.energy == Potential(files["bpnn"][0]).compute_indices(*system()).energy
    code, out, _ = run("info", path)
    text = " ".join(out.split())
    assert code == 0 and "D3(BJ) of pbe, not in this model: the host must add it" in text


def test_info(files, run):
    code, out, _ = run("info", files["bpnn"][1])
    assert code == 0 and "D3(BJ) of pbe, in the energy of this model; labels with it" in " ".join(out.split())


# ---- alone ----


def test_the_command_writes_dispersion_alone(tmp_path, run):
    path = tmp_path / "d3.pt"
    options = (
        "--functional",
        "pbe",
        "--species",
        "H,C",
        "--species",
        "O",
        "--cutoff",
        "10",
        "--smoothing",
        "1",
    )
    code, _, error = run("dispersion", *options, "--coordination-cutoff", "8", "-o", path)
    assert code == 0, error
    arguments = scattered(22, 12, 3)
    record = record_of(["H", "C", "O"], cutoff=10.0, coordination_cutoff=8.0, smoothing=1.0)
    expected = core(record).evaluate(*arguments, CRYSTAL)
    for backend in ("native", "torchscript"):
        found = Potential(path, backend=backend).compute_indices(*arguments, CRYSTAL)
        assert found.energy == found.dispersion_energy == pytest.approx(expected["energy"], rel=1e-13)
        np.testing.assert_allclose(found.forces, expected["forces"], atol=1e-13)
    assert read_metadata(path)["architecture"] == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--functional none --species H", "dispersion.functional is 'none', for which tad-dftd3 has no"),
        ("--functional pbe --species H,Qq", "dispersion: Qq is no element that the tables of tad-dftd3"),
        ("--functional pbe --species H,H", "--species names every element once, found H H."),
        ("--functional pbe --species H --smoothing 20", "smoothing is 20 Å, but it must be below"),
        ("--functional pbe --species H --cutoff -1", "cutoff: Input should be greater than 0"),
    ],
)
def test_the_command_refuses(options, message, tmp_path, run):
    pytest.importorskip("tad_dftd3", reason="tad-dftd3, which has the tables of D3, is not installed")
    code, _, error = run("dispersion", *options.split(), "-o", tmp_path / "d3.pt")
    assert code == 1 and message in error
    assert not (tmp_path / "d3.pt").exists()


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tad_dftd3", None)
    with pytest.raises(
        ConfigError, match=r"from the package tad-dftd3: pip install 'nearsight\[dispersion\]'"
    ):
        DispersionConfig(functional="pbe", labels="with").record(["H"])


def test_parameters_of_ones_own():
    parameters = {"s8": 1.0, "a1": 0.4, "a2": 5.0}
    config = DispersionConfig(functional="mine", labels="with", parameters=parameters)
    pytest.importorskip("tad_dftd3", reason="tad-dftd3, which has the tables of D3, is not installed")
    assert parameters.items() <= config.record(["H"]).items()


# ---- training ----

CONFIG = """
data: {{training: data.xyz, validation: 0.2, reference_energies: {{Ne: 0.0, Ar: 0.0}}}}
model: {{cutoff: {cutoff}, hidden: [6]}}
dispersion:
  {{functional: pbe, cutoff: 9.0, coordination_cutoff: 7.0, smoothing: 3.0, labels: {labels}, added_by: {by}}}
training: {{epochs: 1, batch_size: 4}}
"""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(plots, "plot_parity", lambda *_, **__: [])
    monkeypatch.setattr(plots, "plot_history", lambda *_: None)


def configuration(folder, labels, by="model"):
    pytest.importorskip("tad_dftd3", reason="tad-dftd3, which has the tables of D3, is not installed")
    (folder / "train.yaml").write_text(CONFIG.format(cutoff=CUTOFF, labels=labels, by=by))
    return load_config(folder / "train.yaml", [])


@pytest.mark.parametrize("by", ["model", "host"])
def test_labels_with_and_without_train_the_same_model(by, tmp_path, quick, run):
    """Labels with dispersion, from which it is taken, and labels that never had it; also in `evaluate`."""
    frames, record = boxes(10), record_of(["Ne", "Ar"], added_by=by)
    potentials, errors = [], []
    for labels in ("with", "without"):
        folder = tmp_path / labels
        folder.mkdir()
        for frame in frames if labels == "without" else ():
            more = core(record).evaluate(
                frame.positions, np.array([s == "Ar" for s in frame.symbols], np.int32), frame.cell, frame.pbc
            )
            frame.labels = {name: value - more[name] for name, value in frame.labels.items()}
        write_extxyz(folder / "data.xyz", frames)
        train(configuration(folder, labels, by), folder / "run")
        potentials.append(Potential(folder / "run" / "model.pt"))
        code, _, error = run(
            "evaluate", folder / "run" / "model.pt", folder / "data.xyz", "--plots", folder / "out"
        )
        assert code == 0, error
        errors.append(json.loads((folder / "out" / "errors.json").read_text()))
    found = [p.compute(frames[0].positions, frames[0].symbols, frames[0].cell, True) for p in potentials]
    assert found[0].energy == pytest.approx(found[1].energy, abs=1e-5)  # files have eight digits
    np.testing.assert_allclose(found[0].forces, found[1].forces, atol=1e-4)
    assert (found[0].dispersion_energy is None) == (by == "host")
    for name in ("energy", "forces", "virial"):
        assert errors[0][name]["rmse"] == pytest.approx(errors[1][name]["rmse"], rel=1e-3)
    assert read_metadata(potentials[0].path)["dispersion"]["labels"] == "with"


def test_errors_of_training_and_evaluation_agree(tmp_path, quick, run):
    write_extxyz(tmp_path / "data.xyz", boxes(10))
    train(configuration(tmp_path, "with"), tmp_path / "run")
    split = np.loadtxt(tmp_path / "run" / "split" / "validation.txt", dtype=int)
    frames = read_frames(tmp_path / "data.xyz")
    write_extxyz(tmp_path / "validation.xyz", [frames[number] for number in split])
    code, _, error = run(
        "evaluate", tmp_path / "run" / "model.pt", tmp_path / "validation.xyz", "--plots", tmp_path
    )
    assert code == 0, error
    found = json.loads((tmp_path / "errors.json").read_text())
    expected = json.loads((tmp_path / "run" / "results.json").read_text())["validation"]
    assert found["forces"]["rmse"] == pytest.approx(expected["forces"]["rmse"], rel=1e-4)
    assert found["energy"]["rmse"] == pytest.approx(expected["energy"]["rmse"], rel=1e-4)


def test_labels_are_told(tmp_path):
    write_extxyz(tmp_path / "data.xyz", boxes(6))
    config = configuration(tmp_path, "with")
    sets = read_sets(config.data, config.training.loss, config.dispersion)
    assert "D3(BJ) of pbe was taken out of the labels." in sets.notes
    frame = sets.frames["training"][0]
    before = boxes(6)[sets.numbers["training"][0]]
    record = record_of(["Ne", "Ar"])
    kinds = np.array([symbol == "Ar" for symbol in frame.symbols], np.int32)
    more = core(record).evaluate(frame.positions, kinds, frame.cell, frame.pbc)
    assert frame.labels["energy"] == pytest.approx(before.labels["energy"] - more["energy"], abs=1e-7)
    np.testing.assert_allclose(frame.labels["virial"], before.labels["virial"] - more["virial"], atol=1e-6)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{functional: pbe}", "dispersion.labels is missing from the configuration."),
        ("{functional: pbe, labels: maybe}", "dispersion.labels is 'maybe', expected 'with' or 'without'."),
        ("{functional: pbe, labels: with, method: d4}", "dispersion.method is 'd4', expected 'd3bj'."),
        (
            "{functional: pbe, labels: with, smoothing: 25.0}",
            "dispersion: smoothing is 25 Å, but it must be below",
        ),
    ],
)
def test_configurations_that_cannot_be_right(section, message, tmp_path):
    (tmp_path / "train.yaml").write_text(f"data: {{training: data.xyz}}\ndispersion: {section}\n")
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "train.yaml", [])
    assert message in str(error.value)


# ---- C ----


def test_the_c_api(files):
    library = c_api.open_library()
    library.ns_model_dispersion_functional.restype = ctypes.c_char_p
    positions, species, cell, pbc = system()
    for path, kind in ((files["bpnn"][0], 0), (files["bpnn"][1], 1)):
        model = c_api.load_model(library, path)
        assert library.ns_model_dispersion(model) == kind
        assert library.ns_model_dispersion_functional(model) == (b"pbe" if kind else None)
        evaluator, results = c_api.make_evaluator(library, model), c_api.results_for()
        arguments = c_api.system_of(positions, species, cell)
        assert library.ns_evaluate_system(evaluator, ctypes.byref(arguments), ctypes.byref(results)) == 0
        expected = Potential(path).compute_indices(positions, species, cell, pbc)
        assert results.energy == pytest.approx(expected.energy, rel=1e-13)
        assert results.dispersion == pytest.approx(expected.dispersion_energy or 0.0, rel=1e-13)
        library.ns_evaluator_free(evaluator)
        library.ns_model_free(model)
