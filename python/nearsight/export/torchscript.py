"""The single place in Python that knows of torch.jit, which is deprecated upstream."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from nearsight.errors import ModelFileError

_Result = TypeVar("_Result")


def script(module: nn.Module) -> torch.jit.ScriptModule:
    """Compile a module to TorchScript."""
    return _quiet(torch.jit.script, module)


def freeze(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Return a copy with parameters as constants, as OpenMM-Torch makes it of what it is given."""
    return _quiet(torch.jit.freeze, module.eval())


def to_bytes(module: torch.jit.ScriptModule, extra_files: Mapping[str, str | bytes]) -> bytes:
    """Return the archive of a scripted module with the given entries under archive/extra/."""
    buffer = io.BytesIO()
    _quiet(torch.jit.save, module, buffer, _extra_files=dict(extra_files))
    return buffer.getvalue()


def load_module(path: str | os.PathLike[str]) -> torch.jit.ScriptModule:
    """Load a scripted module to the CPU.

    Raises:
        ModelFileError: torch cannot read the archive.
    """
    try:
        return _quiet(torch.jit.load, os.fspath(path), map_location="cpu")
    except RuntimeError as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelFileError(
            f"{path}: torch {torch.__version__} cannot load the module ({first_line})"
        ) from None


def _quiet(function: Callable[..., _Result], *args: Any, **kwargs: Any) -> _Result:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        return function(*args, **kwargs)
