"""Whole runs on the toy: they learn, continue bit for bit, and end with a sentence when they must."""

import csv
import json
import os
import signal

import numpy as np
import pytest
import torch
import yaml
from training_toy import CUTOFF, ISOLATED, boxes

from nearsight.data import read_frames, write_extxyz
from nearsight.errors import ConfigError, DataError, NearsightError
from nearsight.export import read_metadata
from nearsight.interfaces.potential import Potential
from nearsight.training import Interrupted, find_checkpoint, load_config, plots, read_checkpoint, train
from nearsight.training.logbook import read_metrics
from nearsight.training.loop import Trainer

TEN_LINES = f"""
data:
  training: data.xyz
  validation: 0.2
  test: 4
model:
  cutoff: {CUTOFF}
  hidden: [8]
training:
  epochs: 4
  batch_size: 3
"""


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "data.xyz"
    write_extxyz(path, boxes(24, isolated_atoms=True))
    return path


@pytest.fixture
def configure(data_file):
    def load(*overrides):
        (data_file.parent / "train.yaml").write_text(TEN_LINES)
        return load_config(data_file.parent / "train.yaml", overrides)

    return load


@pytest.fixture
def quick_train(monkeypatch):
    """Training without pictures, which take longer than the toy's epochs."""
    monkeypatch.setattr(plots, "plot_parity", lambda *_, **__: [])
    monkeypatch.setattr(plots, "plot_history", lambda *_: None)
    return train


def weights(folder, name="last.ckpt"):
    content = read_checkpoint(folder / "checkpoints" / name)
    return content, [*content["model"].values(), *content["weights"]]


def assert_same_bits(first, second):
    (_, one), (_, two) = weights(first), weights(second)
    assert all(torch.equal(a, b) for a, b in zip(one, two))
    for content in ("step", "best_loss", "best_epoch"):
        assert weights(first)[0]["state"][content] == weights(second)[0]["state"][content]


def stop_at(monkeypatch, step):
    """Send SIGINT while the given step is being done."""
    train_batch = Trainer.train_batch

    def train_and_stop(self, numbers):
        if self.state.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        train_batch(self, numbers)

    monkeypatch.setattr(Trainer, "train_batch", train_and_stop)


def test_a_run_learns_and_leaves_everything(configure, tmp_path):
    folder = tmp_path / "run"
    train(configure("training.epochs=60", "training.loss.virial=0.1", "model.hidden=[16]"), folder)
    errors = json.loads((folder / "results.json").read_text())
    spread = 1000 * np.sqrt(np.mean([frame.labels["forces"] ** 2 for frame in boxes(24)]))
    assert errors["test"]["forces"]["rmse"] < 0.4 * spread

    with (folder / "metrics.csv").open() as file:
        names, units, *rows = list(csv.reader(file))
    assert names[:2] == ["epoch", "step"] and units[names.index("forces_rmse")] == "meV/Å"
    assert [int(row[0]) for row in rows] == list(range(1, 61))
    losses = [float(row[names.index("validation_loss")]) for row in rows]
    assert min(losses) < 0.3 * losses[0]

    expected = (
        "config.resolved.yaml train.log environment.json model.pt plots/history.png plots/parity_energy.png"
    )
    for name in [*expected.split(), *(f"split/{s}.txt" for s in ("training", "validation", "test"))]:
        assert (folder / name).is_file()
    assert "E - ΣE0 per atom" in (folder / "train.log").read_text()
    assert yaml.safe_load((folder / "config.resolved.yaml").read_text())["training"]["batch_size"] == 3
    assert json.loads((folder / "environment.json").read_text())["versions"]["torch"] == torch.__version__


