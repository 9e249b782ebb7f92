"""Training on a GPU: whole runs in a process of their own, and what is said where there is no GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nearsight.errors import ConfigError
from nearsight.training.config_file import parse_config
from nearsight.training.devices import choose_device, moved
from nearsight.training.processes import ALONE, Processes

DATA = {"data": {"training": "data.xyz"}}


def test_runs():
    runs = Path(__file__).with_name("runs_on_gpu.py")
    options = ["-q", "-p", "no:cacheprovider", "--no-header"]
    done = subprocess.run([sys.executable, "-m", "pytest", *options, runs], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "CUDA"])
def test_names_of_devices(name):
    with pytest.raises(
        ConfigError, match=rf"^training.device: found '{name}', expected cpu, cuda, or cuda:NUMBER of a GPU"
    ):
        parse_config({**DATA, "training": {"device": name}})


@pytest.mark.parametrize(
    ("sections", "match"),
    [
        (
            {"training": {"optimizer": {"kind": "levenberg_marquardt"}}},
            "optimizer levenberg_marquardt works on the CPU",
        ),
        ({"model": {"architecture": "linear"}}, "a linear model is fitted on the CPU"),
    ],
)
def test_what_is_trained_on_the_cpu_only(sections, match):
    training = {**sections.get("training", {}), "device": "cuda:1"}
    with pytest.raises(ConfigError, match=rf"^training.device is cuda:1, but {match}: leave it out"):
        parse_config({**DATA, **sections, "training": training})


def gpus(monkeypatch, count):
    """A torch with CUDA and that many GPUs."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def test_torch_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert choose_device("cpu", ALONE) == torch.device("cpu")
    with pytest.raises(
        ConfigError, match=r"device is cuda, but torch .* was built without CUDA: install a torch"
    ):
        choose_device("cuda", ALONE)


def test_no_gpu(monkeypatch):
    gpus(monkeypatch, 0)
    with pytest.raises(ConfigError, match=r"torch finds no NVIDIA GPU with a driver for CUDA 13.0"):
        choose_device("cuda", ALONE)


def test_number_of_a_gpu(monkeypatch):
    gpus(monkeypatch, 2)
    assert choose_device("cuda:1", ALONE) == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match=r"cuda:2, but this machine has 2 GPU\(s\), numbered from 0"):
        choose_device("cuda:2", ALONE)


def test_processes_of_a_machine_take_its_gpus_in_turn(monkeypatch):
    gpus(monkeypatch, 2)
    found = []
    for number in range(3):
        process = Processes()
        process.number_on_machine = number
        found.append(choose_device("cuda", process).index)
    assert found == [0, 1, 0]


def test_all_tensors_of_a_value_are_moved():
    one = torch.ones(2)
    value = {"a": [one, (one, 1)], "b": "text", "c": None}
    found = moved(value, torch.device("meta"))
    assert [tensor.device.type for tensor in (found["a"][0], found["a"][1][0])] == ["meta", "meta"]
    assert (found["a"][1][1], found["b"], found["c"]) == (1, "text", None)
