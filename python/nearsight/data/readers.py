"""Reading reference data: extended XYZ, everything ASE reads, ASE databases, nearsight's own HDF5, folders of
DeePMD-kit and input.data files of n2p2 and RuNNer.

Labels are looked up under explicit keys (`keys.FILE_KEYS` unless others are given), first among the
file's own fields, then among the results that ASE moves into a calculator. Compressed files are
decompressed in memory first: ASE reads a compressed file in quadratic time.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nearsight import keys
from nearsight.data.deepmd import read_deepmd
from nearsight.data.frame import MAX_FORCE, Frame, check_frame
from nearsight.data.runner import RUNNER_UNITS, is_runner, read_runner
from nearsight.errors import DataError

_OPEN = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}  # by suffix; others are not compressed
_EXTENDED_XYZ = {".xyz", ".extxyz"}
_DATABASES = {".db", ".json"}
_HDF5 = {".h5", ".hdf5"}
_STRESS = "stress"
_TRANSPOSED = "born_charges_transposed"


def read_frames(
    paths: str | Path | Sequence[str | Path],
    label_keys: Mapping[str, str] | None = None,
    max_force: float = MAX_FORCE,
    runner_units: Mapping[str, str] | None = None,
) -> list[Frame]:
    """Read and check all frames of one or several files, in the order of the files.

    Args:
        paths: files, or folders of DeePMD-kit's systems. A file that starts with the word `begin` is an
            input.data of n2p2 or RuNNer; else the format follows from the suffix, after .xz, .gz or .bz2 is
            taken off.
        label_keys: label (or "stress", "total_charge") → key in the file, where it differs from
            `keys.FILE_KEYS`; of DeePMD-kit's systems the stem of a file, where it differs from energy, force
            and virial.
        max_force: eV/Å; a larger force on an atom is refused.
        runner_units: "length" and "energy" of input.data files, names of `units.LENGTH_UNITS` and
            `units.ENERGY_UNITS`; bohr and hartree where they are left out.

    Raises:
        DataError: file missing or unreadable, absurd labels, atoms on top of each other.
    """
    file_keys = {**keys.FILE_KEYS, **(label_keys or {})}
    frames = []
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        frames += _read_path(Path(path), file_keys, {**RUNNER_UNITS, **(runner_units or {})})
    for frame in frames:
        check_frame(frame, max_force)
    return frames


def _read_path(path: Path, file_keys: Mapping[str, str], runner_units: Mapping[str, str]) -> list[Frame]:
    if path.is_dir():
        return read_deepmd(path, file_keys)
    if not path.is_file():
        raise DataError(f"Data file {str(path)!r} does not exist.")
    if path.suffix in _HDF5:
        from nearsight.data.hdf5 import read_hdf5

        return read_hdf5(path)
    try:
        frames = _read_file(path, file_keys, runner_units)
    except DataError:
        raise
    except Exception as error:  # ASE's readers raise anything, from KeyError to StopIteration
        raise DataError(f"{str(path)!r} cannot be read: {type(error).__name__}: {error}") from error
    if not frames:
        raise DataError(f"{str(path)!r} holds no frames.")
    return frames


def _read_file(path: Path, file_keys: Mapping[str, str], runner_units: Mapping[str, str]) -> list[Frame]:
    with _OPEN.get(path.suffix, open)(path, "rb") as file:
        if is_runner(file.read(1024)):
            file.seek(0)
            return read_runner(file.read().decode(), path.name, runner_units)
    return [
        _to_frame(atoms, file_keys, f"{path.name}, frame {number}")
        for number, atoms in enumerate(_ase_structures(path))
    ]


def _ase_structures(path: Path) -> Iterable[Any]:
    """ASE structures of a file; a database's key-value pairs and data are put into `info`."""
    import ase.io

    if path.suffix in _DATABASES:
        yield from _database_structures(path)
        return
    compressed = path.suffix in _OPEN
    inner = path.with_suffix("") if compressed else path
    file_format, is_binary = _ase_format(inner, look_inside=not compressed)
    source: Any = path
    if compressed:
        with _OPEN[path.suffix](path) as file:
            content = file.read()
        source = io.BytesIO(content) if is_binary else io.StringIO(content.decode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # chatter of readers about fields that are not used here
        yield from ase.io.iread(source, index=":", format=file_format)


def _ase_format(path: Path, look_inside: bool) -> tuple[str, bool]:
    """ASE's name of a file's format, and whether it is a binary one."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    if path.suffix in _EXTENDED_XYZ:
        return "extxyz", False
    try:
        file_format = filetype(str(path), read=look_inside)
        return file_format, ioformats[file_format].isbinary
    except (UnknownFileTypeError, KeyError):
        raise DataError(
            f"The format of {path.name!r} is not known; expected extended XYZ (.xyz, .extxyz), HDF5 (.h5), "
            "an ASE database (.db), input.data of n2p2 or RuNNer, a folder of DeePMD-kit, or another format "
            "that ASE reads."
        ) from None


def _database_structures(path: Path) -> Iterable[Any]:
    import ase.db

    with ase.db.connect(str(path)) as database:
        for row in database.select():
            atoms = row.toatoms()
            atoms.info = {**row.key_value_pairs, **row.data}
            yield atoms


def _to_frame(atoms: Any, file_keys: Mapping[str, str], source: str) -> Frame:
    arrays = {name: values for name, values in atoms.arrays.items() if name not in ("numbers", "positions")}
    fields = {**atoms.info, **arrays}
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    frame = Frame(
        positions=atoms.positions,
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        pbc=atoms.pbc,
        source=source,
    )
    found: dict[str, Any] = {}
    for label, key in file_keys.items():
        if key in fields:
            found[label] = fields.pop(key)
            frame.label_keys[label] = key
        elif _in_calculator(label, key) in results:
            found[label] = results[_in_calculator(label, key)]
            frame.label_keys[label] = f"{_in_calculator(label, key)} (ASE calculator)"
    frame.info = fields
    _assign_labels(frame, found)
    return frame


def _in_calculator(label: str, key: str) -> str:
    """ASE's name of a label in a calculator: its own default, or the key that was asked for.

    Whoever asks for another key than the default does not want the calculator's value of the label under its
    default name.
    """
    return label if key == keys.FILE_KEYS[label] else key


def _assign_labels(frame: Frame, found: dict[str, Any]) -> None:
    """Move what was found into `frame.labels`; a stress becomes a virial, -stress·volume (ASE's sign), and
    Born charges with the displacement first are transposed."""
    if keys.TOTAL_CHARGE in found:
        frame.info[keys.TOTAL_CHARGE] = found.pop(keys.TOTAL_CHARGE)
        del frame.label_keys[keys.TOTAL_CHARGE]
    transposed = found.pop(_TRANSPOSED, None)
    transposed_key = frame.label_keys.pop(_TRANSPOSED, None)
    if transposed is not None and keys.BORN_CHARGES not in found:
        found[keys.BORN_CHARGES] = _rows_of_matrices(transposed, turned=True)
        frame.label_keys[keys.BORN_CHARGES] = transposed_key
    stress = found.pop(_STRESS, None)
    stress_key = frame.label_keys.pop(_STRESS, None)
    for label, value in found.items():
        if label == keys.VIRIAL:
            value = _symmetric_matrix(value)
        elif label == keys.ENERGY and np.size(value) == 1:
            value = np.asarray(value).reshape(())
        elif label == keys.BORN_CHARGES:
            value = _rows_of_matrices(value)
        frame.labels[label] = value
    if stress is not None and keys.VIRIAL not in frame.labels:
        if frame.volume == 0:
            raise DataError(f"{frame.source} has a stress (key {stress_key!r}) but no cell with a volume.")
        frame.labels[keys.VIRIAL] = -frame.volume * _symmetric_matrix(stress)
        frame.label_keys[keys.VIRIAL] = stress_key


def _rows_of_matrices(value: Any, turned: bool = False) -> np.ndarray:
    """(n, 3, 3) from (n, 9), transposed if `turned`; other shapes are left as they are."""
    array = np.asarray(value)
    if array.ndim == 2 and array.shape[1] == 9:
        array = array.reshape(-1, 3, 3)
    return array.swapaxes(1, 2) if turned and array.ndim == 3 else array


def _symmetric_matrix(value: Any) -> np.ndarray:
    """(3, 3) from (3, 3), 9 numbers, or ASE's Voigt order xx yy zz yz xz xy; others are left as they are."""
    array = np.asarray(value)
    if array.size == 6:
        xx, yy, zz, yz, xz, xy = array.ravel()
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return array.reshape(3, 3) if array.size == 9 else array
