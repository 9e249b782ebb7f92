"""Levenberg-Marquardt: its rows against autograd, its step against the formula, and whole runs."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from core.core_models import random_box, random_bpnn
from numpy.testing import assert_allclose
from training_toy import CUTOFF, boxes

from nearsight import keys
from nearsight.couple import evaluate
from nearsight.data import write_extxyz
from nearsight.errors import ConfigError
from nearsight.models.native import NativeBPNN
from nearsight.neighbors import make_graph
from nearsight.training import load_config, plots, read_checkpoint, train
from nearsight.training.batches import Batch, join
from nearsight.training.config import LevenbergMarquardtConfig, TrainingConfig
from nearsight.training.jacobian import model_rows
from nearsight.training.logbook import read_metrics
from nearsight.training.loss import Loss
from nearsight.training.processes import ALONE
from nearsight.training.second_order import MAX_PARAMETERS, LevenbergMarquardt, NormalMatrix
from nearsight.training.stored import STRAINS, StoredModule, store_frame

LOSS = Loss(
    weights={"energy": 1.0, "forces": 2.0, "virial": 0.5},
    sigmas={"energy": 1.5, "forces": 0.7, "virial": 3.0},
)


def batches(model, count=3):
    """Frames with random targets and stored descriptors; the last one has two atoms without neighbors."""
    rng = np.random.default_rng(5)
    graphs = [
        make_graph(x, s, c, [True] * 3, model.cutoff) for x, s, c in (random_box(k, 9) for k in range(count))
    ]
    graphs.append(make_graph([[0, 0, 0], [0, 9, 0]], [0, 1], np.zeros((3, 3)), [False] * 3, model.cutoff))
    native = NativeBPNN(model, 1)
    found = []
    for graph in graphs:
        n = graph.num_atoms
        shapes = {keys.ENERGY: (1,), keys.FORCES: (n, 3), keys.VIRIAL: (1, 3, 3)}
        targets = {name: torch.from_numpy(rng.normal(size=shape)) for name, shape in shapes.items()}
        targets[keys.VIRIAL] += targets[keys.VIRIAL].transpose(1, 2).clone()
        present = {name: torch.ones(1, dtype=torch.float64) for name in shapes}
        stored = store_frame(native, graph, derivatives=True, collective=True)
        found.append(Batch(graph, torch.tensor([float(n)], dtype=torch.float64), targets, present, (stored,)))
    found[1].present[keys.ENERGY].zero_()
    found[2].present[keys.FORCES].zero_()
    return found


def optimizer(model, threads=1, **options):
    config = LevenbergMarquardtConfig(kind="levenberg_marquardt", **options)
    training = TrainingConfig(optimizer=config, threads=threads)
    return LevenbergMarquardt(training, 3, model, LOSS, ALONE, num_frames=4)


def flat(tensors):
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def results_of(model, batch):
    """Energies, virials by `STRAINS` and forces of a batch in one vector, differentiable by parameters."""
    module = StoredModule(NativeBPNN(model, 1), batch.stored)
    found = evaluate(module, batch.graph, model.couple, create_graph=True)
    virials = torch.stack([found.virial[:, a, b] for a, b in STRAINS], dim=1)
    return torch.cat([found.energy, virials.reshape(-1), found.forces.reshape(-1)])


def jacobian_of(model, results):
    rows = [
        torch.autograd.grad(r, model.parameters(), retain_graph=True, materialize_grads=True) for r in results
    ]
    return torch.stack([flat(row) for row in rows])


@pytest.mark.parametrize(
    "network",
    [
        {"hidden": [6]},
        {"hidden": [5, 4], "activation": "silu"},
        {"hidden": [4, 3, 5]},
        {"hidden": [5], "directions": 7},
    ],
)
def test_rows_against_autograd(network):
    model = random_bpnn(**network)
    for species in model.networks:
        species.mixing.normal_()
    model = model.on_inputs()
    batch = join(batches(model))
    atoms = torch.tensor([0, 4, 11, 26, 27, 28])
    expected = jacobian_of(model, results_of(model, batch))
    chosen = torch.cat([torch.arange(4 + 24), (28 + 3 * atoms.unsqueeze(1) + torch.arange(3)).view(-1)])
    found = model_rows(model, batch, atoms, virial=True)
    assert_allclose(found, expected[chosen], rtol=0, atol=2e-6 * float(expected.abs().max()))
    without = model_rows(model, batch, atoms[:0], virial=False)
    assert torch.equal(without, found[:4])


def test_a_step_solves_the_normal_equations():
    """All frames, all forces, no memory: the textbook method, with residuals and J from autograd."""
    model = random_bpnn(hidden=[4])
    parts = batches(model)
    batch = join(parts)
    found = results_of(model, batch)
    virials = torch.stack([batch.targets[keys.VIRIAL][:, a, b] for a, b in STRAINS], dim=1)
    targets = torch.cat([batch.targets[keys.ENERGY], virials.view(-1), batch.targets[keys.FORCES].view(-1)])
    per_frame = {
        name: LOSS.weights[name] / LOSS.sigmas[name] ** 2 * batch.present[name] for name in LOSS.weights
    }
    strains = torch.tensor([1, 1, 1, 2, 2, 2]) / 9
    of_atoms = (per_frame[keys.FORCES] / (3 * batch.num_atoms))[batch.graph.frame].repeat_interleave(3)
    weights = torch.cat(
        [per_frame[keys.ENERGY], torch.outer(per_frame[keys.VIRIAL], strains).view(-1), of_atoms]
    )
    rows = weights.sqrt().unsqueeze(1) / 2 * jacobian_of(model, found)  # of the mean over four frames
    residuals = weights.sqrt() / 2 * (found - targets).detach()
    normal = rows.T @ rows
    damped = normal + 0.3 * normal.diagonal().mean() * torch.eye(len(normal))
    before = flat(model.parameters())

    lm = optimizer(
        model, batch_frames=None, force_fraction=1.0, memory=0.0, step=1.0, final_step=1.0, damping=0.3
    )
    assert lm.batch_size == 4
    loss = lm.step(parts, 4, step=0, fraction=0.0)
    assert loss == pytest.approx(4 * float((residuals**2).sum()), rel=1e-6)
    move = flat(model.parameters()) - before
    expected = -torch.linalg.solve(damped, rows.T @ residuals)
    assert float((move - expected).norm() / expected.norm()) < 1e-4
    assert lm.damping != 0.3  # it follows the gain ratio


def test_loss_falls_monotonically():
    model = random_bpnn(hidden=[8])
    parts = batches(model)
    lm = optimizer(model, batch_frames=None, force_fraction=1.0, memory=0.0, step=1.0, final_step=1.0)
    losses = [lm.step(parts, 4, step, 0.0) for step in range(25)]
    assert all(b <= a for a, b in pairwise(losses))
    assert losses[-1] < 0.2 * losses[0]


def test_a_step_that_raises_the_loss_is_undone(monkeypatch):
    model = random_bpnn(hidden=[4])
    parts = batches(model)
    lm = optimizer(model)
    before = flat(model.parameters())
    monkeypatch.setattr(lm, "_loss", lambda *_: float("nan"))
    lm.step(parts, 4, step=0, fraction=0.0)
    assert torch.equal(flat(model.parameters()), before)
    assert lm.damping == 0.2


def test_results_do_not_depend_on_threads():
    trained = []
    for threads in (1, 3):
        model = random_bpnn(hidden=[6])
        lm = optimizer(model, threads, force_fraction=0.5)
        for step in range(3):
            lm.step(batches(model), 4, step, step / 3)
        trained.append(flat(model.parameters()))
    assert torch.equal(*trained)


def test_normal_matrix():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 21)))
    matrix = NormalMatrix(21)
    lm = optimizer(random_bpnn(hidden=[4]))
    matrix.add(rows[:10], lm.pool)
    matrix.add(rows[10:], lm.pool)
    dense = rows.T @ rows
    assert_allclose(matrix.values.tril(), dense.tril(), rtol=1e-13, atol=1e-13)
    vector = rows[3]
    assert matrix.quadratic(vector) == pytest.approx(float(vector @ dense @ vector), rel=1e-13)

    factor = torch.linalg.cholesky(dense + 0.5 * torch.eye(21))
    assert_allclose(matrix.factor(0.5, lm.pool).tril(), factor, rtol=1e-12, atol=1e-12)
    assert matrix.factor(-10.0, lm.pool) is None
    assert_allclose(matrix.values.tril(), dense.tril(), rtol=1e-13, atol=1e-13)


def test_indefinite_by_round_off():
    """More parameters than equations and hardly any damping: the damping grows until the factor exists."""
    model = random_bpnn(hidden=[6])
    lm = optimizer(model, memory=0.0, damping=1e-300)
    assert np.isfinite(lm.step(batches(model), 4, 0, 0.0))
    assert lm.damping > 1e-20
    assert bool(torch.isfinite(flat(model.parameters())).all())


# ---- whole runs

RUN = f"""
data: {{training: data.xyz, validation: 0.2, test: 4}}
model: {{cutoff: {CUTOFF}, hidden: [8]}}
training:
  epochs: 4
  optimizer: {{kind: levenberg_marquardt, batch_frames: 5, force_fraction: 0.5}}
