"""The command line: every command does its work, and every mistake gets one sentence and exit code 1."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from training_toy import CUTOFF, boxes

from nearsight import __version__
from nearsight.cli.app import COMMANDS
from nearsight.data import read_frames, write_extxyz
from nearsight.interfaces.potential import Potential

TEN_LINES = f"""
data:
  training: data.xyz
  validation: 0.2
model:
  cutoff: {CUTOFF}
  hidden: [8]
training:
  epochs: 2
  batch_size: 4
  loss: {{virial: 0.1}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with data and configuration, as the working directory."""
    write_extxyz(tmp_path / "data.xyz", boxes(14, isolated_atoms=True))
    (tmp_path / "train.yaml").write_text(TEN_LINES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory, made once."""
    folder = tmp_path_factory.mktemp("trained")
    write_extxyz(folder / "data.xyz", boxes(14, isolated_atoms=True))
    (folder / "train.yaml").write_text(TEN_LINES)
    command = [sys.executable, "-c", "from nearsight.cli import main; main()", "train", "train.yaml"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "runs" / "train"


def test_training_goes_to_runs_and_restarts(folder, run):
    code, out, err = run("train", "train.yaml", "-o", "training.epochs=1", "-o", "seed=3")
    assert (code, err) == (0, "")
    assert "Model written to runs/train/model.pt" in out
    code, out, err = run("train", "train.yaml", "-o", "seed=3", "--restart", "auto")
    assert code == 0 and "Continuing at epoch 2, step 3." in out
    code, out, err = run("train", "train.yaml", "-o", "seed=4", "--restart", "auto")
    assert code == 1 and err.startswith("nearsight: The run cannot be continued")
    assert "seed: 3 → 4" in err


def test_dry_run_writes_nothing(folder, run):
    code, out, _ = run("train", "train.yaml", "--dry-run")
    assert code == 0 and "Dry run" in out
    assert sorted(path.name for path in folder.iterdir()) == ["data.xyz", "train.yaml"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("train", "none.yaml"),
            "nearsight: Configuration 'none.yaml' cannot be read: No such file or directory.",
        ),
        (
            ("train", "train.yaml", "-o", "training.epoch=1"),
            "nearsight: Unknown key 'epoch' in training; did you",
        ),
        (
            ("train", "train.yaml", "-o", "data.keys.forces=F"),
            "nearsight: training.loss.forces is 1, but no frame",
        ),
        (("info", "train.yaml"), "train.yaml"),
        (("evaluate", "none.pt", "data.xyz"), "none.pt"),
        (
            ("export", "nowhere", "-o", "model.pt"),
            "nearsight: 'nowhere' is neither a checkpoint nor a run directory",
        ),
        (
            ("export", "x.pt", "-o", "y.pt", "--target", "torchforce"),
            "nearsight: --target torchforce needs --struct",
        ),
        (("train", "train.yaml", "--output", "data.xyz"), "nearsight: data.xyz: File exists"),
    ],
)
def test_mistakes_get_one_sentence(folder, run, arguments, sentence):
    code, _, err = run(*arguments)
    assert code == 1
    assert sentence in err
    assert err.startswith("nearsight: ") and err.count("\n") == 1 and "Traceback" not in err


def test_traceback_of_a_failed_run_is_kept(folder, run):
    run("train", "train.yaml", "-o", "data.keys.forces=F")
    assert "Traceback" in (folder / "runs" / "train" / "error.log").read_text()


def test_evaluate_measures_plots_and_predicts(trained, folder, run):
    code, out, _ = run("evaluate", trained / "model.pt", "data.xyz", "--plots", "out")
    assert code == 0 and "native backend" in out and "forces on Ar" in out
    predictions = read_frames(folder / "out" / "predictions.xyz")
    potential = Potential(trained / "model.pt")
    squares = []
    for frame, expected in zip(predictions, read_frames("data.xyz")):
        results = potential.compute(expected.positions, expected.symbols, expected.cell, expected.pbc)
        np.testing.assert_allclose(frame.info["nearsight_energy"], results.energy, atol=1e-7)
        np.testing.assert_allclose(frame.info["nearsight_forces"], results.forces, atol=1e-7)
        np.testing.assert_allclose(frame.info["nearsight_virial"], results.virial, atol=1e-7)
        squares.append((results.forces - expected.labels["forces"]) ** 2)
    errors = json.loads((folder / "out" / "errors.json").read_text())
    assert errors["forces"]["rmse"] == pytest.approx(1000 * np.sqrt(np.concatenate(squares).mean()))
    assert (folder / "out" / "parity_virial.png").is_file()


def test_both_backends_measure_the_same(trained, folder, run):
    results = []
    for backend in ("native", "torchscript"):
        code, out, _ = run("evaluate", trained / "model.pt", "data.xyz", "--backend", backend)
        assert code == 0 and f"{backend} backend" in out
        results.append(out.replace(backend, ""))
    assert results[0] == results[1]


