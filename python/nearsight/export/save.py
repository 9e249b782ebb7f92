"""Writing the model file: script, describe, check every backend against the module, rename into place."""

from __future__ import annotations

import copy
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from nearsight import __version__
from nearsight.couple import build_couple, settle
from nearsight.errors import ModelFileError
from nearsight.export import checks
from nearsight.export.loading import load
from nearsight.export.torchscript import script, to_bytes
from nearsight.files import replacing
from nearsight.keys import (
    CHECKS_FILE,
    FORMAT_VERSION,
    LABELS_FILE,
    METADATA_FILE,
    NATIVE_ARCHITECTURES,
    WEIGHTS_FILE,
)

_ATTRIBUTES = (
    "architecture",
    "hyperparameters",
    "species",
    "cutoff",
    "num_interactions",
    "readouts",
    "couple",
)


def save_model(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    reference_energies: Mapping[str, float],
    reference_energies_source: str,
    provenance: Mapping[str, Any],
    dispersion: Mapping[str, Any] | None = None,
) -> None:
    """Write `model` as one model file, in double; `dispersion` is the record of docs/file_format.md, if any.

    Any module that keeps docs/model_contract.md can be written. It needs the attributes architecture,
    hyperparameters, species, cutoff, num_interactions, readouts and couple of docs/file_format.md. If it has
    them, `weights()` gives the tensors of weights.safetensors, and `labels()` names of the features of each
    species.

    Nothing is left at `path`, and what was there stays, unless the reloaded file gives the module's results.

    Raises:
        ModelFileError: an attribute or a reference energy is missing, or a backend disagrees with the module.
    """
    path = Path(path)
    model = settle(copy.deepcopy(model))
    metadata = _metadata(path, model, reference_energies, reference_energies_source, provenance)
    if dispersion is not None:
        metadata["dispersion"] = dict(dispersion)
    module = model.to("cpu", torch.float64).eval()
    expected = [
        checks.add_results(checks.add_charge(structure, metadata["couple"]), module, metadata)
        for structure in checks.structures(len(metadata["species"]), metadata["cutoff"])
    ]
    extra: dict[str, str | bytes] = {
        METADATA_FILE: json.dumps(metadata, indent=1, ensure_ascii=False),
        CHECKS_FILE: json.dumps(expected),
    }
    if hasattr(model, "weights"):
        extra[WEIGHTS_FILE] = safetensors.torch.save(model.weights())
    if hasattr(model, "labels"):
        extra[LABELS_FILE] = json.dumps(model.labels(), ensure_ascii=False)

    with replacing(path) as temporary:
        temporary.write_bytes(to_bytes(script(module), extra))
        _compare_backends(path, temporary, expected)


def _metadata(
    path: Path, model: nn.Module, energies: Mapping[str, float], source: str, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    missing = [name for name in _ATTRIBUTES if not hasattr(model, name)]
    if missing:
        raise ModelFileError(
            f"{path}: the module lacks the attributes {', '.join(missing)} (see docs/model_contract.md)"
        )
    without = [symbol for symbol in model.species if symbol not in energies]
    if without:
        raise ModelFileError(
            f"{path}: no reference energy was given for {', '.join(without)}; use 0.0 where there is none"
        )
    needed = list(build_couple(model.couple).needs)
    if needed != [readout["name"] for readout in model.readouts]:
        raise ModelFileError(
            f"{path}: the couple {model.couple['kind']!r} needs the readouts {needed}, found {model.readouts}"
        )
    return {
        "format": "nearsight",
        "format_version": FORMAT_VERSION,
        **{name: copy.deepcopy(getattr(model, name)) for name in _ATTRIBUTES},
        "reference_energies": {symbol: float(energies[symbol]) for symbol in model.species},
        "reference_energies_source": source,
        "units": {"length": "angstrom", "energy": "eV"},
        "dtype": "float64",
        "native": hasattr(model, "weights") and model.architecture in NATIVE_ARCHITECTURES,
        "provenance": dict(provenance),
        "versions": {
            "nearsight": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _compare_backends(path: Path, temporary: Path, expected: list[dict[str, Any]]) -> None:
    """Refuse a file that does not give the module's results when it is read back."""
    loaded = load(temporary)
    for structure in expected:
        found = {"torchscript": checks.add_results(structure, loaded.module, loaded.metadata)}
        if loaded.metadata["native"]:
            found["native"] = checks.native_results(str(temporary), structure)
        for backend, results in found.items():
            difference = checks.disagreement(structure, results)
            if difference:
                raise ModelFileError(
                    f"{path}: not written, since the {backend} backend does not give the module's results: "
                    f"{difference}"
                )
