"""Training: from a configuration and reference data to a model file. Lazy, because of torch."""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "Config": "config",
    "Interrupted": "loop",
    "export_checkpoint": "run",
    "find_checkpoint": "run",
    "join_processes": "processes",
    "load_config": "config_file",
    "read_checkpoint": "checkpoint",
    "train": "run",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"nearsight.training.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'nearsight.training' has no attribute {name!r}")
