"""Loading a model file in Python."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from nearsight.export.model_file import read_metadata
from nearsight.export.torchscript import load_module


@dataclass(frozen=True)
class LoadedModel:
    """A scripted module that keeps docs/model_contract.md, and the metadata of its file."""

    module: torch.jit.ScriptModule
    metadata: dict[str, Any]


def load(path: str | os.PathLike[str]) -> LoadedModel:
    """Load a model file to the CPU, in the precision of the file.

    Raises:
        ModelFileError: the file is missing, damaged, foreign or too new.
    """
    metadata = read_metadata(path)
    return LoadedModel(load_module(path), metadata)
