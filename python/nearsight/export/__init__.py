"""The model file, and what else a trained model can be written to.

Reading metadata needs no torch, so that everything here is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "LoadedModel": "loading",
    "export_torchforce": "torchforce",
    "load": "loading",
    "read_entry": "model_file",
    "read_metadata": "model_file",
    "save_model": "save",
    "torchforce_module": "torchforce",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"nearsight.export.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'nearsight.export' has no attribute {name!r}")
