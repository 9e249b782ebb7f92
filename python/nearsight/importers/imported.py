"""What an importer hands over, and the comparison of the written file with the module and with references."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from nearsight import keys
from nearsight.data import Frame
from nearsight.errors import DataError
from nearsight.export import read_entry, save_model
from nearsight.export.checks import native_results


@dataclass(frozen=True)
class Imported:
    """A model of another program as a module that `save_model` takes.

    `notes` are sentences for the user: what was ignored, what looks wrong in the files.
    """

    model: nn.Module
    reference_energies: Mapping[str, float]  # eV
    provenance: Mapping[str, Any]
    notes: Sequence[str] = ()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model file; raises what `nearsight.export.save_model` raises."""
        save_model(
            path,
            self.model,
            reference_energies=self.reference_energies,
            reference_energies_source="given",
            provenance=self.provenance,
        )


@dataclass(frozen=True)
class Deviation:
    """The largest differences between two evaluations of the same structures."""

    energy: float  # eV
    relative_energy: float  # of the total energies, reference energies included
    forces: float  # eV/Å

    def __str__(self) -> str:
        relative = f"({self.relative_energy:.1e} relative)"
        return f"energy {self.energy:.1e} eV {relative}, forces {self.forces:.1e} eV/Å"


def _largest(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Deviation:
    energies = [(float(a[keys.ENERGY]), float(b[keys.ENERGY])) for a, b in pairs]
    forces = [np.abs(np.asarray(a[keys.FORCES]) - np.asarray(b[keys.FORCES])).max() for a, b in pairs]
    return Deviation(
        energy=max(abs(a - b) for a, b in energies),
        relative_energy=max(abs(a - b) / (abs(a) or 1.0) for a, b in energies),
        forces=float(max(forces)),
    )


def self_check(path: str | os.PathLike[str]) -> Deviation:
    """Return the largest deviation of the native core from the scripted module.

    The structures are the random ones of the file, with what the module gave for them in double.
    """
    structures = json.loads(read_entry(path, keys.CHECKS_FILE))
    return _largest([(s, native_results(os.fspath(path), s)) for s in structures])


def reference_check(path: str | os.PathLike[str], frames: Sequence[Frame]) -> Deviation:
    """Return the largest deviation of the file's fastest backend, in double, from the labels of the frames.

    Raises:
        DataError: a frame lacks the energy or the forces.
    """
    from nearsight.interfaces.potential import Potential

    potential = Potential(path)
    pairs = []
    for frame in frames:
        missing = [label for label in (keys.ENERGY, keys.FORCES) if label not in frame.labels]
        if missing:
            raise DataError(f"{frame.source} has no {' and '.join(missing)} to compare with (see --key).")
        results = potential.compute(frame.positions, frame.symbols, frame.cell, frame.pbc)
        pairs.append((frame.labels, {keys.ENERGY: results.energy, keys.FORCES: results.forces}))
    return _largest(pairs)
