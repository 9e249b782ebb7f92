"""Whole training runs on a GPU, against the same on the CPU.

Run by test_training_runs.py in a process of its own, since torch has to know the emulated GPU before its
first backward pass.
"""

import os
from contextlib import nullcontext

import pytest
import torch

from .torch_gpu import NAME, EmulatedGpu, register

ON_GPU = bool(os.environ.get("NEARSIGHT_TEST_GPU"))
if not ON_GPU:
    register()

from test_training_run import assert_same_bits, configure, data_file, quick_train, stop_at, weights  # noqa: E402, F401

from nearsight.errors import NearsightError  # noqa: E402
from nearsight.training import Interrupted, processes, run  # noqa: E402
from nearsight.training.first_order import FirstOrder  # noqa: E402
from nearsight.training.logbook import read_metrics  # noqa: E402

MACE = [
    "model={architecture: mace, num_interactions: 2, channels: 4, cutoff: 4.0, l_max: 1}",
    "training.precision=double",
]
MODELS = {
    "ACSF": [],
    "ACSF in torch": ["training.backend=torch"],
    "SOAP with trained channels": ["model.descriptor={kind: soap, species_channels: 2, n_max: 3, l_max: 2}"],
    "ACE, shampoo_adam": [
        "model.descriptor={kind: ace}",
        "training.optimizer={kind: shampoo_adam, frequency: 2}",
    ],
    "MACE": MACE,
    "MACE, edges not stored": [*MACE, "training.cache_gb=0"],
    "PaiNN": ["model={architecture: painn, cutoff: 4.0, channels: 8}"],
    "charges": ["long_range={charges: environment}", "training.loss.born_charges=0"],
    "latent charges": ["long_range={charges: latent}"],
    "equilibrated charges": ["long_range={charges: equilibrated}"],
}


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    if not ON_GPU:
        choose = run.choose_device
        there = torch.device(NAME, 0)
        monkeypatch.setattr(
            run, "choose_device", lambda name, group: choose(name, group) if name == "cpu" else there
        )


def device():
    return nullcontext() if ON_GPU else EmulatedGpu()


@pytest.mark.parametrize("model", MODELS)
def test_run(model, configure, quick_train, tmp_path):  # noqa: F811
    overrides = ["training.epochs=2", *MODELS[model]]
    quick_train(configure(*overrides), tmp_path / "cpu")
    with device() as used:
        quick_train(configure(*overrides, "training.device=cuda"), tmp_path / "gpu")
    if used:
        assert any("nearsight" in op for op in used.ops) == (model not in ("ACSF in torch", "PaiNN"))
    expected, found = (read_metrics(tmp_path / name) for name in ("cpu", "gpu"))
    for row, other in zip(expected, found, strict=True):
        for name in set(row) - {"elapsed"}:
            assert float(other[name]) == pytest.approx(float(row[name]), rel=1e-7), name
    for one, other in zip(weights(tmp_path / "cpu")[1], weights(tmp_path / "gpu")[1]):
        assert one.device == other.device
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-9)
    assert (tmp_path / "gpu" / "model.pt").exists()


@pytest.mark.parametrize("optimizer", ["adamw", "shampoo_adam"])
def test_run_that_was_interrupted(optimizer, configure, quick_train, tmp_path, monkeypatch):  # noqa: F811
    config = configure("training.epochs=3", f"training.optimizer.kind={optimizer}", "training.device=cuda")
    with device():
        quick_train(config, tmp_path / "whole")
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            stop_at(patch, 7)
            quick_train(config, tmp_path / "parts")
        quick_train(config, tmp_path / "parts", restart=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")


def test_memory_that_is_not_enough(configure, quick_train, tmp_path, monkeypatch):  # noqa: F811
    def step(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FirstOrder, "step", step)
    with (
        device(),
        pytest.raises(
            NearsightError, match=r"no memory left for a batch of 3 .* lower training.batch_size, now 3"
        ),
    ):
        quick_train(configure("training.device=cuda"), tmp_path)
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_sums_over_processes_stay_on_the_device(monkeypatch):
    monkeypatch.setattr(processes.dist, "all_reduce", lambda values: values.mul_(2))
    with device():
        values = torch.ones(3).to("cuda" if ON_GPU else NAME)
        found = processes._Group.__new__(processes._Group).sum(values)
        assert found.device == values.device
        assert found.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.skipif(ON_GPU, reason="of the stand-in for a GPU")
def test_the_emulated_gpu_refuses_what_a_gpu_refuses():
    with EmulatedGpu():
        there, here = torch.ones(3).to(NAME), torch.ones(3)
        with pytest.raises(RuntimeError, match="found one on the CPU"):
            there + here
        with pytest.raises(TypeError, match="no numpy array"):
            there.numpy()
        with pytest.raises(RuntimeError, match="not have a deterministic"):
            there.cumsum(0)
        assert (there + here.to(NAME) + torch.tensor(1.0)).cpu().tolist() == [3.0, 3.0, 3.0]