def test_the_exported_model_is_the_one_that_was_measured(configure, data_file, tmp_path, quick_train):
    """The native engine on the test set gives the errors that training reported."""
    quick_train(configure(), tmp_path / "run")
    reported = json.loads((tmp_path / "run" / "results.json").read_text())["test"]
    numbers = np.loadtxt(tmp_path / "run" / "split" / "test.txt", dtype=int)
    frames = [read_frames(data_file)[number] for number in numbers]
    potential = Potential(tmp_path / "run" / "model.pt")
    results = [potential.compute(f.positions, f.symbols, f.cell, f.pbc) for f in frames]
    energies = [1000 * (r.energy - f.labels["energy"]) / len(f) for r, f in zip(results, frames)]
    forces = np.concatenate([r.forces - f.labels["forces"] for r, f in zip(results, frames)])
    assert np.sqrt(np.mean(np.square(energies))) == pytest.approx(reported["energy"]["rmse"], rel=1e-9)
    assert 1000 * np.abs(forces).mean() == pytest.approx(reported["forces"]["mae"], rel=1e-9)
    provenance = read_metadata(tmp_path / "run" / "model.pt")["provenance"]
    assert list(provenance["data_files"]) == ["data.xyz"]
    assert provenance["num_frames"]["test"] == 4
    assert provenance["validation_errors"]["forces RMSE, meV/Å"] > 0


