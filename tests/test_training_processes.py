"""Several processes train as one, stop as one and fail as one."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from numpy.testing import assert_allclose
from processes_for_tests import run_processes
from training_toy import CUTOFF, boxes

from nearsight.data import write_extxyz
from nearsight.errors import ConfigError
from nearsight.export import read_metadata
from nearsight.training import join_processes, load_config, plots, read_checkpoint, train
from nearsight.training.logbook import read_metrics

CONFIG = f"""
data: {{training: data.xyz, validation: 0.2, test: 4}}
model: {{cutoff: {CUTOFF}, hidden: [5]}}
training:
  epochs: 3
  batch_size: 2  # one frame for each of two processes; of 15 frames the last batch has one
  schedule: {{kind: plateau, patience: 1}}
  loss: {{virial: 0.1}}
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with data and configuration."""
    write_extxyz(tmp_path / "data.xyz", boxes(24, isolated_atoms=True))
    (tmp_path / "train.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def train_alone(folder, monkeypatch):
    """Train in this process, without pictures."""
    monkeypatch.setattr(plots, "plot_parity", lambda *_, **__: [])
    monkeypatch.setattr(plots, "plot_history", lambda *_: None)

    def train_here(name, *overrides, restart=False):
        train(load_config(folder / "train.yaml", overrides), folder / name, restart)

    return train_here


def assert_same_run(one, two, rtol=1e-10):
    """Weights and everything in metrics.csv but the time, to round-off of double sums."""
    first, second = (read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (one, two))
    for a, b in zip(first["weights"], second["weights"]):
        torch.testing.assert_close(a, b, rtol=rtol, atol=0.01 * rtol)
    rows, others = read_metrics(one), read_metrics(two)
    assert len(rows) == len(others)
    for row, other in zip(rows, others):
        assert row.keys() == other.keys()
        for name in row.keys() - {"elapsed"}:
            assert_allclose(other[name], row[name], rtol=max(rtol, 2e-9))  # of ten digits


@pytest.mark.parametrize(
    ("optimizer", "rtol"), [("{kind: adamw}", 1e-10), ("{kind: shampoo_adam, frequency: 2}", 1e-4)]
)
def test_two_processes_train_as_one(folder, train_alone, optimizer, rtol):
    """Small components of the gradient are divided by their size, with their round-off."""
    option = f"training.optimizer={optimizer}"
    train_alone("one", option)
    codes, errors = run_processes(2, folder, "train.yaml", "--output", "two", "-o", option)
    assert codes == [0, 0] and errors == ["", ""]
    assert_same_run(folder / "one", folder / "two", rtol)
    assert (folder / "out1").read_text() == ""
    assert read_metadata(folder / "two" / "model.pt")["provenance"]["num_frames"]["training"] == 15
    assert "Every batch is divided over 2 processes." in (folder / "two" / "train.log").read_text()


def test_two_processes_are_one_in_second_order(folder, train_alone):
    """The inverse of a matrix amplifies the round-off of its sum."""
    options = "{kind: levenberg_marquardt, batch_frames: 6, force_fraction: 0.5}"
    train_alone("one", f"training.optimizer={options}")
    codes, errors = run_processes(
        2, folder, "train.yaml", "--output", "two", "-o", f"training.optimizer={options}"
    )
    assert codes == [0, 0] and errors == ["", ""]
    assert_same_run(folder / "one", folder / "two", rtol=1e-6)


def test_a_run_continues_with_another_number_of_processes(folder, train_alone):
    """A signal to one process stops both after the same batch; then one goes on alone.

    The processes compare notes every tenth of a second and at the end of each epoch of eight batches: a
    signal after the tenth batch is heard after the seventeenth at the latest.
    """
    train_alone("one")
    codes, errors = run_processes(2, folder, "train.yaml", "--output", "two", breaks={1: (10, "SIGINT")})
    assert codes == [128 + signal.SIGINT] * 2
    assert sum("Interrupted in epoch" in error for error in errors) == 1
    assert 11 <= read_checkpoint(folder / "two" / "checkpoints" / "last.ckpt")["state"]["step"] <= 17
    train_alone("two", restart=True)
    assert_same_run(folder / "one", folder / "two")


def test_a_process_that_fails_ends_all_with_one_sentence(folder):
    codes, errors = run_processes(2, folder, "train.yaml", "--output", "run", breaks={1: (3, "fail")})
    assert codes == [1, 1]
    sentence = "Training failed with MemoryError: of a test (the traceback is in run/error.log)."
    assert errors == ["", f"nearsight: {sentence}\n"]
    assert "MemoryError: of a test" in (folder / "run" / "error.log").read_text()


def test_a_process_that_is_killed_ends_all_with_one_sentence(folder):
    codes, errors = run_processes(2, folder, "train.yaml", "--output", "run", breaks={1: (3, "SIGKILL")})
    assert codes == [1, -signal.SIGKILL]
    assert errors[0].startswith("nearsight: Another process of the run has ended unexpectedly")
    assert errors[0].endswith("continue with --restart auto.\n")


def test_a_mistake_that_all_make_is_said_once(folder):
    codes, errors = run_processes(3, folder, "train.yaml", "--output", "run")
    assert codes == [1, 1, 1]
    assert "".join(errors) == (
        "nearsight: a batch has 2 frame(s) for 3 processes; start at most as many processes as "
        "a batch has frames, or take larger batches.\n"
    )


def test_processes_that_do_not_find_one_another(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE is 2, but .* start them with torchrun, or unset"):
        join_processes().__enter__()


def test_torchrun(folder):
    command = "-m torch.distributed.run --nproc-per-node 2 -m nearsight train train.yaml --output run"
    done = subprocess.run(
        [sys.executable, *command.split(), "-o", "training.epochs=1"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Training ended: all 1 epochs are done.") == 1
    assert (folder / "run" / "model.pt").is_file()
