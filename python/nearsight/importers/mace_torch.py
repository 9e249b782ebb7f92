"""Models of mace-torch, which are pickles of Python objects: another process unpickles them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nearsight.couple import evaluate
from nearsight.errors import ConfigError
from nearsight.importers.imported import Imported
from nearsight.importers.mace_convert import Arrays, Choice, choose, convert, species_of
from nearsight.models import MACE
from nearsight.neighbors import make_graph

_PROGRAM = Path(__file__).with_name("mace_extract.py")
# eV/Å and eV per atom; mace-torch's couplings in models of single precision are rounded.
_TOLERANCE = {"float64": 1e-8, "float32": 1e-4}
_UNITS = {"energy": "eV", "forces": "eV/Å"}
_CHEBYSHEV = (
    "forces of mace-torch lack the derivative of Chebyshev polynomials, which torch has not; here they are "
    "the derivative of the energy, so that only energies were compared."
)


def import_mace(
    path: str | os.PathLike[str],
    *,
    species: Sequence[str] | None = None,
    head: str | None = None,
    python: str | os.PathLike[str] = sys.executable,
) -> Imported:
    """Read a model of mace-torch. This runs code that is in the file, in another process.

    Args:
        path: a file that mace-torch's training wrote, not a checkpoint and not compiled.
        species: chemical symbols to take; default: all.
        head: of a model with several; default: the only one.
        python: the program that has mace-torch.

    Raises:
        ConfigError: mace-torch is missing, or the model has something that nearsight does not know.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{path} does not exist")
    with tempfile.TemporaryDirectory() as folder:
        _extract(Path(path).resolve(), Path(folder), os.fspath(python))
        record = json.loads(Path(folder, "record.json").read_text(encoding="utf-8"))
        if "missing" in record:
            raise ConfigError(
                f"{python} has no package {record['missing']!r}, which reads {path}: "
                "`pip install mace-torch` there, or name a Python that has it (--python)"
            )
        if "error" in record:
            raise ConfigError(f"{path} cannot be imported: {record['error']}")
        with np.load(Path(folder, "arrays.npz"), allow_pickle=False) as file:
            arrays = dict(file)
    return from_numbers(record, arrays, species, head)


def _extract(path: Path, folder: Path, python: str) -> None:
    """Run the program that writes record.json and arrays.npz into the folder."""
    try:
        done = subprocess.run(
            [python, str(_PROGRAM), str(path), str(folder)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise ConfigError(
            f"{python} cannot be run: {error.strerror}; name a Python program (--python)"
        ) from None
    if not (folder / "record.json").is_file():
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise ConfigError(
            f"{path} cannot be read by {python}, which ended with code {done.returncode}: {last}"
        )


def from_numbers(
    record: Mapping[str, Any], arrays: Arrays, species: Sequence[str] | None = None, head: str | None = None
) -> Imported:
    """Return the model of what `mace_extract` wrote, compared with what mace-torch gave for a molecule.

    Raises:
        ConfigError: there is no such species or head, or the module does not give mace-torch's numbers.
    """
    choice = choose(record, species, head)
    symbols = species_of(record)
    reference = dict(zip(symbols, arrays["energies"][choice.head].tolist()))

    def build(numbers: list[int]) -> MACE:
        hyperparameters, weights = convert(record, arrays, Choice(numbers, choice.head))
        tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in weights.items()}
        return MACE([symbols[n] for n in numbers], record["cutoff"], hyperparameters, tensors)

    used = sorted({record["atomic_numbers"].index(z) for z in record["check"]["atomic_numbers"]})
    notes = _compare(build(used), record, choice.head, reference)
    return Imported(
        model=build(choice.species),
        reference_energies={symbols[number]: reference[symbols[number]] for number in choice.species},
        provenance={
            "imported_from": "mace-torch",
            "model": record["model"],
            "dtype": record["dtype"],
            "head": record["heads"][choice.head],
            "versions": record["versions"],
        },
        notes=notes,
    )


def _compare(model: MACE, record: Mapping[str, Any], head: int, reference: Mapping[str, float]) -> list[str]:
    """Return notes on the largest deviation from mace-torch's numbers.

    Raises:
        ConfigError: it is too large.
    """
    molecule = record["check"]
    expected = molecule["results"][head]
    symbols = dict(zip(record["atomic_numbers"], species_of(record)))
    names = [symbols[number] for number in molecule["atomic_numbers"]]
    kinds = [model.species.index(name) for name in names]
    graph = make_graph(molecule["positions"], kinds, np.zeros((3, 3)), [False] * 3, model.cutoff)
    results = evaluate(model, graph, model.couple)
    energy = float(results.energy) + sum(reference[name] for name in names) - float(expected["energy"][0])
    deviations = {"energy": abs(energy), "forces": np.abs(results.forces.numpy() - expected["forces"]).max()}
    size = max(1.0, np.abs(expected["forces"]).max())
    limits = {"energy": _TOLERANCE[record["dtype"]] * size * len(names)}
    notes = []
    if record["radial"]["basis"] == "chebyshev":
        notes = [_CHEBYSHEV]
    else:
        limits["forces"] = _TOLERANCE[record["dtype"]] * size
    text = ", ".join(f"{name} {deviations[name]:.1e} {_UNITS[name]}" for name in limits)
    if not all(deviations[name] <= limit for name, limit in limits.items()):
        raise ConfigError(
            f"the converted model does not give the numbers of mace-torch ({text}): its version, "
            f"{record['versions']['mace-torch']}, computes something that nearsight does not know"
        )
    return [*notes, f"largest deviation from mace-torch for a molecule of {len(names)} atoms: {text}."]