"""


@pytest.fixture
def configure(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "plot_parity", lambda *_, **__: [])
    monkeypatch.setattr(plots, "plot_history", lambda *_: None)
    write_extxyz(tmp_path / "data.xyz", boxes(24, isolated_atoms=True))
    (tmp_path / "train.yaml").write_text(RUN)
    return lambda *overrides: load_config(tmp_path / "train.yaml", overrides)


def test_a_run_learns_faster_than_adamw(configure, tmp_path):
    train(configure("training.epochs=15"), tmp_path / "second")
    adamw = ("training.optimizer={kind: adamw}", "training.learning_rate=0.01", "training.batch_size=5")
    train(configure("training.epochs=15", *adamw), tmp_path / "first")
    losses = {
        name: min(row["validation_loss"] for row in read_metrics(tmp_path / name))
        for name in ("first", "second")
    }
    assert losses["second"] < 0.1 * losses["first"]
    last = read_metrics(tmp_path / "second")[-1]
    assert last["damping"] > 0 and last["learning_rate"] < 0.1
    assert (tmp_path / "second" / "model.pt").is_file()
    assert "Descriptors are stored, their derivatives with" in (tmp_path / "second" / "train.log").read_text()


def test_a_run_continues_bit_for_bit(configure, tmp_path):
    """With a step that does not depend on the length of the run."""
    constant = "training.optimizer.final_step=0.5"
    train(configure(constant), tmp_path / "whole")
    train(configure(constant, "training.epochs=2"), tmp_path / "parts")
    train(configure(constant), tmp_path / "parts", restart=True)
    one, two = (read_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("whole", "parts"))
    assert all(torch.equal(a, b) for a, b in zip(one["weights"], two["weights"]))
    assert torch.equal(one["optimizer"]["matrix"], two["optimizer"]["matrix"])
    assert one["optimizer"]["damping"] == two["optimizer"]["damping"]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "model.states=2",
            r"trains networks with one energy per atom, but the couple .* is \{'kind': 'eigenstate'",
        ),
        ("model.hidden=[400]", f"takes at most {MAX_PARAMETERS:,} parameters, .* but the model has 38,"),
        ("training.backend=torch", "needs the native backend and a descriptor without trained parameters"),
        (
            "training.optimizer.kind=sgd",
            r"training.optimizer.kind is 'sgd', expected one of 'adamw', 'shampoo_adam', 'levenberg",
        ),
        ("training.optimizer.stride=3", "Unknown key 'stride' in training.optimizer"),
    ],
)
def test_mistakes(configure, tmp_path, override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        train(configure(override), tmp_path / "run")