def test_evaluate_finds_other_keys_and_refuses_wrong_ones(trained, folder, run):
    text = (folder / "data.xyz").read_text().replace("REF_energy", "dft")
    (folder / "other.xyz").write_text(text.replace("REF_forces", "f").replace("REF_virial", "w"))
    code, out, _ = run("evaluate", trained / "model.pt", "other.xyz")
    assert code == 0 and "No labels were found" in out
    code, out, _ = run("evaluate", trained / "model.pt", "other.xyz", "--key", "energy=dft")
    assert code == 0 and "energy per atom" in out and "forces" not in out
    code, _, err = run("evaluate", trained / "model.pt", "other.xyz", "--key", "dft")
    assert code == 1 and "--key 'dft' must be LABEL=KEY with a label of energy, forces" in err


def test_evaluate_names_the_frame_with_an_unknown_species(trained, folder, run):
    frame = boxes(1)[0]
    frame.symbols[0] = "Kr"
    write_extxyz("krypton.xyz", [frame])
    code, _, err = run("evaluate", trained / "model.pt", "krypton.xyz")
    assert code == 1 and err.startswith("nearsight: krypton.xyz, frame 0: atom 0 is Kr, which the model")


def test_evaluate_in_batches_measures_the_same_and_names_the_frame(trained, folder, run):
    together, alone = (
        run("evaluate", trained / "model.pt", "data.xyz", "--threads", 2, *more)
        for more in ((), ("--batch-atoms", 1))
    )
    assert together == alone and together[0] == 0
    frames = boxes(4)
    frames[2].positions[1] = frames[2].positions[0] + [0.0, 5e-4, 0.0]
    write_extxyz("close.xyz", frames)
    code, _, err = run("evaluate", trained / "model.pt", "close.xyz")
    assert code == 1 and "close.xyz, frame 2" in err


def test_export_of_a_run_and_of_a_checkpoint(trained, folder, run):
    code, out, _ = run("export", trained, "-o", "best.pt")
    assert code == 0 and out == "best.pt written.\n"
    assert run("export", trained / "checkpoints" / "best.ckpt", "-o", "same.pt")[0] == 0
    frame = boxes(1)[0]
    energies = [
        Potential(path).compute(frame.positions, frame.symbols, frame.cell, frame.pbc).energy
        for path in (trained / "model.pt", "best.pt", "same.pt")
    ]
    assert energies[0] == energies[1] == energies[2]


def test_export_for_openmm_torch(trained, folder, run):
    arguments = ("export", trained, "-o", "force.pt", "--target", "torchforce", "--structure")
    write_extxyz("slab.xyz", boxes(1))
    (folder / "slab.xyz").write_text((folder / "slab.xyz").read_text().replace("T T T", "T T F"))
    code, _, err = run(*arguments, "slab.xyz")
    assert code == 1 and "OpenMM wants all three directions periodic, or none" in err
    assert run(*arguments, "data.xyz")[0] == 0
    assert (folder / "force.pt").is_file()


def test_info_shows_the_file_and_its_json(trained, run):
    code, out, _ = run("info", trained / "model.pt")
    assert code == 0 and "bpnn" in out and "isolated_atoms" in out
    code, out, _ = run("info", trained / "model.pt", "--json")
    assert json.loads(out)["species"] == ["Ne", "Ar"]


def test_info_needs_neither_torch_nor_the_core(trained):
    block = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "ase", "numpy") or name == "nearsight.lib":
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
from nearsight.cli import main
main()
"""
    command = [sys.executable, "-c", block, "info", str(trained / "model.pt")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Ne Ar" in result.stdout


def test_version(run):
    code, out, _ = run("--version")
    assert code == 0
    assert out.splitlines()[0] == f"nearsight {__version__}"
    assert any(f"core with {name} kernels" in out for name in ("avx512", "avx2", "baseline"))


def test_help_teaches_every_command(run):
    code, out, _ = run("--help")
    assert code == 0 and "nearsight train train.yaml" in out
    for name in COMMANDS:
        code, out, _ = run(name, "--help")
        assert code == 0 and re.search(rf"^  nearsight {name}\b", out, re.MULTILINE)  # on a line of its own


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(folder):
    command = [sys.executable, "-c", "from nearsight.cli import main; main()", "train", "train.yaml"]
    command += ["-o", "training.epochs=100000", "--output", "run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = folder / "run" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted in epoch" in err and "Traceback" not in err
    assert "nearsight train train.yaml -o 'training.epochs=100000' --output run --restart auto" in err
    assert "nearsight export run -o model.pt" in err
    assert (folder / "run" / "checkpoints" / "last.ckpt").is_file()