def test_isolated_atoms_give_the_reference_energies(configure, tmp_path, quick_train):
    quick_train(configure("training.epochs=1"), tmp_path / "run")
    metadata = read_metadata(tmp_path / "run" / "model.pt")
    assert metadata["reference_energies"] == ISOLATED
    assert metadata["reference_energies_source"] == "isolated_atoms"
    assert metadata["species"] == ["Ne", "Ar"]
    assert "isolated atoms give the reference energies and are in no set" in (
        tmp_path / "run" / "train.log"
    ).read_text().replace("\n", " ")


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_four_epochs_are_two_and_two(configure, tmp_path, backend, quick_train):
    """With a schedule that does not depend on the length of the run."""
    options = ("training.schedule={kind: plateau, patience: 1}", f"training.backend={backend}")
    quick_train(configure(*options), tmp_path / "whole")
    quick_train(configure(*options, "training.epochs=2"), tmp_path / "parts")
    quick_train(configure(*options), tmp_path / "parts", restart=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    rows = (tmp_path / "parts" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "1", "2", "3", "4"]


@pytest.mark.parametrize("optimizer", ["{kind: adamw}", "{kind: shampoo_adam, frequency: 3}"])
def test_an_interrupted_run_continues_bit_for_bit(configure, monkeypatch, tmp_path, quick_train, optimizer):
    """In the middle of an epoch, with the cosine schedule."""
    option = f"training.optimizer={optimizer}"
    handler = signal.getsignal(signal.SIGINT)
    quick_train(configure(option), tmp_path / "whole")
    with monkeypatch.context() as patched:
        stop_at(patched, step=8)
        with pytest.raises(Interrupted, match="Interrupted in epoch 2") as caught:
            quick_train(configure(option), tmp_path / "parts")
    assert caught.value.exit_code == 128 + signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is handler
    assert weights(tmp_path / "parts")[0]["state"]["batches"] == 4
    quick_train(configure(option), tmp_path / "parts", restart=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    losses = [
        [row.split(",")[3:11] for row in (tmp_path / part / "metrics.csv").read_text().splitlines()]
        for part in ("whole", "parts")
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "optimizer", ["{kind: adamw}", "{kind: levenberg_marquardt, batch_frames: 8, force_fraction: 1.0}"]
)
@pytest.mark.parametrize("memory", [0.0, 4.0])
def test_networks_on_principal_directions(configure, monkeypatch, tmp_path, quick_train, optimizer, memory):
    """They learn, and a restart gives the same bits; also without memory for derivatives."""
    options = (
        "model.descriptor={kind: soap, n_max: 3, l_max: 1}",
        "model.directions=10",
        "model.hidden=[8]",
        f"training.optimizer={optimizer}",
        f"training.cache_gb={memory}",
    )
    quick_train(configure(*options), tmp_path / "whole")
    with monkeypatch.context() as patched:
        stop_at(patched, step=3)
        with pytest.raises(Interrupted):
            quick_train(configure(*options), tmp_path / "parts")
    quick_train(configure(*options), tmp_path / "parts", restart=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    with (tmp_path / "whole" / "metrics.csv").open() as file:
        _units, *rows = csv.DictReader(file)
    assert float(rows[-1]["validation_loss"]) < float(rows[0]["validation_loss"])


def test_the_same_seed_gives_the_same_bits_and_another_does_not(configure, tmp_path, quick_train):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        quick_train(configure("training.epochs=1", f"seed={seed}"), tmp_path / name)
    assert_same_bits(tmp_path / "one", tmp_path / "two")
    with pytest.raises(AssertionError):
        assert_same_bits(tmp_path / "one", tmp_path / "three")


def test_restart_begins_where_there_is_nothing(configure, tmp_path, quick_train):
    quick_train(configure("training.epochs=1"), tmp_path / "run", restart=True)
    assert (tmp_path / "run" / "model.pt").is_file()


def test_a_run_is_not_overwritten_or_changed(configure, tmp_path, quick_train):
    quick_train(configure("training.epochs=1"), tmp_path / "run")
    with pytest.raises(ConfigError, match="already holds a run; continue with --restart auto"):
        quick_train(configure("training.epochs=1"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"another configuration: training.batch_size: 3 → 5\. Only"):
        quick_train(configure("training.batch_size=5"), tmp_path / "run", restart=True)
    assert "ConfigError" in (tmp_path / "run" / "error.log").read_text()


def test_time_limit_ends_the_schedule(configure, tmp_path, quick_train):
    quick_train(configure("training.epochs=100000", "training.max_minutes=0.02"), tmp_path / "run")
    log = (tmp_path / "run" / "train.log").read_text()
    assert "Training ended: the limit of 0.02 minutes is reached." in log
    with (tmp_path / "run" / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["elapsed"]) < 60.0  # far below 100000 epochs, on the busiest machine
    assert float(last["learning_rate"]) < 0.1 * 5e-3


def test_early_stopping(configure, tmp_path, quick_train):
    quick_train(configure("training.learning_rate=1e-300", "training.early_stopping=2"), tmp_path / "run")
    assert "the validation loss has not improved for 2 epochs" in (tmp_path / "run" / "train.log").read_text()
    assert weights(tmp_path / "run")[0]["state"]["epoch"] == 4


SIGMAS = {"energy": 0.5, "forces": 0.3}
STAGES = (
    "training.loss={energy: 1, forces: 2, sigma_energy: 0.5, sigma_forces: 0.3, "
    "second_stage: {start: 0.5, energy: 1000}}"
)


def test_the_second_stage_has_other_weights(configure, tmp_path, quick_train):
    """The validation loss is that of the stage; the best epoch is of the second, whose losses are larger."""
    quick_train(configure(STAGES), tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    for row, energy in zip(rows, (1, 1, 1000, 1000), strict=True):
        errors = {"energy": 8 * row["energy_rmse"], "forces": row["forces_rmse"]}  # frames have 8 atoms
        terms = {name: (error / 1000 / SIGMAS[name]) ** 2 for name, error in errors.items()}
        assert row["validation_loss"] == pytest.approx(energy * terms["energy"] + 2 * terms["forces"])
    assert rows[1]["validation_loss"] < rows[0]["validation_loss"] < rows[2]["validation_loss"]
    state = weights(tmp_path / "run", "best.ckpt")[0]["state"]
    assert state["best_loss"] == pytest.approx(min(row["validation_loss"] for row in rows[2:]))
    log = (tmp_path / "run" / "train.log").read_text()
    assert (
        log.index("    2  ")
        < log.index("The second stage begins: energy 1000, forces 2.")
        < log.index("    3  ")
    )


@pytest.mark.parametrize(
    "options",
    [
        ("training.schedule={kind: plateau, patience: 1}",),
        ("training.optimizer={kind: levenberg_marquardt}",),
    ],
)
def test_a_run_continues_in_its_stage(configure, monkeypatch, tmp_path, quick_train, options):
    """After stops in the last epoch of the first stage and in the middle of the second one."""
    quick_train(configure(STAGES, *options), tmp_path / "whole")
    per_epoch = weights(tmp_path / "whole")[0]["state"]["step"] // 4
    for step in (2 * per_epoch - 1, 3 * per_epoch):
        with monkeypatch.context() as patched:
            stop_at(patched, step)
            with pytest.raises(Interrupted):
                quick_train(configure(STAGES, *options), tmp_path / "parts", restart=True)
    quick_train(configure(STAGES, *options), tmp_path / "parts", restart=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    assert weights(tmp_path / "parts")[0]["state"]["stage"] == 1


def test_early_stopping_of_the_first_stage_begins_the_second(configure, tmp_path, quick_train):
    options = ("training.learning_rate=1e-300", "training.early_stopping=2", "training.epochs=40")
    quick_train(configure(STAGES, *options), tmp_path / "run")
    assert "the validation loss has not improved for 2 epochs" in (tmp_path / "run" / "train.log").read_text()
    state = weights(tmp_path / "run")[0]["state"]
    assert (state["epoch"], state["best_epoch"], state["stage"]) == (7, 4, 1)


@pytest.mark.parametrize("kind", ["adamw", "shampoo_adam"])
def test_diverged_training_says_so(configure, tmp_path, quick_train, kind):
    diverge = (
        "training.learning_rate=1e300",
        "training.gradient_clipping=null",
        f"training.optimizer={{kind: {kind}}}",
    )
    with pytest.raises(NearsightError, match=r"loss is not finite in epoch 1; lower training.learning_rate"):
        quick_train(configure(*diverge), tmp_path / "run")


def test_weighted_target_without_labels(configure, tmp_path, quick_train):
    with pytest.raises(DataError, match=r"training.loss.forces is 1, but no frame .* has forces \(key 'F'\)"):
        quick_train(configure("data.keys.forces=F"), tmp_path / "run")
    quick_train(
        configure("data.keys.forces=F", "training.loss.forces=0", "training.epochs=1"), tmp_path / "energies"
    )


def test_separate_and_mixed_sources(configure, data_file, tmp_path, quick_train, monkeypatch):
    monkeypatch.chdir(data_file.parent)
    write_extxyz(data_file.parent / "other.xyz", boxes(3, seed=9))
    folder = tmp_path / "run"
    quick_train(configure("data.validation=other.xyz", "data.training_size=10", "training.epochs=1"), folder)
    counts = read_metadata(folder / "model.pt")["provenance"]["num_frames"]
    assert counts["validation"] == 3 and counts["training"] <= 10 and counts["test"] == 4
    assert "through" in (folder / "split" / "validation.txt").read_text()
    with pytest.raises(DataError, match="validation set is empty"):
        quick_train(configure("data.validation=0"), tmp_path / "empty")
    write_extxyz(data_file.parent / "other.xyz", [boxes(1, isolated_atoms=True)[-1]])
    with pytest.raises(DataError, match="nothing but isolated atoms"):
        quick_train(
            configure("data.training=other.xyz", "data.validation=data.xyz", "data.test=0"),
            tmp_path / "atoms",
        )


def test_weights_of_config_types(configure, data_file, tmp_path, quick_train, monkeypatch):
    """Validation losses before anything is learned; σ has no weights."""
    monkeypatch.chdir(data_file.parent)
    frames = boxes(12)
    for number, frame in enumerate(frames):
        frame.info["config_type"] = "some" if number % 2 else "others"
    write_extxyz(data_file.parent / "types.xyz", frames)

    def loss(*overrides):
        folder = tmp_path / f"run {len(overrides)}"
        options = ("data.training=types.xyz", "data.reference_energies={Ne: -2.0, Ar: -5.0}", "data.test=0")
        quick_train(
            configure(*options, "training.learning_rate=1e-300", "training.epochs=1", *overrides), folder
        )
        return read_metrics(folder)[0]["validation_loss"]

    assert loss("data.weights={some: 0.5, others: 0.5}") == pytest.approx(loss() / 2)
    message = (
        r"data.weights names 'surface', but no frame .* config_type \(found: others, some\); leave it out"
    )
    with pytest.raises(DataError, match=message):
        loss("data.weights={surface: 2}", "seed=1")


def test_unknown_species_in_the_validation_set(configure, data_file, tmp_path, quick_train, monkeypatch):
    monkeypatch.chdir(data_file.parent)
    frame = boxes(1)[0]
    frame.symbols[2] = "Kr"
    write_extxyz(data_file.parent / "krypton.xyz", [frame])
    with pytest.raises(DataError, match=r"krypton.xyz, frame 0 holds Kr, but the model knows only Ne, Ar"):
        quick_train(configure("data.validation=krypton.xyz"), tmp_path / "run")


def test_symmetry_functions_that_do_not_fit_the_species(configure, tmp_path, quick_train):
    functions = "{Ne: [{kind: radial, neighbors: [Ne], eta: 1.0, cutoff: 4.0}]}"
    with pytest.raises(ConfigError, match="model: symmetry_functions must list every species"):
        quick_train(configure(f"model.descriptor.symmetry_functions={functions}"), tmp_path / "run")


def test_two_states_can_be_trained(configure, tmp_path, quick_train):
    """The eigenstate couple through the whole path: energy is the lower eigenvalue of a matrix."""
    quick_train(configure("model.states=2", "training.epochs=2"), tmp_path / "run")
    assert read_metadata(tmp_path / "run" / "model.pt")["couple"] == {
        "kind": "eigenstate",
        "states": 2,
        "state": 0,
    }


def test_ani_vectors_can_be_trained(configure, tmp_path, quick_train):
    """A descriptor with one set of features for all species through the whole path."""
    config = configure(
        "model.descriptor={kind: ani, start: 1.5}", "model.activation=celu", "training.epochs=2"
    )
    quick_train(config, tmp_path / "run")
    record = read_metadata(tmp_path / "run" / "model.pt")["hyperparameters"]["descriptor"]
    assert (record["kind"], record["radial"]["cutoff"], record["angular"]["shifts"][0]) == (
        "ani",
        CUTOFF,
        1.5,
    )


def test_dry_run_writes_nothing(configure, tmp_path, capsys, quick_train):
    quick_train(configure(), tmp_path / "run", dry_run=True)
    assert "Dry run: the loss of one batch before training is" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_unexpected_failures_become_a_sentence(configure, monkeypatch, tmp_path, quick_train):
    def fail(*_):
        raise ZeroDivisionError("of a test")

    monkeypatch.setattr(Trainer, "run", fail)
    with pytest.raises(
        NearsightError, match=r"failed with ZeroDivisionError: of a test \(the traceback is in"
    ):
        quick_train(configure(), tmp_path / "run")
    assert "ZeroDivisionError: of a test" in (tmp_path / "run" / "error.log").read_text()


def test_checkpoints_are_found(configure, monkeypatch, tmp_path, quick_train):
    with pytest.raises(NearsightError, match="neither a checkpoint nor a run directory"):
        find_checkpoint(tmp_path)
    with monkeypatch.context() as patched:
        stop_at(patched, step=1)
        with pytest.raises(Interrupted):
            quick_train(configure(), tmp_path / "run")
    assert find_checkpoint(tmp_path / "run").name == "last.ckpt"
    quick_train(configure(), tmp_path / "run", restart=True)
    assert find_checkpoint(tmp_path / "run").name == "best.ckpt"
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert find_checkpoint(last) == last
