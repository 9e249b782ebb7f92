"""nearsight's HDF5 schema for reference data: compact, binary, fast to read.

attributes              format = "nearsight-data", format_version = 1
num_atoms    [F]        int, atoms per frame
numbers      [N]        int, atomic numbers of all frames one after the other (N = sum of num_atoms)
positions    [N, 3]     Å
cell         [F, 3, 3]  Å, rows are lattice vectors
pbc          [F, 3]     bool
info         [F]        JSON text, everything else about a frame
labels/<name>/frames    [L] int, the frames that have the label, ascending
labels/<name>/values    their values one after the other: [L, …] for labels of a frame, [atoms, …] for
                        labels of atoms, with the units and shapes of `nearsight.keys`
labels/<name>           attribute key: the key that the label was first read under
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nearsight import keys
from nearsight.data.frame import Frame
from nearsight.errors import DataError

FORMAT = "nearsight-data"
FORMAT_VERSION = 1


def write_hdf5(path: str | Path, frames: Sequence[Frame]) -> None:
    """Write frames with their labels and info to an HDF5 file in the schema of this module."""
    import h5py
    from ase.data import atomic_numbers

    with h5py.File(path, "w") as file:
        file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION)
        file["num_atoms"] = [len(frame) for frame in frames]
        file["numbers"] = [atomic_numbers[symbol] for frame in frames for symbol in frame.symbols]
        file["positions"] = np.concatenate([frame.positions for frame in frames])
        file["cell"] = np.stack([frame.cell for frame in frames])
        file["pbc"] = np.stack([frame.pbc for frame in frames])
        file["info"] = [json.dumps(frame.info, default=_to_json) for frame in frames]
        for label in keys.LABELS:
            having = [number for number, frame in enumerate(frames) if label in frame.labels]
            if having:
                values = [np.asarray(frames[number].labels[label]) for number in having]
                group = file.create_group(f"labels/{label}")
                group["frames"] = having
                group["values"] = np.concatenate(values) if label in keys.OF_ATOMS else np.stack(values)
                group.attrs["key"] = frames[having[0]].label_keys.get(label, label)


def read_hdf5(path: str | Path) -> list[Frame]:
    """Read the frames of a file that `write_hdf5` wrote, unchecked (see `readers.read_frames`).

    Raises DataError for foreign or newer files and for files that do not keep the schema.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            _check_format(file.attrs, path)
            return _frames(file, Path(path).name)
    except (OSError, KeyError, ValueError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{str(path)!r} cannot be read as HDF5 reference data: {error}") from error


def _check_format(attributes: Any, path: str | Path) -> None:
    if attributes.get("format") != FORMAT:
        raise DataError(
            f"{str(path)!r} is an HDF5 file, but not of nearsight's schema (attribute format = {FORMAT!r}); "
            "convert it with nearsight.data.write_hdf5."
        )
    if attributes["format_version"] > FORMAT_VERSION:
        raise DataError(
            f"{str(path)!r} has schema version {attributes['format_version']}, this nearsight reads up to "
            f"{FORMAT_VERSION}; install a newer nearsight."
        )


def _frames(file: Any, name: str) -> list[Frame]:
    from ase.data import chemical_symbols

    num_atoms = file["num_atoms"][()]
    ends = np.cumsum(num_atoms)
    numbers, positions = file["numbers"][()], file["positions"][()]
    frames = [
        Frame(
            positions=positions[end - count : end],
            symbols=[chemical_symbols[number] for number in numbers[end - count : end]],
            cell=cell,
            pbc=pbc,
            info=json.loads(info),
            source=f"{name}, frame {frame_number}",
        )
        for frame_number, (count, end, cell, pbc, info) in enumerate(
            zip(num_atoms, ends, file["cell"][()], file["pbc"][()], file["info"][()])
        )
    ]
    for label, group in file.get("labels", {}).items():
        having = [frames[number] for number in group["frames"][()]]
        sizes = [len(frame) if label in keys.OF_ATOMS else 1 for frame in having]
        parts = np.split(group["values"][()], np.cumsum(sizes)[:-1])
        for frame, values in zip(having, parts):
            frame.labels[label] = values if label in keys.OF_ATOMS else values[0]
            frame.label_keys[label] = str(group.attrs["key"])
    return frames


def _to_json(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)
