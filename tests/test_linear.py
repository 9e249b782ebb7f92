"""Linear models: the solver against dense closed forms, the fit against its loss, and whole runs."""

import csv
import json

import numpy as np
import pytest
import torch
from processes_for_tests import run_processes
from reference_data import reference_data
from training_toy import CUTOFF, boxes

from nearsight import keys
from nearsight.couple import evaluate
from nearsight.data import write_extxyz
from nearsight.errors import ConfigError
from nearsight.export import read_metadata
from nearsight.interfaces.potential import Potential
from nearsight.models import ACEConfig, LinearConfig, build_model, training_module
from nearsight.models.linear import Triangle, bayesian_ridge
from nearsight.training import load_config, plots, read_checkpoint, train
from nearsight.training.batches import join, make_batch
from nearsight.training.config import RegressionConfig
from nearsight.training.config_file import parse_config
from nearsight.training.loss import Loss
from nearsight.training.processes import ALONE
from nearsight.training.regression import Regression

YAML = f"""
data:
  training: data.xyz
  validation: 5
model:
  architecture: linear
  cutoff: {CUTOFF}
  descriptor: {{max_degree: [8, 6, 4]}}
training:
  threads: 1
  loss: {{virial: 0.5}}
"""


# ---- the solver ----------------------------------------------------------------------------------


