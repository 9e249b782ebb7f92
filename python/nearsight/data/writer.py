"""Writing frames as extended XYZ: labels under nearsight's default keys, predictions beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nearsight import keys
from nearsight.data.frame import Frame
from nearsight.files import replacing

PREDICTION_PREFIX = "nearsight_"


def write_extxyz(
    path: str | Path, frames: Sequence[Frame], predictions: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """Write frames as extended XYZ.

    Args:
        path: of the file; one that is there is replaced when all is written.
        frames: labels are written under `keys.FILE_KEYS`, so that nearsight reads them again.
        predictions: per frame {label: value} with the shapes of `keys`; written as nearsight_energy,
            nearsight_forces, nearsight_virial, …
    """
    import ase.io
    from ase import Atoms

    structures = []
    for number, frame in enumerate(frames):
        atoms = Atoms(frame.symbols, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
        for name, value in frame.info.items():
            if name == keys.MOLECULES:
                atoms.set_array(name, np.asarray(value))
            elif _is_simple(value) or name == keys.MOLECULE_CHARGES:
                atoms.info[name] = value
        for label, value in frame.labels.items():
            _attach(atoms, keys.FILE_KEYS[label], label, value)
        for label, value in (predictions[number] if predictions else {}).items():
            _attach(atoms, PREDICTION_PREFIX + label, label, value)
        structures.append(atoms)
    with replacing(Path(path)) as temporary:
        ase.io.write(temporary, structures, format="extxyz")


def _attach(atoms: Any, key: str, label: str, value: Any) -> None:
    if label in keys.OF_ATOMS:
        rows = np.asarray(value)
        atoms.set_array(key, rows.reshape(len(rows), 9) if label == keys.BORN_CHARGES else rows)
    else:
        atoms.info[key] = value if label == keys.ENERGY else np.asarray(value)


def _is_simple(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float, np.generic))
