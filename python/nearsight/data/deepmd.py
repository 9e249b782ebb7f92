"""Reading DeePMD-kit's systems: folders of numpy files, one system or a tree of them.

    type.raw, type_map.raw      type of every atom, from 0, and the chemical symbols of the types
    nopbc                       an (empty) file that marks a system without periodic directions
    set.*/coord.npy             [frames, 3 n] Å
    set.*/box.npy               [frames, 9] Å, rows are lattice vectors; absent with nopbc
    set.*/energy.npy, force.npy, virial.npy     [frames] eV, [frames, 3 n] eV/Å, [frames, 9] eV
    set.*/real_atom_types.npy   [frames, n] "mixed" systems: the types of every frame; -1 pads with no atom

DeePMD-kit's virial is the potential part of the pressure times the volume
(https://github.com/deepmodeling/deepmd-kit/issues/1823), that is -dE/dstrain: nearsight's sign.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nearsight import keys
from nearsight.data.frame import Frame
from nearsight.errors import DataError

_FILES = {keys.ENERGY: "energy", keys.FORCES: "force", keys.VIRIAL: "virial"}


def read_deepmd(folder: Path, file_keys: Mapping[str, str] = keys.FILE_KEYS) -> list[Frame]:
    """Read all systems in and below a folder, unchecked (see `readers.read_frames`).

    Args:
        folder: holds type.raw, or folders that do.
        file_keys: label → key; a key that is not the default of `keys.FILE_KEYS` names the file KEY.npy.

    Raises:
        DataError: no system, files that are missing, unreadable or of another shape, types without a symbol.
    """
    systems = sorted(path.parent for path in folder.rglob("type.raw"))
    if not systems:
        raise DataError(
            f"The folder {str(folder)!r} holds no DeePMD-kit system: there is no type.raw in it or below."
        )
    return [frame for system in systems for frame in _read_system(system, file_keys)]


def _read_system(system: Path, file_keys: Mapping[str, str]) -> list[Frame]:
    types = _words(system / "type.raw")
    if not all(word.isdecimal() for word in types):
        raise DataError(f"{str(system / 'type.raw')!r} must hold numbers of types from 0, one per atom.")
    if not (system / "type_map.raw").is_file():
        raise DataError(
            f"{str(system)!r} has no type_map.raw: write the chemical symbols of its types there, one a line."
        )
    symbols = _symbols(system / "type_map.raw")
    periodic = not (system / "nopbc").exists()
    sets = sorted(path for path in system.glob("set.*") if path.is_dir())
    if not sets:
        raise DataError(f"{str(system)!r} has no folder set.000 with the frames.")
    frames = []
    for folder in sets:
        frames += _read_set(folder, np.array(types, dtype=int), symbols, periodic, file_keys)
    return frames


def _read_set(
    folder: Path, types: np.ndarray, symbols: list[str], periodic: bool, file_keys: Mapping[str, str]
) -> list[Frame]:
    n = len(types)
    positions = _load(folder / "coord.npy", None, 3 * n)
    count = len(positions)
    cells = _load(folder / "box.npy", count, 9) if periodic else np.zeros((count, 9))
    all_types = np.tile(types, (count, 1))
    if (folder / "real_atom_types.npy").exists():
        all_types = _load(folder / "real_atom_types.npy", count, n).astype(int)
    unknown = all_types[(all_types >= len(symbols)) | (all_types < -1)]
    if unknown.size:
        raise DataError(
            f"{str(folder)!r} has an atom of type {unknown[0]}, and type_map.raw names {len(symbols)} types, "
            "from 0."
        )
    frames = []
    for number in range(count):
        real = all_types[number] >= 0
        frames.append(
            Frame(
                positions=positions[number].reshape(n, 3)[real],
                symbols=[symbols[kind] for kind in all_types[number][real]],
                cell=cells[number],
                pbc=[periodic] * 3,
                source=f"{folder.parent.name}/{folder.name}, frame {number}",
            )
        )
    _attach_labels(frames, folder, all_types >= 0, file_keys)
    return frames


def _attach_labels(frames: list[Frame], folder: Path, real: np.ndarray, file_keys: Mapping[str, str]) -> None:
    """Labels of a set's frames from the files that are there; `real` [frames, n] marks atoms that exist."""
    for label in keys.LABELS:
        key = file_keys[label]
        path = folder / f"{_FILES.get(label, key) if key == keys.FILE_KEYS[label] else key}.npy"
        if not path.exists():
            continue
        shape = keys.label_shape(label, real.shape[1])
        for frame, values, atoms in zip(frames, _load(path, len(frames), math.prod(shape)), real):
            values = values.reshape(shape)
            frame.labels[label] = values[atoms] if label in keys.OF_ATOMS else values
            frame.label_keys[label] = path.name


def _load(path: Path, count: int | None, columns: int) -> np.ndarray:
    """A file of `count` rows (None: any number) and `columns` columns, in double."""
    if not path.is_file():
        raise DataError(f"{str(path)!r} is missing.")
    try:
        values = np.load(path).astype(float)
        return values.reshape(len(values) if count is None else count, columns)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise DataError(
            f"{str(path)!r} cannot be read as {'any number of' if count is None else count} frames of "
            f"{columns} numbers: {error}"
        ) from error


def _symbols(path: Path) -> list[str]:
    from ase.data import atomic_numbers

    symbols = _words(path)
    for symbol in symbols:
        if symbol not in atomic_numbers:
            raise DataError(f"{str(path)!r} names the type {symbol!r}, which is no chemical symbol.")
    return symbols


def _words(path: Path) -> list[str]:
    return path.read_text().split()
