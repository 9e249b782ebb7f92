"""Training of MACE and PaiNN on the toy: the loss falls, and the exported file has the trained forces."""

import pytest
import torch
from training_toy import CUTOFF, boxes

from nearsight.couple import evaluate
from nearsight.data import write_extxyz
from nearsight.errors import ConfigError
from nearsight.export import read_metadata
from nearsight.interfaces.ase import Calculator
from nearsight.neighbors import make_graph
from nearsight.training import load_config, plots, read_checkpoint, train
from nearsight.training.datasets import read_sets
from nearsight.training.logbook import SilentLogbook, read_metrics
from nearsight.training.preparation import prepare
from nearsight.training.processes import ALONE
from nearsight.training.run import restore_model

CONFIG = f"""
data:
  training: data.xyz
  validation: 0.2
model:
  cutoff: {CUTOFF}
  channels: 6
  num_interactions: 2
training:
  epochs: 6
  batch_size: 4
  optimizer: {{kind: adamw, amsgrad: true}}
  schedule: {{kind: cosine, warmup_steps: 5}}
"""


@pytest.fixture
def configure(tmp_path):
    write_extxyz(tmp_path / "data.xyz", boxes(20, isolated_atoms=True))
    (tmp_path / "train.yaml").write_text(CONFIG)
    return lambda *overrides: load_config(tmp_path / "train.yaml", overrides)


@pytest.mark.parametrize("architecture", ["mace", "painn"])
def test_a_run(configure, tmp_path, monkeypatch, architecture):
    monkeypatch.setattr(plots, "plot_parity", lambda *_, **__: [])
    monkeypatch.setattr(plots, "plot_history", lambda *_: None)
    folder = tmp_path / "run"
    train(configure(f"model.architecture={architecture}"), folder)
    losses = [row["training_loss"] for row in read_metrics(folder)]
    assert losses[-1] < 0.8 * losses[0]

    file = folder / "model.pt"
    metadata = read_metadata(file)
    assert metadata["architecture"] == architecture
    assert metadata["num_interactions"] == 2
    content = read_checkpoint(folder / "checkpoints" / "best.ckpt")
    assert content["optimizer"]["adam"]["param_groups"][0]["amsgrad"]
    model = restore_model(content)
    frame = boxes(1, seed=5)[0]
    kinds = [model.species.index(symbol) for symbol in frame.symbols]
    graph = make_graph(frame.positions, kinds, frame.cell, frame.pbc, model.cutoff)
    expected = evaluate(model, graph, model.couple)
    atoms = frame_atoms(frame)
    atoms.calc = Calculator(file)
    shift = sum(metadata["reference_energies"][symbol] for symbol in frame.symbols)
    assert atoms.get_potential_energy() == pytest.approx(float(expected.energy) + shift, abs=1e-9)
    difference = torch.from_numpy(atoms.get_forces()) - expected.forces
    assert difference.abs().max() < 1e-9 * expected.forces.abs().max()


def test_stored_edges_change_nothing(configure, tmp_path):
    """Edges of all frames are kept where they fit into memory."""
    losses = []
    for bound in (4.0, 1e-5):
        trainer, _ = prepared(
            configure("model.architecture=mace", "training.precision=double", f"training.cache_gb={bound}"),
            tmp_path,
        )
        losses.append(
            [
                trainer.optimizer.step([trainer.data.training[n] for n in batch], len(batch), 0, 0.0)
                for batch in ([0, 1, 2], [3, 4])
            ]
        )
        assert all(bool(one.stored) == (bound == 4.0) for one in trainer.data.training.values())
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


def prepared(config, folder):
    sets = read_sets(config.data, config.training.loss)
    return prepare(config, sets, SilentLogbook(folder), ALONE, None, False)


def frame_atoms(frame):
    from ase import Atoms

    return Atoms(frame.symbols, frame.positions, cell=frame.cell, pbc=frame.pbc)


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["training.backend=native"], "no native training for 'painn'"),
        (["training.optimizer={kind: levenberg_marquardt}"], "needs the native backend and a descriptor"),
        (["model.l_max=3"], "Unknown key 'l_max' in model"),
        (["model.channels=0"], "model.channels is 0, expected greater than or equal to 1"),
    ],
)
def test_what_cannot_be_trained(configure, tmp_path, overrides, match):
    with pytest.raises(ConfigError, match=match):
        train(configure("model.architecture=painn", *overrides), tmp_path / "run", dry_run=True)


def test_wrong_irreps(configure):
    with pytest.raises(ConfigError, match=r"hidden needs the scalars 0e, found '1o'"):
        configure("model.architecture=mace", "model.hidden=1o")
