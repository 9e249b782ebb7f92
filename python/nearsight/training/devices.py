"""Where training computes: batches are made on the CPU, and go to the device when they are joined."""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from nearsight.errors import ConfigError
from nearsight.training.processes import Processes

CPU = torch.device("cpu")
_Value = TypeVar("_Value")


def choose_device(name: str, processes: Processes) -> torch.device:
    """The device of this process for `training.device`; with "cuda" processes of a machine take its GPUs in
    turn.

    Raises:
        ConfigError: there is no such GPU, or torch cannot use it.
    """
    if name == "cpu":
        return CPU
    if torch.version.cuda is None:
        raise ConfigError(
            f"training.device is {name}, but torch {torch.__version__} was built without CUDA: install a "
            "torch with CUDA, or take cpu."
        )
    count = torch.cuda.device_count()
    if count == 0:
        raise ConfigError(
            f"training.device is {name}, but torch finds no NVIDIA GPU with a driver for CUDA "
            f"{torch.version.cuda}: look at nvidia-smi, or take cpu."
        )
    index = torch.device(name).index
    if index is None:
        index = processes.number_on_machine % count
    if index >= count:
        raise ConfigError(
            f"training.device is {name}, but this machine has {count} GPU(s), numbered from 0: choose one of "
            "them."
        )
    # cuBLAS gives the same bits in every run with a workspace of its own, which torch asks for.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def moved(value: _Value, device: torch.device) -> _Value:
    """The same with all tensors in it on a device: of lists, tuples, dictionaries and dataclasses."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(part, device) for key, part in value.items()}  # type: ignore[return-value]
    if isinstance(value, (list, tuple)):
        parts = [moved(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if is_dataclass(value):
        names = [field.name for field in fields(value) if field.init]
        return replace(value, **{name: moved(getattr(value, name), device) for name in names})
    return value