def problem(rows=120, columns=12, noise=0.1, seed=0):
    """X with columns of very different sizes and a degree for each, and y."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns)) * 10.0 ** rng.uniform(-2, 2, size=columns)
    degrees = rng.integers(0, 4, size=columns).astype(float)
    y = x @ (rng.normal(size=columns) / np.abs(x).mean(0)) + noise * rng.normal(size=rows)
    return torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(degrees)


def triangle_of(x, y, blocks=1):
    triangle = Triangle(x.size(1))
    for rows in torch.cat([x, y.unsqueeze(1)], dim=1).tensor_split(blocks):
        triangle.add(rows)
    return triangle


def penalties(x, degrees, smoothness):
    return torch.sqrt((x**2).mean(0)) * torch.exp(smoothness * degrees)


@pytest.mark.parametrize("blocks", [1, 4, 30])
def test_ridge_equals_the_normal_equations(blocks):
    x, y, degrees = problem()
    fit = bayesian_ridge(triangle_of(x, y, blocks), degrees, 0.7, ridge=1e-2)
    gamma = penalties(x, degrees, 0.7)
    matrix = x.T @ x + torch.diag(1e-2 * len(y) * gamma**2)
    expected = torch.linalg.solve(matrix, x.T @ y)
    torch.testing.assert_close(fit.coefficients, expected, rtol=1e-9, atol=0.0)
    assert fit.square_error == pytest.approx(float(((x @ expected - y) ** 2).sum()), rel=1e-9)
    assert fit.effective == pytest.approx(float(torch.trace(torch.linalg.solve(matrix, x.T @ x))), rel=1e-9)


def minus_log_evidence(x, y, gamma, r):
    """Of y ~ N(0, v (1 + X Γ⁻² Xᵀ / r)) at the best v, from the dense covariance."""
    scaled = x / gamma
    covariance = torch.eye(len(y), dtype=torch.float64) + scaled @ scaled.T / r
    misfit = y @ torch.linalg.solve(covariance, y)
    return float(len(y) * torch.log(misfit) + torch.logdet(covariance))


@pytest.mark.parametrize("noise", [0.05, 1.0])
def test_the_ridge_has_the_largest_evidence(noise):
    x, y, degrees = problem(noise=noise, columns=30, rows=60)
    fit = bayesian_ridge(triangle_of(x, y, 3), degrees, 0.5)
    gamma, r = penalties(x, degrees, 0.5), fit.ridge * len(y)
    best = minus_log_evidence(x, y, gamma, r)
    assert best < minus_log_evidence(x, y, gamma, 0.9 * r)
    assert best < minus_log_evidence(x, y, gamma, 1.1 * r)
    assert best <= min(minus_log_evidence(x, y, gamma, 10.0**k) for k in range(-12, 4))


def test_columns_of_zeros_and_fewer_rows_than_columns():
    x, y, degrees = problem(rows=8, columns=12)
    x[:, 3] = 0.0
    fit = bayesian_ridge(triangle_of(x, y, 2), degrees, 0.5)
    assert torch.isfinite(fit.coefficients).all()
    assert abs(fit.coefficients[3]) < 1e-14


# ---- the fit -------------------------------------------------------------------------------------

SPECIES = ["Ne", "Ar"]


def linear_model(max_degree=(8, 6, 4)):
    torch.manual_seed(0)
    descriptor = ACEConfig(max_degree=list(max_degree))
    return build_model(LinearConfig(architecture="linear", cutoff=CUTOFF, descriptor=descriptor), SPECIES)


class _NoReference:
    def total(self, symbols):
        return 0.0


def batches(count, seed=0):
    return [make_batch(frame, SPECIES, CUTOFF, _NoReference()) for frame in boxes(count, seed)]


class _Silent:
    def say(self, *content):
        pass


def solve(model, data, loss, threads=1, bias=True, **options):
    solver = Regression(
        RegressionConfig(**options),
        model,
        training_module(model, "native", 1),
        loss,
        ALONE,
        _Silent(),
        num_frames=len(data),
        bias=bias,
        threads=threads,
    )
    return solver.step(data, len(data), 0, 0.0)


LOSS = Loss(
    {keys.ENERGY: 1.0, keys.FORCES: 2.0, keys.VIRIAL: 0.3},
    {keys.ENERGY: 0.5, keys.FORCES: 0.2, keys.VIRIAL: 1.5},
)


def test_the_fit_minimizes_the_loss_of_all_trainings():
    """Its squared error is the loss, which rises in every direction, but for the small ridge."""
    data = batches(12)
    data[3].present[keys.VIRIAL][0] = 0.0  # labels that a frame does not have
    data[4].present[keys.ENERGY][0] = 0.0
    model = linear_model((6, 4, 3))
    found = solve(model, data, LOSS, ridge=1e-14)
    whole = join(data)

    def total():
        return float(LOSS(evaluate(model, whole.graph, model.couple), whole).sum())

    best = total()
    assert found == pytest.approx(best, rel=1e-8)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        for _ in range(3):
            values = parameter.detach().clone()
            noise = torch.randn(values.shape, generator=generator, dtype=torch.float64)
            with torch.no_grad():
                parameter.copy_(values * (1.0 + 1e-3 * noise))
            assert total() > best
            with torch.no_grad():
                parameter.copy_(values)


def test_coefficients_are_recovered_where_the_data_determine_them():
    """A model of the same form labels the data: predictions on other frames are its, to round-off."""
    teacher, student = linear_model((5, 3, 2)), linear_model((5, 3, 2))
    data = batches(10)
    for batch in data:
        results = evaluate(teacher, batch.graph, teacher.couple)
        batch.targets.update(energy=results.energy, forces=results.forces, virial=results.virial)
    solve(student, data, LOSS, ridge=1e-16)
    other = join(batches(3, seed=5)).graph
    expected, found = (evaluate(m, other, m.couple) for m in (teacher, student))
    torch.testing.assert_close(found.energy, expected.energy, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.forces, expected.forces, rtol=1e-5, atol=1e-6)


def test_threads_and_runs_give_the_same_fit():
    data = batches(8)
    outcomes = []
    for threads in (1, 1, 3):
        model = linear_model((6, 4, 3))
        solve(model, data, LOSS, threads=threads, ridge=1e-8)
        outcomes.append(evaluate(model, join(data).graph, model.couple).forces)
    assert torch.equal(outcomes[0], outcomes[1])
    torch.testing.assert_close(outcomes[2], outcomes[0], rtol=1e-8, atol=1e-9)


def test_without_constants_a_lone_atom_has_no_energy():
    model = linear_model((6, 4, 3))
    solve(model, batches(6), LOSS, bias=False)
    lone = torch.zeros(2, 0, dtype=torch.int64)
    energy = model(torch.tensor([1]), lone, torch.zeros(0, 3, dtype=torch.float64), 1)["energy"]
    assert float(energy.detach()) == 0.0


# ---- runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("linear") / "data.xyz"
    write_extxyz(path, boxes(30, isolated_atoms=True))
    (path.parent / "train.yaml").write_text(YAML)
    return path


@pytest.fixture
def configure(data_file):
    return lambda *overrides: load_config(data_file.parent / "train.yaml", overrides)


@pytest.fixture
def quick_train(monkeypatch):
    monkeypatch.setattr(plots, "plot_parity", lambda *_, **__: [])
    monkeypatch.setattr(plots, "plot_history", lambda *_: None)
    return train


def test_a_run_has_the_outputs_of_any_other(configure, tmp_path):
    train(configure(), tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    forces = results["validation"]["forces"]
    assert forces["rmse"] < 0.1  # meV/Å: pairs are functions of one moment, in the span of the basis
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))[1:]
    assert len(rows) == 1 and rows[0]["learning_rate"] == ""
    for picture in ("history.png", "parity_forces.png"):
        assert (tmp_path / "run" / "plots" / picture).stat().st_size > 1000
    model = tmp_path / "run" / "model.pt"
    metadata = read_metadata(model)
    assert metadata["architecture"] == "linear" and metadata["native"]
    assert metadata["hyperparameters"]["networks"]["Ar"] == {"hidden": [], "activation": ["linear"]}
    frame = boxes(1, seed=9)[0]
    found = Potential(model).compute(frame.positions, frame.symbols, frame.cell, frame.pbc)
    assert np.abs(found.forces - frame.labels[keys.FORCES]).max() < 1e-3
    assert "Solved" in (tmp_path / "run" / "train.log").read_text()


def test_runs_are_deterministic_and_a_finished_one_can_be_continued(configure, quick_train, tmp_path):
    for name in ("one", "two"):
        quick_train(configure(), tmp_path / name)
    first, second = (
        read_checkpoint(tmp_path / name / "checkpoints" / "best.ckpt")["weights"] for name in ("one", "two")
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    quick_train(configure(), tmp_path / "one", restart=True)


def test_two_processes_solve_as_one(configure, data_file, quick_train, tmp_path):
    quick_train(configure("training.regression.ridge=1e-8"), tmp_path / "alone")
    codes, errors = run_processes(
        2,
        tmp_path,
        data_file.parent / "train.yaml",
        "-o",
        "training.regression.ridge=1e-8",
        "--output",
        tmp_path / "together",
    )
    assert codes == [0, 0], errors
    first, second = (
        json.loads((tmp_path / name / "results.json").read_text())["validation"]["forces"]["rmse"]
        for name in ("alone", "together")
    )
    assert second == pytest.approx(first, rel=1e-5)


def test_a_dry_run_writes_nothing(configure, quick_train, tmp_path):
    quick_train(configure(), tmp_path / "run", dry_run=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=3", "training.epochs is 3, but a linear model is solved in one: leave it out"),
        ("model.hidden=[3]", "Unknown key 'hidden' in model"),
        ("training.regression.smothness=1", "did you mean 'smoothness'"),
        (
            "model.descriptor={kind: soap, species_channels: 2}",
            "species_channels have trained weights, a linear model has none: leave them out",
        ),
    ],
)
def test_configurations_that_cannot_be_right(configure, override, message):
    with pytest.raises(ConfigError, match=message):
        configure(override)


def test_the_torch_backend_cannot_fit(configure, quick_train, tmp_path):
    with pytest.raises(ConfigError, match="a linear model is fitted by the native backend"):
        quick_train(configure("training.backend=torch"), tmp_path / "run")


def test_sections_may_leave_out_their_kind():
    config = parse_config(
        {"data": {"training": "x.xyz"}, "model": {"architecture": "linear", "descriptor": {"size": "small"}}}
    )
    assert config.model.descriptor.kind == "ace" and config.training.epochs == 1
    config = parse_config({"data": {"training": "x.xyz"}, "model": {"descriptor": {"size": "small"}}})
    assert config.model.architecture == "bpnn" and config.model.descriptor.kind == "acsf"


# ---- mlearn --------------------------------------------------------------------------------------

# Largest MAE of energies (meV/atom) and of forces (eV/Å): those of GAP and MTP, whichever is smaller, as in
# the table of the data's README, whose forces are rounded to two decimals.
PEERS = {"Li": (0.49, 0.015), "Mo": (2.24, 0.095), "Si": (2.21, 0.065)}


@pytest.mark.slow
@pytest.mark.parametrize("element", PEERS)
def test_mlearn(element, quick_train, tmp_path):
    folder = reference_data("mlearn")
    config = {
        "data": {
            "training": str(folder / f"{element}_train.extxyz.xz"),
            "validation": str(folder / f"{element}_test.extxyz.xz"),
        },
        "model": {"architecture": "linear", "cutoff": 5.5, "descriptor": {"kind": "ace", "size": "large"}},
        "training": {"loss": {"energy": 10.0, "virial": 0.1}},
    }
    quick_train(parse_config(config), tmp_path / "run")
    errors = json.loads((tmp_path / "run" / "results.json").read_text())["validation"]
    energy, forces = PEERS[element]
    assert errors["energy"]["mae"] < energy
    assert errors["forces"]["mae"] < 1000 * forces
