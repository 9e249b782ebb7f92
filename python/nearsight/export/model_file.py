"""Reading the entries of a model file with the standard library alone (docs/file_format.md)."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable
from typing import Any

from nearsight.errors import ModelFileError
from nearsight.keys import FORMAT_VERSION, LABELS_FILE, METADATA_FILE, WEIGHTS_FILE

# One step from each older format version to the next: version -> function(metadata) -> metadata of version
# + 1.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

REQUIRED = (
    "architecture",
    "hyperparameters",
    "species",
    "cutoff",
    "num_interactions",
    "readouts",
    "couple",
    "reference_energies",
    "reference_energies_source",
    "units",
    "dtype",
    "native",
    "provenance",
    "versions",
)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return nearsight.json of a model file, upgraded to the present format version.

    Raises:
        ModelFileError: the file is missing, damaged, not a nearsight model, or from a newer nearsight.
    """
    try:
        metadata = json.loads(read_entry(path, METADATA_FILE))
    except ValueError as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            f"{path}: its {METADATA_FILE} is damaged ({error}); copy the file again"
        ) from None
    return _upgraded(path, metadata)


def read_entry(path: str | os.PathLike[str], name: str) -> bytes:
    """Return one of the entries that nearsight adds to the archive, such as weights.safetensors.

    Raises:
        ModelFileError: the file is missing, damaged or foreign, or has no such entry.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for entry in names:
                if entry.partition("/")[2] == f"extra/{name}":
                    return archive.read(entry)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: there is no such model file") from None
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError) as error:  # what zipfile makes of damage
        raise ModelFileError(_not_a_zip(path, error)) from None
    except OSError as error:
        raise ModelFileError(f"{path}: the model file cannot be read ({error.strerror})") from None
    if any(entry.partition("/")[2] == f"extra/{METADATA_FILE}" for entry in names):
        raise ModelFileError(f"{path}: the model file has no entry {name}")
    if any(entry.partition("/")[2] == "constants.pkl" for entry in names):
        raise ModelFileError(
            f"{path}: a TorchScript file, but not a nearsight model: it has no {METADATA_FILE}; "
            "write it with nearsight.export.save_model"
        )
    raise ModelFileError(f"{path}: not a nearsight model but another zip archive: it has no {METADATA_FILE}")


def read_ranges(
    path: str | os.PathLike[str],
) -> tuple[dict[str, tuple[float, ...]], dict[str, list[str]]]:
    """Return the tensors `<X>.min`, `<X>.max` and the names of the features by species of a file that the
    native core knows.

    Raises:
        ModelFileError: the file is missing, damaged or foreign, or has no such entry.
    """
    content = read_entry(path, WEIGHTS_FILE)
    start = 8 + int.from_bytes(content[:8], "little")
    ranges = {}
    for name, entry in json.loads(content[8:start]).items():
        if name.endswith((".min", ".max")):
            begin, end = entry["data_offsets"]
            ranges[name] = struct.unpack(f"<{(end - begin) // 8}d", content[start + begin : start + end])
    return ranges, json.loads(read_entry(path, LABELS_FILE))


def _not_a_zip(path: str | os.PathLike[str], error: Exception) -> str:
    with open(path, "rb") as file:
        start = file.read(2)
    if start == b"PK":
        return f"{path}: the model file is truncated or damaged ({error}); copy or export it again"
    return f"{path}: not a nearsight model: expected a zip archive as nearsight export writes it"


def _upgraded(path: str | os.PathLike[str], metadata: Any) -> dict[str, Any]:
    """Check that the metadata is ours, and bring it to the present version."""
    if not isinstance(metadata, dict) or metadata.get("format") != "nearsight":
        raise ModelFileError(
            f'{path}: not a nearsight model: {METADATA_FILE} does not say "format": "nearsight"'
        )
    version = metadata.get("format_version")
    if not isinstance(version, int):
        raise ModelFileError(f"{path}: format_version should be a whole number, found {version!r}")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: format version {version} is newer than version {FORMAT_VERSION}, the newest that this "
            "nearsight reads; update nearsight"
        )
    for step in range(version, FORMAT_VERSION):
        if step not in UPGRADES:
            raise ModelFileError(
                f"{path}: format version {version} is older than any that this nearsight reads"
            )
        metadata = UPGRADES[step](metadata) | {"format_version": step + 1}
    missing = [key for key in REQUIRED if key not in metadata]
    if missing:
        raise ModelFileError(f"{path}: {METADATA_FILE} lacks {', '.join(missing)}; export the model again")
    return metadata
